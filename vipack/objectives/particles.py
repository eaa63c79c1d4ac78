"""Many draws of a guide at once, with log p and log q of each, for guides and models that need not know of it."""

from __future__ import annotations

import contextlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.distributions.torch_distribution import MaskedDistribution
from pyro.infer.autoguide import AutoContinuous
from pyro.poutine.guide import GuideMessenger
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Independent

from vipack.compat.autoguides import inside_guide, unpacked
from vipack.compat.pytorch import plain_normals
from vipack.compat.supports import support_or_reals
from vipack.errors import GuideError
from vipack.objectives.antithetic import mirrored
from vipack.program import Arguments
from vipack.program.densities.densities import compute, plate_nesting, row_plate, row_sums
from vipack.program.densities.masking import counting, leave_out, standard_terms, treatments
from vipack.program.densities.substitution import Given, Transformed
from vipack.program.evaluation.evaluation import ModelDensity
from vipack.program.running.randomness import TorchState, seeded
from vipack.program.sites.sites import has_density, read_sites, sample_nodes

__all__ = ["Particles", "particles_of"]

Values = dict[str, Tensor]


class Particles(ABC):
    """Draws of a guide for one model, evaluated side by side under vmap; one by one where vmap refuses the program.

    What is learned of the program, such as whether vmap takes it, is kept from step to step.

    Args:
        by_rows: give densities row by row, where every latent and likelihood is local to the rows of one plate.

    Attributes:
        row_plate: the name of that plate; None where densities are of all rows together.
        row_scale: the N/B by which :meth:`log_p` scaled them last; 1 without a row plate.
    """

    row_plate: str | None = None
    row_scale: float | Tensor = 1.0

    def __init__(
        self, model: Callable[..., Any], guide: Callable[..., Any], call: tuple[Any, Any], *, by_rows: bool = False
    ) -> None:
        self.model, self.guide = model, guide
        self._refused: set[str] = set()
        with _looking():
            guide_trace, model_trace = self._traces(call)
            self._treated = treatments(guide_trace, model_trace, lambda latents: self._model_trace(latents, call))
        enumerates = any(_is_enumerated(s) and name not in guide_trace for name, s in model_trace.nodes.items())
        self._density = ModelDensity(model, nesting=plate_nesting(guide_trace, model_trace), enumerates=enumerates)
        self._read(model_trace, guide_trace)
        if by_rows:
            self._read_rows(model_trace, guide_trace)

    def _read_rows(self, model_trace: Trace, guide_trace: Trace) -> None:  # noqa: B027, for those that have no rows
        """Take note of a plate over whose rows densities are a product, and of the dimension of its rows in each draw."""

    def sum_to_rows(self, name: str, values: Tensor) -> Tensor:
        """Numbers of a draw's shape ``(S, ...)`` summed up for each draw: ``(S,)``, or ``(S, B)`` with a row plate."""
        return values.reshape(len(values), -1).sum(-1)

    @abstractmethod
    def _read(self, model_trace: Trace, guide_trace: Trace) -> None:
        """Take note of what a first run of guide and model shows."""

    @abstractmethod
    def draw(self, number: int, call: tuple[Any, Any], *, antithetic: bool) -> tuple[Values, Values, Tensor | None]:
        """What the guide draws by name ``(S, ...)``, what the model's latents are then made of, and weights ``(S,)``.

        The weights sum to one and are differentiable; None stands for equal ones.
        """

    @abstractmethod
    def log_q(self, drawn: Values, latents: Values, call: tuple[Any, Any]) -> Tensor:
        """log density in nats of the guide at `drawn`, as a function of them and of its parameters.

        ``(S,)``; ``(S, B)``, scaled by N/B, with a row plate.
        """

    @abstractmethod
    def log_p(self, latents: Values, call: tuple[Any, Any]) -> Tensor:
        """log p(x, z) in nats, in the shape and coordinates of :meth:`log_q`; discrete latents are summed out."""

    def _traces(self, call: tuple[Any, Any]) -> tuple[Trace, Trace]:
        args, kwargs = call
        guide_trace = self._guide_trace(call)
        return guide_trace, poutine.trace(poutine.replay(self.model, trace=guide_trace)).get_trace(*args, **kwargs)

    def _guide_trace(self, call: tuple[Any, Any]) -> Trace:
        args, kwargs = call
        messenger = poutine.unwrap(self.guide)
        if isinstance(messenger, GuideMessenger):  # runs the model itself, and has its likelihood in the trace
            self.guide(*args, **kwargs)
            return messenger.get_traces()[1]
        trace: Trace = poutine.trace(self.guide).get_trace(*args, **kwargs)
        return trace

    def _model_trace(self, latents: Mapping[str, Tensor], call: tuple[Any, Any]) -> Trace:
        args, kwargs = call
        with seeded(0), Given(latents):
            return poutine.trace(self.model).get_trace(*args, **kwargs)

    def _each(self, what: str, one: Callable[[Values], Any], inputs: Values) -> Any:
        """`one` of each of the stacked `inputs`, results stacked."""
        with _unvalidated():
            if what not in self._refused:
                state = TorchState.current()
                try:
                    with plain_normals(), warnings.catch_warnings():
                        warnings.filterwarnings("ignore", message="There is a performance drop")
                        return torch.vmap(one, randomness="different")(inputs)
                except GuideError:
                    raise
                except Exception:  # vmap refuses many programs, with many kinds of errors; all of them run one by one
                    self._refused.add(what)
                    state.install()
            number = len(next(iter(inputs.values())))
            return _stacked([one({name: value[i] for name, value in inputs.items()}) for i in range(number)])


