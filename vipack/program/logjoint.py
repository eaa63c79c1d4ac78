"""log p(x, z) as a function on R^D, for Laplace approximations, the ladder and checks by MCMC."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer.mcmc.util import TraceEinsumEvaluator
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import biject_to

from vipack.errors import GuideError, SupportError
from vipack.program.enumeration import Enumerate, vmappable_sums
from vipack.program.flat import flat_priors_sampled
from vipack.program.program import Program
from vipack.program.runs import Arguments, explained, trace_model
from vipack.program.vmappable import vmappable_densities

__all__ = ["LogJoint"]


class LogJoint:
    """``log p(x, z(u)) + log |dz/du|`` in nats, for ``u`` in R^D; pure, differentiable and vmappable.

    Each latent's transform is made from the support that its distribution has at that point, so a support that depends
    on other latents, as in ``Uniform(0, a)``, is right everywhere. Discrete latents marked
    ``infer={"enumerate": "parallel"}`` are summed out.

    Attributes:
        dim: D.
        device: on which the model runs, and ``u`` must be.
        shapes: latent name -> shape of its unconstrained value, in the order of ``u``.
    """

    def __init__(self, program: Program, arguments: Arguments) -> None:
        self._program = program
        self._arguments = arguments
        self._model = program.model
        self.device = program.parameters.device
        # Once, and not at each call: a transform such as vmap lets no tensor be marked as requiring grad within it.
        self._values = program.parameters.detached()
        self._evaluator: TraceEinsumEvaluator | None = None
        with program.bound(arguments, training=False), flat_priors_sampled(), torch.no_grad():
            with explained("model", arguments):
                trace = trace_model(program.model, arguments)
            self._read(trace)
            if self._enumerated:
                self._enumerate(trace)

    def __call__(self, u: Tensor) -> Tensor:
        """
        Args:
            u: ``(D,)``.

        Returns:
            ``()`` in nats.
        """
        return self._run(u)[0]

    def constrain(self, u: Tensor) -> dict[str, Tensor]:
        """Latent and deterministic values at ``u`` ``(D,)``, by site name."""
        return self._run(u)[1]

    def unconstrain(self, latents: Mapping[str, Tensor]) -> Tensor:
        """The ``u`` ``(D,)`` at which :meth:`constrain` gives `latents`.

        Raises:
            SupportError: a value is outside its site's support.
        """
        reader = _Read(self, latents)
        with self._bound(), torch.no_grad(), reader:
            self._model(*self._arguments.args, **self._arguments.kwargs)
        return torch.cat([reader.parts[name].reshape(-1) for name in self.shapes])

    def unconstrain_many(self, latents: Mapping[str, Tensor]) -> Tensor:
        """As :meth:`unconstrain` of many draws ``site -> (S, *site shape)``: ``(S, D)``.

        Rows of draws outside their support, or on its boundary, are not finite.
        """

        def one(values: Mapping[str, Tensor]) -> Tensor:
            reader = _Read(self, values, strict=False)
            with self._bound(), reader:
                self._model(*self._arguments.args, **self._arguments.kwargs)
            return torch.cat([reader.parts[name].reshape(-1) for name in self.shapes])

        with torch.no_grad():
            return torch.vmap(one, randomness="different")({name: latents[name] for name in self.shapes})

    def initial(self, radius: float = 2.0) -> Tensor:
        """A point ``(D,)`` uniform in (-radius, radius) on the unconstrained space, from the ambient generator."""
        parameters = self._program.parameters
        return torch.empty(self.dim, dtype=parameters.dtype, device=parameters.device).uniform_(-radius, radius)

    def _run(self, u: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        placer = _Place(self, u)
        with self._bound():
            with placer:
                trace = trace_model(self._model, self._arguments)
            if self._evaluator is not None:
                with vmappable_sums():
                    log_p = self._evaluator.log_prob(trace)
            else:
                log_p = trace.log_prob_sum(site_filter=lambda _, site: not site_is_subsample(site))
        values = {
            name: site["value"]
            for name, site in trace.nodes.items()
            if site["type"] == "sample" and (name in self.shapes or site["infer"].get("_deterministic"))
        }
        return log_p + placer.log_det, values

    @contextlib.contextmanager
    def _bound(self) -> Iterator[None]:
        # Validation asks for the values of tensors, which vmap and tracers refuse.
        bound = self._program.bound(self._arguments, values=self._values, training=False)
        with bound, pyro.validation_enabled(False), vmappable_densities():
            yield

    def _read(self, trace: Trace) -> None:
        self.shapes: dict[str, torch.Size] = {}
        self._enumerated = False
        self._max_plate_nesting = 0
        for name, site in trace.nodes.items():
            if site["type"] != "sample":
                continue
            dims = [-frame.dim for frame in site["cond_indep_stack"] if frame.vectorized]
            self._max_plate_nesting = max([self._max_plate_nesting, *dims])
            if site["is_observed"] or site_is_subsample(site):
                continue
            if site["fn"].support.is_discrete:
                if not site["infer"].get("enumerate"):
                    raise GuideError(
                        f"site {name!r} is a discrete latent ({type(site['fn']).__name__}): log p(x, z) on R^D needs it "
                        "summed out; mark the model with pyro.infer.config_enumerate, or marginalise it by hand."
                    )
                self._enumerated = True
                continue
            try:
                self.shapes[name] = biject_to(site["fn"].support).inv(site["value"]).shape
            except NotImplementedError as error:
                raise GuideError(
                    f"site {name!r}: no bijection from R^D to the support {site['fn'].support} is known; register one with "
                    "torch.distributions.biject_to, or write the site through one that has it."
                ) from error
        self.dim = sum(math.prod(shape) for shape in self.shapes.values())

    def _enumerate(self, trace: Trace) -> None:
        self._model = Enumerate(first_available_dim=-1 - self._max_plate_nesting)(self._model)
        placed = {name: trace.nodes[name]["value"] for name in self.shapes}
        enumerated = trace_model(poutine.condition(self._model, data=placed), self._arguments)
        self._evaluator = TraceEinsumEvaluator(enumerated, True, self._max_plate_nesting)


class _Place(Messenger):  # type: ignore[misc]
    """Gives each latent the value that its slice of ``u`` transforms to, and adds up the log Jacobian."""

    def __init__(self, joint: LogJoint, u: Tensor) -> None:
        super().__init__()
        sizes = [math.prod(shape) for shape in joint.shapes.values()]
        self._parts = dict(zip(joint.shapes, u.split(sizes), strict=True))
        self._shapes = joint.shapes
        self.log_det: Tensor = u.new_zeros(())

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        part = self._parts.get(msg["name"])
        if part is None:
            return
        transform = biject_to(msg["fn"].support)
        part = part.reshape(self._shapes[msg["name"]])
        value = transform(part)
        log_det = transform.log_abs_det_jacobian(part, value)
        self.log_det = self.log_det + log_det.sum()
        msg["value"] = value
        msg["done"] = True


class _Read(Messenger):  # type: ignore[misc]
    """Collects the unconstrained values of given latents, each through the support that it has there."""

    def __init__(self, joint: LogJoint, latents: Mapping[str, Tensor], *, strict: bool = True) -> None:
        super().__init__()
        self._joint = joint
        self._latents = latents
        self._strict = strict
        self.parts: dict[str, Tensor] = {}

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        name = msg["name"]
        if name not in self._joint.shapes:
            return
        value = self._latents[name].reshape(msg["fn"].shape())
        support = msg["fn"].support
        if self._strict and not support.check(value).all():
            raise SupportError(
                f"site {name!r}: value {value} is outside its support {support}; give a value inside it."
            )
        self.parts[name] = biject_to(support).inv(value)
        msg["value"] = value
        msg["done"] = True
