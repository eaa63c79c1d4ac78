"""Draws from a fitted guide with log p(x, z) and log q(z), and predictive draws from the model."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import MaskedDistribution
from pyro.infer.mcmc.util import TraceEinsumEvaluator
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from pyro.poutine.uncondition_messenger import UnconditionMessenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from vipack.errors import ShapeError, VipackError
from vipack.program import Arguments, Program, SiteTable, read_sites, seeded
from vipack.program.runs import check_signature, explained

__all__ = ["Draws", "Posterior"]

_ELEMENTS_AT_ONCE = 20_000_000  # numbers held by one vectorized pass, about 80 MB in float32


@dataclass(frozen=True)
class Draws:
    """Draws from the guide, named and constrained, with their densities.

    Attributes:
        latents: site -> ``(S, *site shape)``.
        deterministic: the model's deterministic sites at the same draws.
        log_joint: log p(x, z), ``(S,)`` in nats, float64; enumerated latents are summed out.
        log_q: log q(z), ``(S,)`` in nats, float64.
        row_log_weights: ``(S, N)`` where the weights are a product over the rows of one plate (every latent is local
            to it, as in a VAE); None otherwise.
    """

    latents: dict[str, Tensor]
    deterministic: dict[str, Tensor]
    log_joint: Tensor
    log_q: Tensor
    row_log_weights: Tensor | None = None

    @property
    def log_weights(self) -> Tensor:
        """``log p(x, z) - log q(z)``, ``(S,)`` in nats; its mean estimates the ELBO."""
        return self.log_joint - self.log_q


class Posterior:
    """A fitted guide for one data set. It reads the parameters as they stand and never changes them."""

    def __init__(self, program: Program, arguments: Arguments) -> None:
        self.program = program
        self.arguments = arguments
        with seeded(0), self._running(arguments):
            guide_trace, model_trace = program.traces(arguments)
        self.table: SiteTable = read_sites(model_trace, guide_trace)
        self._observed = {site.name: model_trace.nodes[site.name]["value"] for site in self.table.of_kind("observed")}
        self._masks = {name: _mask(model_trace.nodes[name]) for name in self._observed}
        self._auxiliary = [
            n for n, s in guide_trace.nodes.items() if s["type"] == "sample" and not site_is_subsample(s)
        ]
        self._latents = [site.name for site in self.table.of_kind("latent")]
        self._shapes = {n: model_trace.nodes[n]["value"].shape for n in self._latents}
        self._nesting = _max_plate_nesting(guide_trace, model_trace)
        self._row_plate = _row_plate(self.table)
        self._size = _numbers_held(guide_trace, model_trace)
        self._evaluator = self._enumerator(model_trace)
        self.vectorized: dict[str, str] = {}  # which way of drawing worked, for the curious

    @property
    def observed(self) -> dict[str, Tensor]:
        """The observed sites' values, by name."""
        return dict(self._observed)

    @property
    def observed_masks(self) -> dict[str, Tensor]:
        """Where ``obs_mask=``, ``poutine.mask`` or ``.mask()`` leaves observations out: site -> True for those that count.

        Each mask broadcasts to the site's batch shape; sites without one are not listed.
        """
        return {name: mask for name, mask in self._masks.items() if mask is not None}

    def draws(self, num_draws: int, *, seed: int = 0, densities: bool = True) -> Draws:
        """`num_draws` draws from the guide.

        Args:
            densities: False skips the model; then ``log_joint`` is NaN and ``deterministic`` empty.
        """
        with seeded(seed), self._running(self.arguments):
            latents, log_q, row_log_q = self._draw_guide(num_draws, self.arguments)
            if not densities:
                return Draws(latents, {}, torch.full_like(log_q, torch.nan), log_q)
            deterministic, log_joint, row_log_joint = self._evaluate(latents, num_draws)
        rows = None if row_log_joint is None or row_log_q is None else row_log_joint - row_log_q
        return Draws(latents, deterministic, log_joint, log_q, rows)

    def predictive(self, num_draws: int, arguments: Arguments | None = None, *, seed: int = 0) -> dict[str, Tensor]:
        """Draws of the observed sites (and deterministic ones) given draws of the guide: ``site -> (S, *shape)``.

        Args:
            arguments: call on new data; observed sites are drawn whatever is passed for them. None: the fit's data.

        Raises:
            SignatureError: the new call does not fit the model.
            ShapeError: a latent has one value for each row of the fit's data, and the new data have other rows.
        """
        chosen = self.arguments if arguments is None else arguments
        if arguments is not None:
            check_signature("model", self.program.model, chosen)
            check_signature("guide", self.program.guide, chosen)
        with seeded(seed), self._running(chosen):
            latents, _, _ = self._draw_guide(num_draws, chosen)
            try:
                with explained("model", chosen):
                    return self._predict(latents, num_draws, chosen)
            except VipackError as error:
                local = [s.name for s in self.table.of_kind("latent") if s.plates]
                if arguments is not None and local:
                    raise ShapeError(
                        f"latent site(s) {', '.join(map(repr, local))} have a value for each row of the fit's data, which "
                        f"does not fit the new data ({error}); predict with data of the same rows, or fit an amortised guide."
                    ) from error
                raise

    def log_likelihood(self, latents: dict[str, Tensor]) -> dict[str, Tensor]:
        """log p(x_i | z) of each observation at draws ``site -> (S, *shape)``: ``site -> (S, *batch shape)``, in nats.

        Never scaled. Empty where discrete latents are summed out, since an observation then has no density given z.
        """
        if self._evaluator is not None or not latents:
            return {}
        num_draws = len(next(iter(latents.values())))

        def one(values: dict[str, Tensor]) -> dict[str, Tensor]:
            trace = self._model_trace(values)
            trace.compute_log_prob()
            return {name: trace.nodes[name]["unscaled_log_prob"] for name in self._observed}

        with seeded(0), self._running(self.arguments):
            ways: dict[str, Callable[[], Any]] = {
                "vmap": lambda: self._vmap(one, num_draws, latents),
                "loop": lambda: _stack([one(_draw_of(latents, i)) for i in range(num_draws)]),
            }
            found: dict[str, Tensor] = self._first_that_works("log_likelihood", ways, self.arguments)
        return found

    def named_arguments(self) -> dict[str, Any]:
        """What the model is called with, positional arguments under their names."""
        positional = self.arguments.args
        try:
            names = list(inspect.signature(self.program.model).parameters)
        except (TypeError, ValueError):
            names = []
        names += [f"argument_{i}" for i in range(len(names), len(positional))]
        return {**dict(zip(names, positional, strict=False)), **self.arguments.kwargs}

    @property
    def guide_name(self) -> str:
        """The name of the guide's function or class."""
        guide = self.program.guide
        return str(getattr(guide, "__name__", type(guide).__name__))

    @contextlib.contextmanager
    def _running(self, arguments: Arguments) -> Iterator[None]:
        values = self.program.parameters.detached()
        bound = self.program.bound(arguments, values=values, training=False)
        with bound, pyro.validation_enabled(False), torch.no_grad():
            yield

    # --- the guide

    def _draw_guide(self, num_draws: int, arguments: Arguments) -> tuple[dict[str, Tensor], Tensor, Tensor | None]:
        def one(_: Tensor) -> Any:
            trace = self._guide_trace(arguments)
            log_q, rows = self._reduce(trace)
            return {name: trace.nodes[name]["value"] for name in self._latents}, log_q, rows

        ways: dict[str, Callable[[], Any]] = {
            "vmap": lambda: self._vmap(one, num_draws),
            "plate": lambda: self._in_plate(num_draws, arguments),
            "loop": lambda: _stack([one(torch.empty(())) for _ in range(num_draws)]),
        }
        latents, log_q, rows = self._first_that_works("guide", ways, arguments)
        return latents, log_q, rows if self._row_plate else None

    def _guide_trace(self, arguments: Arguments) -> Trace:
        if isinstance(poutine.unwrap(self.program.guide), Messenger):
            trace = self.program.traces(arguments)[0]
        else:
            trace = poutine.trace(self.program.guide).get_trace(*arguments.args, **arguments.kwargs)
        trace.compute_log_prob()
        return trace

    def _in_plate(self, num_draws: int, arguments: Arguments) -> Any:
        """All draws at once through an outermost plate, as Pyro vectorizes particles; checked against single draws.

        A guide that does not broadcast may give wrong densities here without an error, hence the check.
        """
        with pyro.plate("_vipack_draws", num_draws, dim=-1 - self._nesting):
            trace = self._guide_trace(arguments)
        latents = {}
        for name in self._latents:
            latents[name] = trace.nodes[name]["value"].reshape((num_draws, *self._shapes[name]))
        total = torch.zeros(num_draws, dtype=torch.float64)
        rows: Any = 0.0
        for node in _densities(trace):
            log_prob = node["log_prob"]
            if log_prob.dim() != self._nesting + 1 or log_prob.shape[0] != num_draws:
                raise RuntimeError("the guide's densities do not broadcast over draws")
            total = total + log_prob.reshape(num_draws, -1).sum(-1, dtype=torch.float64)
            if self._row_plate:
                rows = rows + _sum_to_rows(log_prob, node, self._row_plate, keep=1)
        for index in {0, num_draws - 1}:
            self._verify(trace, latents, total, index, arguments)
        return latents, total, rows if self._row_plate else total

    def _verify(
        self, trace: Trace, latents: dict[str, Tensor], log_q: Tensor, index: int, arguments: Arguments
    ) -> None:
        given = {}
        single = self._guide_trace(arguments)
        for name in self._auxiliary:
            node = trace.nodes[name]
            if type(node["fn"]).__name__ != "Delta":
                given[name] = (
                    node["value"]
                    .expand(len(log_q), *node["value"].shape[1:])[index]
                    .reshape(single.nodes[name]["value"].shape)
                )
        conditioned = poutine.trace(poutine.condition(self.program.guide, data=given)).get_trace(
            *arguments.args, **arguments.kwargs
        )
        conditioned.compute_log_prob()
        expected = sum(node["log_prob"].sum(dtype=torch.float64) for node in _densities(conditioned))
        close = torch.allclose(torch.as_tensor(expected, dtype=torch.float64), log_q[index], rtol=1e-3, atol=1e-3)
        same = all(
            torch.allclose(conditioned.nodes[n]["value"], latents[n][index], rtol=1e-3, atol=1e-4)
            for n in self._latents
        )
        if not (close and same):
            raise RuntimeError("the guide does not broadcast over draws")

    # --- the model

    def _evaluate(self, latents: dict[str, Tensor], num_draws: int) -> tuple[dict[str, Tensor], Tensor, Tensor | None]:
        def one(values: dict[str, Tensor]) -> Any:
            trace = self._model_trace(values)
            kept = {n: s["value"] for n, s in trace.nodes.items() if s["type"] == "sample" and _deterministic(s)}
            if self._evaluator is not None:
                log_p = self._evaluator.log_prob(trace).double()
                return kept, log_p, log_p
            trace.compute_log_prob()
            log_p, rows = self._reduce(trace)
            return kept, log_p, rows

        ways: dict[str, Callable[[], Any]] = {
            "vmap": lambda: self._vmap(one, num_draws, latents),
            "loop": lambda: _stack([one(_draw_of(latents, i)) for i in range(num_draws)]),
        }
        deterministic, log_joint, rows = self._first_that_works("model", ways, self.arguments)
        return deterministic, log_joint, rows if self._row_plate and self._evaluator is None else None

    def _model_trace(self, latents: Mapping[str, Tensor]) -> Trace:
        model = poutine.condition(self._enumerated_model or self.program.model, data=dict(latents))
        return poutine.trace(model).get_trace(*self.arguments.args, **self.arguments.kwargs)

    def _enumerator(self, model_trace: Trace) -> TraceEinsumEvaluator | None:
        self._enumerated_model: Callable[..., Any] | None = None
        if not self.table.of_kind("enumerated"):
            return None
        self._enumerated_model = poutine.enum(self.program.model, first_available_dim=-1 - self._nesting)
        with seeded(0), self._running(self.arguments):
            trace = self._model_trace({name: model_trace.nodes[name]["value"] for name in self._latents})
        return TraceEinsumEvaluator(trace, True, self._nesting)

    def _predict(self, latents: dict[str, Tensor], num_draws: int, arguments: Arguments) -> dict[str, Tensor]:
        wanted = {site.name for site in self.table.of_kind("observed", "deterministic")}

        def one(values: dict[str, Tensor]) -> dict[str, Tensor]:
            # Latents are given outside: they keep their values, and what the data fixed is drawn.
            model = _Given(values)(_Unobserved()(self.program.model))
            trace = poutine.trace(model).get_trace(*arguments.args, **arguments.kwargs)
            return {n: s["value"] for n, s in trace.nodes.items() if n in wanted and s["type"] == "sample"}

        ways: dict[str, Callable[[], Any]] = {
            "vmap": lambda: self._vmap(one, num_draws, latents),
            "loop": lambda: _stack([one(_draw_of(latents, i)) for i in range(num_draws)]),
        }
        predicted: dict[str, Tensor] = self._first_that_works("predictive", ways, arguments)
        return predicted

    # --- both

    def _reduce(self, trace: Trace) -> tuple[Tensor, Tensor]:
        """log density ``()`` and, where there is a row plate, its rows ``(N,)``; in float64."""
        nodes = _densities(trace)
        total = torch.zeros((), dtype=torch.float64)
        for node in nodes:
            total = total + node["log_prob"].sum(dtype=torch.float64)
        if not self._row_plate:
            return total, total
        rows: Any = 0.0
        for node in nodes:
            rows = rows + _sum_to_rows(node["log_prob"], node, self._row_plate, keep=0)
        return total, rows

    def _vmap(self, function: Callable[[Any], Any], num_draws: int, inputs: Any = None) -> Any:
        chunk = max(1, min(num_draws, _ELEMENTS_AT_ONCE // max(1, self._size)))
        batched = inputs or torch.arange(num_draws)
        with warnings.catch_warnings(), _plain_normals():
            warnings.filterwarnings("ignore", message="There is a performance drop")
            return torch.vmap(function, randomness="different", chunk_size=chunk)(batched)

    def _first_that_works(self, what: str, ways: dict[str, Callable[[], Any]], arguments: Arguments) -> Any:
        """The fastest way that succeeds, always from the same random state; the last one may raise."""
        *fast, (slow_name, slow) = ways.items()
        state = torch.get_rng_state()
        for name, way in fast:
            try:
                result = way()
            except Exception:  # vmap and broadcasting refuse programs in many ways; each has a slower way that works
                torch.set_rng_state(state)
                continue
            self.vectorized[what] = name
            return result
        self.vectorized[what] = slow_name
        with explained(what, arguments):
            return slow()


class _Given(Messenger):  # type: ignore[misc]
    """Gives named latents their values, leaving them latent."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._values = values

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] in self._values:
            msg["value"] = self._values[msg["name"]]
            msg["done"] = True


class _Unobserved(UnconditionMessenger):  # type: ignore[misc]
    """Draws what the data fixed, and only that.

    Pyro's messenger also draws deterministic sites anew, from a Delta that the site's plates have expanded: theta of
    shape ``(8,)`` in a plate of 8 came back ``(8, 8)``, and so did whatever was computed from it.
    """

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if not _deterministic(msg):
            super()._pyro_sample(msg)


@contextlib.contextmanager
def _plain_normals() -> Iterator[None]:
    """vmap cannot give each example its own draw of ``empty(shape).normal_()``, but can of ``randn(shape)``."""
    from torch.distributions import lowrank_multivariate_normal, multivariate_normal, normal, studentT

    modules: list[Any] = [normal, multivariate_normal, lowrank_multivariate_normal, studentT]
    originals = [module._standard_normal for module in modules]

    def standard_normal(shape: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.randn(shape, dtype=dtype, device=device)

    for module in modules:
        module._standard_normal = standard_normal
    try:
        yield
    finally:
        for module, original in zip(modules, originals, strict=True):
            module._standard_normal = original


def _densities(trace: Trace) -> list[dict[str, Any]]:
    return [s for s in trace.nodes.values() if s["type"] == "sample" and not site_is_subsample(s)]


def _deterministic(site: Mapping[str, Any]) -> bool:
    return bool(site["infer"].get("_deterministic"))


def _mask(site: Mapping[str, Any]) -> Tensor | None:
    masks = [] if site["mask"] is None else [site["mask"]]
    fn = site["fn"]
    while isinstance(fn, MaskedDistribution):
        masks.append(fn._mask)
        fn = fn.base_dist
    together: Tensor | None = None
    for mask in masks:
        mask = torch.as_tensor(mask).bool()
        together = mask if together is None else together & mask
    return together


def _draw_of(latents: Mapping[str, Tensor], index: int) -> dict[str, Tensor]:
    return {name: value[index] for name, value in latents.items()}


def _stack(results: list[Any]) -> Any:
    first = results[0]
    if isinstance(first, dict):
        return {key: _stack([result[key] for result in results]) for key in first}
    if isinstance(first, tuple):
        return tuple(_stack([result[i] for result in results]) for i in range(len(first)))
    return torch.stack(results)


def _sum_to_rows(log_prob: Tensor, node: Mapping[str, Any], plate: str, keep: int) -> Tensor:
    """Sum `log_prob` over all dimensions but the plate's and the `keep` leftmost."""
    dim = next((f.dim for f in node["cond_indep_stack"] if f.name == plate), None)
    if dim is None:  # a deterministic site outside the plate, whose density is zero
        return torch.zeros((), dtype=torch.float64)
    others = [d for d in range(keep, log_prob.dim()) if d != log_prob.dim() + dim]
    return log_prob.sum(others, dtype=torch.float64) if others else log_prob.double()


def _row_plate(table: SiteTable) -> str | None:
    """The plate that holds every latent and every likelihood term, so that the posterior is a product over its rows."""
    sites = table.of_kind("latent", "observed", "factor")
    if not table.of_kind("latent") or table.of_kind("enumerated"):
        return None
    common = set.intersection(*(set(site.plates) for site in sites))
    return min(common, key=lambda name: -table.plates[name], default=None)


def _max_plate_nesting(*traces: Trace) -> int:
    dims = [
        -frame.dim
        for trace in traces
        for node in trace.nodes.values()
        if node["type"] == "sample"
        for frame in node["cond_indep_stack"]
        if frame.vectorized
    ]
    return max(dims, default=0)


def _numbers_held(*traces: Trace) -> int:
    total = 0
    for trace in traces:
        for node in trace.nodes.values():
            if node["type"] == "sample" and isinstance(node["value"], Tensor):
                total += 4 * node["value"].numel()
    return total
