"""log p(x, z) as a function on R^D, for Laplace approximations, the ladder and checks by MCMC."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.distributions import biject_to

from vipack.compat.supports import is_discrete, support_or_reals
from vipack.errors import GuideError, SupportError
from vipack.program.densities.densities import count_numbers, plate_nesting
from vipack.program.densities.enumeration import depends_on_enumeration
from vipack.program.densities.masking import counting, idle_latents, over_events
from vipack.program.densities.substitution import Given, Transformed
from vipack.program.densities.vmappable import vmappable_densities
from vipack.program.evaluation.evaluation import ModelDensity
from vipack.program.program import Program
from vipack.program.running.flat import flat_priors_sampled
from vipack.program.running.randomness import seeded
from vipack.program.running.replay import Replay
from vipack.program.running.runs import Arguments, explained, trace_model
from vipack.program.sites.sites import is_deterministic, is_latent, sample_nodes

__all__ = ["LogJoint"]

_NUMBERS_AT_ONCE = 100_000_000  # in memory during one run for many draws
_LEAST_AT_ONCE = 16


class LogJoint:
    """``log p(x, z(u)) + log |dz/du|`` in nats, for ``u`` in R^D; pure, differentiable and vmappable.

    Each latent's transform is made from the support that its distribution has at that point, so a support that depends
    on other latents, as in ``Uniform(0, a)``, is right everywhere. Discrete latents marked
    ``infer={"enumerate": "parallel"}`` are summed out. An element of a latent that a mask leaves out, and that nothing
    depends on, is standard normal on R.

    Attributes:
        dim: D.
        device, dtype: on which and in which the model runs, and ``u`` must be.
        shapes: latent name -> shape of its unconstrained value, in the order of ``u``.
    """

    def __init__(self, program: Program, arguments: Arguments) -> None:
        self._program = program
        self._arguments = arguments
        self.device, self.dtype = program.parameters.device, program.parameters.dtype
        # Here rather than at each call: inside a transform such as vmap no tensor can be marked as requiring grad.
        self._values = program.parameters.detached()
        with program.bound(arguments, training=False), flat_priors_sampled(), torch.no_grad():
            with explained("model", arguments):
                trace = trace_model(program.model, arguments)
            self._read(trace)

    def __call__(self, u: Tensor) -> Tensor:
        """
        Args:
            u: ``(D,)``.

        Returns:
            ``()`` in nats.
        """
        transformed = self._transformed(u)
        with self._bound():
            log_p = self._density.log_p(self._density.trace(self._arguments, transformed))
        return log_p + transformed.gain if self.shapes else log_p

    def constrain(self, u: Tensor) -> dict[str, Tensor]:
        """Latent and deterministic values at ``u`` ``(D,)``, by site name, NaN for elements that a mask leaves out.

        Deterministic sites that depend on a latent which is summed out have no value here.
        """
        transformed = self._transformed(u)
        with self._bound():
            nodes = sample_nodes(self._density.trace(self._arguments, transformed))
        values = {name: node["value"] for name, node in nodes.items() if name in self._constrained}
        for name, event_dim in self._idle.items():
            counted = counting(nodes[name])
            if counted is not None:
                values[name] = values[name].masked_fill(~over_events(counted, event_dim), torch.nan)
        return values

    def unconstrain(self, latents: Mapping[str, Tensor]) -> Tensor:
        """The ``u`` ``(D,)`` at which :meth:`constrain` gives `latents`.

        Raises:
            SupportError: a value is outside its site's support.
        """
        reader = _Read(self._value_shapes, latents)
        with self._bound(), torch.no_grad():
            self._density.trace(self._arguments, reader)
        return torch.cat([reader.unconstrained[name].reshape(-1) for name in self.shapes])

    def unconstrain_many(self, latents: Mapping[str, Tensor]) -> Tensor:
        """As :meth:`unconstrain` of many draws ``site -> (S, *site shape)``: ``(S, D)``.

        Rows of draws outside their support, or on its boundary, are not finite. Elements that a mask leaves out are drawn
        anew, from the standard normal distribution that they have here.
        """

        def one(values: Mapping[str, Tensor]) -> Tensor:
            reader = _Read(self._value_shapes, values, strict=False, idle=self._idle)
            with self._bound():
                self._density.trace(self._arguments, reader)
            return torch.cat([reader.unconstrained[name].reshape(-1) for name in self.shapes])

        named = {name: latents[name] for name in self.shapes}
        at_once = max(_LEAST_AT_ONCE, _NUMBERS_AT_ONCE // max(1, self._numbers))
        with torch.no_grad():
            if len(next(iter(named.values()))) > at_once:  # keeps only those nodes of the graph that the supports need
                return torch.cat(list(Replay(one, _LEAST_AT_ONCE)(named)))
            return torch.vmap(one, randomness="different")(named)

    def initial(self, radius: float = 2.0) -> Tensor:
        """A point ``(D,)`` uniform in (-radius, radius) on the unconstrained space, from the ambient generator."""
        parameters = self._program.parameters
        return torch.empty(self.dim, dtype=parameters.dtype, device=parameters.device).uniform_(-radius, radius)

    def _transformed(self, u: Tensor) -> Transformed:
        pieces = u.split([math.prod(shape) for shape in self.shapes.values()])
        named = zip(self.shapes.items(), pieces, strict=True)
        return Transformed({name: piece.reshape(shape) for (name, shape), piece in named}, None, self._idle)

    @contextlib.contextmanager
    def _bound(self) -> Iterator[None]:
        # Validation asks for the values of tensors, which vmap and tracers refuse.
        bound = self._program.bound(self._arguments, values=self._values, training=False)
        with bound, pyro.validation_enabled(False), vmappable_densities():
            yield

    def _read(self, trace: Trace) -> None:
        self.shapes: dict[str, torch.Size] = {}
        enumerates = False
        nodes = sample_nodes(trace)
        for name, site in nodes.items():
            if not is_latent(site):
                continue
            if is_discrete(site["fn"]):
                if site["infer"].get("enumerate") != "parallel":
                    raise GuideError(
                        f"site {name!r} is a discrete latent ({type(site['fn']).__name__}): log p(x, z) on R^D needs it "
                        "summed out; mark the model with pyro.infer.config_enumerate, or marginalise it by hand."
                    )
                enumerates = True
                continue
            try:
                self.shapes[name] = biject_to(support_or_reals(site["fn"])).inv(site["value"]).shape
            except NotImplementedError as error:
                raise GuideError(
                    f"site {name!r}: no bijection from R^D to the support {site['fn'].support} is known; register one with "
                    "torch.distributions.biject_to, or write the site through one that has it."
                ) from error
        self._numbers = count_numbers(trace)
        self._value_shapes = {name: nodes[name]["value"].shape for name in self.shapes}
        self.dim = sum(math.prod(shape) for shape in self.shapes.values())
        self._density = ModelDensity(self._program.model, nesting=plate_nesting(trace), enumerates=enumerates)
        self._idle = {
            name: nodes[name]["fn"].event_dim for name in idle_latents(trace, self._run) if name in self.shapes
        }
        self._constrained = set(self.shapes) | self._fixed(nodes)

    def _run(self, latents: Mapping[str, Tensor]) -> Trace:
        with seeded(0), Given(latents), explained("model", self._arguments):
            return trace_model(self._program.model, self._arguments)

    def _fixed(self, nodes: Mapping[str, Mapping[str, Tensor]]) -> set[str]:
        """Deterministic sites that do not depend on enumerated latents.

        Raises:
            GuideError: the support of a latent depends on one.
        """
        computed = {name: node["value"] for name, node in nodes.items() if is_deterministic(node)}
        if not self._density.enumerates:
            return set(computed)
        reader = _Read(self._value_shapes, {name: nodes[name]["value"] for name in self.shapes}, strict=False)
        enumerated = sample_nodes(self._density.trace(self._arguments, reader))
        for name, shape in self.shapes.items():
            if depends_on_enumeration(reader.unconstrained[name], shape):
                raise GuideError(
                    f"site {name!r}: its support depends on a discrete latent that is summed out, so that there is no one map "
                    "from R^D to its values; write it as a fixed support, moved and scaled by a deterministic expression."
                )
        return {n for n, value in computed.items() if not depends_on_enumeration(enumerated[n]["value"], value.shape)}


class _Read(Messenger):  # type: ignore[misc]
    """Collects the unconstrained values of given latents, each through the support that it has there."""

    def __init__(
        self,
        shapes: Mapping[str, torch.Size],
        latents: Mapping[str, Tensor],
        *,
        strict: bool = True,
        idle: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self._shapes = shapes
        self._latents = latents
        self._strict = strict
        self._idle = idle or {}
        self.unconstrained: dict[str, Tensor] = {}

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        name = msg["name"]
        if name not in self._shapes:
            return
        value = self._latents[name].reshape(self._shapes[name])
        support = support_or_reals(msg["fn"])
        if self._strict and not support.check(value).all():
            raise SupportError(
                f"site {name!r}: value {value} is outside its support {support}; give a value inside it."
            )
        u = biject_to(support).inv(value)
        counted = counting(msg) if name in self._idle else None
        if counted is not None:
            event_dim = u.dim() - (value.dim() - msg["fn"].event_dim)
            u = torch.where(over_events(counted, event_dim), u, torch.randn_like(u))
        self.unconstrained[name] = u
        msg["value"] = value
        msg["done"] = True