class _VectorParticles(Particles):
    """Particles of a guide that draws one unconstrained vector from a distribution that it can show."""

    guide: AutoContinuous

    def _read(self, model_trace: Trace, guide_trace: Trace) -> None:
        self._sampled_rows = [name for name, site in model_trace.nodes.items() if _is_subsample(site)]

    def draw(self, number: int, call: tuple[Any, Any], *, antithetic: bool) -> tuple[Values, Values, Tensor | None]:
        args, kwargs = call
        # Outside a call of the guide its parameters are no `pyro.param` statements, and an optimizer would not see them.
        with inside_guide(self.guide):
            self._posterior = self.guide.get_posterior(*args, **kwargs)
        weights: Tensor | None = None
        if antithetic:
            u = mirrored(self._posterior, number)
        elif hasattr(self._posterior, "stratified"):
            u, weights = self._posterior.stratified(number)
        else:
            u = self._posterior.rsample((number,))
        return {"u": u}, {"u": u, **self._rows(u[0], call)}, weights

    def log_q(self, drawn: Values, latents: Values, call: tuple[Any, Any]) -> Tensor:
        density: Tensor = self._posterior.log_prob(drawn["u"])
        return density

    def log_p(self, latents: Values, call: tuple[Any, Any]) -> Tensor:
        rows = {name: latents[name] for name in self._sampled_rows}

        def one(values: Values) -> Tensor:
            transformed = self._transformed(values["u"])
            with Given(rows):
                log_p = self._density.log_p(self._density.trace(Arguments(*call), transformed))
            return log_p + transformed.gain

        result: Tensor = self._each("model", one, {"u": latents["u"]})
        return result

    def _transformed(self, u: Tensor) -> Transformed:
        supports = None
        if not getattr(self.guide, "follows_supports", False):
            supports = {
                n: support_or_reals(site["fn"]) for n, site in self.guide.prototype_trace.iter_stochastic_nodes()
            }
        unconstrained = {site["name"]: piece for site, piece in unpacked(self.guide, u)}
        return Transformed(unconstrained, supports, [name for name, how in self._treated.items() if how != "kept"])

    def _rows(self, u: Tensor, call: tuple[Any, Any]) -> Values:
        """The rows that subsampling plates of the model draw, the same for all particles."""
        if not self._sampled_rows:
            return {}
        args, kwargs = call
        with torch.no_grad(), _unvalidated(), self._transformed(u):
            trace = poutine.trace(self.model).get_trace(*args, **kwargs)
        return {name: trace.nodes[name]["value"] for name in self._sampled_rows}


class _TraceParticles(Particles):
    """Particles of any guide whose draws are reparametrized."""

    def _read(self, model_trace: Trace, guide_trace: Trace) -> None:
        self._drawn, self._rows = [], []
        self._standard = [name for name, how in self._treated.items() if how == "standard normal"]
        for name, site in guide_trace.nodes.items():
            if site["type"] != "sample" or site["is_observed"]:
                continue
            if _is_subsample(site):
                self._rows.append(name)
            elif not _is_delta(site):
                self._drawn.append(name)
                if not getattr(site["fn"], "has_rsample", False):
                    raise GuideError(
                        f"guide site {name!r}: {type(site['fn']).__name__} draws without a gradient to its parameters, "
                        "which this objective follows; sum a discrete latent out, or use pyro.infer.TraceGraph_ELBO."
                    )
        self._latents = [
            name for name, site in guide_trace.nodes.items() if site["type"] == "sample" and not site["is_observed"]
        ]

    def _read_rows(self, model_trace: Trace, guide_trace: Trace) -> None:
        plate = row_plate(read_sites(model_trace, guide_trace), guide_trace)
        if plate is None or self._standard:
            return
        nodes = {name: guide_trace.nodes[name] for name in self._latents if not _is_subsample(guide_trace.nodes[name])}
        dims = {
            name: next(frame.dim for frame in node["cond_indep_stack"] if frame.name == plate) - node["fn"].event_dim
            for name, node in nodes.items()
        }
        if all(node["value"].dim() >= -dims[name] for name, node in nodes.items()):
            self.row_plate, self._row_dims = plate, dims

    def sum_to_rows(self, name: str, values: Tensor) -> Tensor:
        if self.row_plate is None:
            return super().sum_to_rows(name, values)
        others = [dim for dim in range(1, values.dim()) if dim != values.dim() + self._row_dims[name]]
        return values.sum(others) if others else values

    def draw(self, number: int, call: tuple[Any, Any], *, antithetic: bool) -> tuple[Values, Values, Tensor | None]:
        if antithetic:
            raise GuideError(
                "antithetic=True needs a guide that draws one vector from a distribution symmetric in its noise, such as "
                "AutoDiagonalNormal, AutoMultivariateNormal or Flow; leave antithetic out."
            )

        def one(_: Values) -> Values:
            trace = self._guide_trace(call)
            return {name: trace.nodes[name]["value"] for name in self._latents}

        latents: Values = self._each("guide", one, {"particle": torch.arange(number)})
        return {name: latents[name] for name in self._drawn}, latents, None

    def log_q(self, drawn: Values, latents: Values, call: tuple[Any, Any]) -> Tensor:
        counted = self._counted(latents, call)

        def one(values: Values) -> Tensor:
            with Given(values):
                trace = self._guide_trace(call)
            leave_out(trace, counted)
            if self.row_plate is not None:
                return row_sums(compute(trace), self.row_plate)
            return torch.as_tensor(trace.log_prob_sum())

        result: Tensor = self._each("density", one, {**drawn, **{name: latents[name] for name in self._rows}})
        return result

    def _counted(self, latents: Values, call: tuple[Any, Any]) -> Values:
        """Which elements of latents to leave out of log q count; on the same rows they are the same for all particles."""
        left_out = [name for name, how in self._treated.items() if how == "left out"]
        if not left_out:
            return {}
        with _looking():
            nodes = self._model_trace({name: value[0] for name, value in latents.items()}, call).nodes
        masks = {name: counting(nodes[name]) for name in left_out if name in nodes}
        return {name: mask for name, mask in masks.items() if mask is not None}

    def log_p(self, latents: Values, call: tuple[Any, Any]) -> Tensor:
        def one(values: Values) -> Tensor:
            trace = self._density.trace(Arguments(*call), Given(values))
            if self.row_plate is not None:
                self.row_scale = _scale_of_data(trace)
                return row_sums(compute(trace), self.row_plate)
            return self._density.log_p(trace) + standard_terms(trace, self._standard)

        result: Tensor = self._each("model", one, latents)
        return result


def particles_of(
    model: Callable[..., Any], guide: Callable[..., Any], call: tuple[Any, Any], *, by_rows: bool = False
) -> Particles:
    """Particles of `guide` for `model`, called with the pair of arguments and keyword arguments `call`.

    Raises:
        GuideError: a draw of the guide is not reparametrized.
    """
    kind = _VectorParticles if isinstance(guide, AutoContinuous) else _TraceParticles
    return kind(model, guide, call, by_rows=by_rows)


def _scale_of_data(trace: Trace) -> float | Tensor:
    """The number that the likelihood is scaled by."""
    scales = [node["scale"] for node in sample_nodes(trace).values() if has_density(node) and node["is_observed"]]
    for scale in scales:
        if not isinstance(scale, Tensor):
            return float(scale)
        if scale.numel() == 1:
            return scale.reshape(())
    return 1.0


def _is_subsample(site: Mapping[str, Any]) -> bool:
    return site["type"] == "sample" and bool(site_is_subsample(site))


def _is_enumerated(site: Mapping[str, Any]) -> bool:
    return site["type"] == "sample" and not site["is_observed"] and site["infer"].get("enumerate") == "parallel"


def _is_delta(site: Mapping[str, Any]) -> bool:
    fn = site["fn"]
    while isinstance(fn, MaskedDistribution | Independent):
        fn = fn.base_dist
    return isinstance(fn, Delta)


def _stacked(results: list[Any]) -> Any:
    if isinstance(results[0], dict):
        return {name: torch.stack([result[name] for result in results]) for name in results[0]}
    return torch.stack(results)


def _unvalidated() -> Any:
    # Validation asks for the values of tensors, which vmap and tracers refuse.
    return pyro.validation_enabled(False)


@contextlib.contextmanager
def _looking() -> Iterator[None]:
    """Run a program to read it: nothing is drawn from the ambient generators, and no site is seen outside."""
    with seeded(0), torch.no_grad(), _unvalidated(), poutine.block(hide_fn=lambda msg: msg["type"] == "sample"):
        yield
