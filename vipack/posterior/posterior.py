"""A fitted guide for one data set, and the questions it answers."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import MaskedDistribution
from pyro.infer.mcmc.util import TraceEinsumEvaluator
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.distributions import biject_to

from vipack.errors import ShapeError, VipackError
from vipack.posterior.broadcast import Broadcast
from vipack.posterior.densities import is_deterministic, numbers_held, plate_nesting, row_plate, total
from vipack.posterior.draws import Draws
from vipack.posterior.ways import Ways, joined, stacked, vmapped
from vipack.program import Arguments, Parameters, Program, Site, SiteTable, read_sites, seeded
from vipack.program.enumeration import Enumerate, vmappable_sums
from vipack.program.runs import check_signature, explained
from vipack.program.simulation import Unobserved
from vipack.program.vmappable import vmappable_densities
from vipack.types import Verdict

__all__ = ["Posterior"]

_ELEMENTS_AT_ONCE = 20_000_000  # numbers held by one vectorized pass, about 80 MB in float32

Latents = dict[str, Tensor]  # site -> (S, *site shape)


class Posterior:
    """A fitted guide for one data set. It reads the parameters as they stand and never changes them.

    Attributes:
        table: the model's sites.
        ways: which way of drawing worked (vmap, plate or loop), for the curious.
    """

    def __init__(self, program: Program, arguments: Arguments) -> None:
        self.program = program
        self.arguments = arguments
        self.ways = Ways()
        with seeded(0), self._running(arguments):
            guide_trace, model_trace = program.traces(arguments)
        self.table: SiteTable = read_sites(model_trace, guide_trace)
        self._observed = {site.name: model_trace.nodes[site.name]["value"] for site in self.table.of_kind("observed")}
        self._masks = {name: _mask(model_trace.nodes[name]) for name in self._observed}
        self._latents = [site.name for site in self.table.of_kind("latent")]
        self._latent_masks = {name: _mask(model_trace.nodes[name]) for name in self._latents}
        self._row_plate = row_plate(self.table, guide_trace)
        self._broadcast = Broadcast(self.table, guide_trace, model_trace, self._row_plate)
        self._at_once = max(1, _ELEMENTS_AT_ONCE // max(1, numbers_held(guide_trace, model_trace)))
        self._nesting = plate_nesting(guide_trace, model_trace)
        self._evaluator = self._enumerator(model_trace)
        self._judged: tuple[Verdict, str] | None = None

    @property
    def verdict(self) -> Verdict | None:
        """What the last diagnosis said of the guide as it stands; None without one, or if its parameters moved since."""
        if self._judged is None or self._judged[1] != _fingerprint(self.program.parameters):
            return None
        return self._judged[0]

    def judge(self, verdict: Verdict) -> None:
        """Let answers follow `verdict`, which is of the guide as it stands."""
        self._judged = verdict, _fingerprint(self.program.parameters)

    @property
    def rows_apart(self) -> bool:
        """Whether every latent and likelihood term belongs to a row of one plate, in model and guide."""
        return self._row_plate is not None

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

    @property
    def latent_masks(self) -> dict[str, Tensor]:
        """As :attr:`observed_masks` of the latents: where a mask is False, the model says nothing of the latent."""
        return {name: mask for name, mask in self._latent_masks.items() if mask is not None}

    def draws(self, num_draws: int, *, seed: int = 0, densities: bool = True, keep: bool = True) -> Draws:
        """`num_draws` draws from the guide.

        Args:
            densities: False skips the model; then ``log_joint`` is NaN and ``deterministic`` empty.
            keep: False forgets latents and deterministic sites as soon as their densities are known, to save memory.
        """
        parts, lows, highs = [], [], []
        with seeded(seed), self._running(self.arguments):
            for size in self._chunks(num_draws):
                latents, log_q, row_log_q = self._draw_guide(size, self.arguments)
                lows.append({name: value.amin(0) for name, value in latents.items()})
                highs.append({name: value.amax(0) for name, value in latents.items()})
                deterministic: Latents = {}
                log_joint, row_log_joint = torch.full_like(log_q, torch.nan), torch.full_like(row_log_q, torch.nan)
                if densities:
                    deterministic, log_joint, row_log_joint = self._evaluate(latents, size)
                kept = (latents, deterministic) if keep else ({}, {})
                parts.append((*kept, log_joint, log_q, row_log_joint - row_log_q))
        latents, deterministic, log_joint, log_q, rows = joined(parts)
        points = self._points(lows, highs) if num_draws > 1 else ()
        return Draws(latents, deterministic, log_joint, log_q, rows if self._row_plate else None, points)

    def deterministic(self, latents: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The model's deterministic sites at given latents ``site -> (S, *shape)``."""
        return self.at(latents)[0]

    def at(self, latents: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """The deterministic sites, and log p(x, z) ``(S,)`` in nats, at given latents ``site -> (S, *shape)``."""
        with seeded(0), self._running(self.arguments):
            deterministic, log_joint, _ = joined([self._evaluate(part, size) for part, size in self._split(latents)])
        return deterministic, log_joint

    def rows_of(self, latents: Mapping[str, Tensor], chosen: Tensor) -> dict[str, Tensor]:
        """Latents ``site -> (S, *shape)`` put together row by row, row i of new draw s from draw ``chosen[s, i]``.

        For posteriors that are a product over rows, whose draws have ``row_log_weights``.
        """
        rows = torch.arange(chosen.shape[1], device=chosen.device)
        taken = {}
        for name, value in latents.items():
            axis = 1 + self.table[name].dim_names.index(self._row_plate)
            taken[name] = value.movedim(axis, 1)[chosen, rows].movedim(1, axis)
        return taken

    def guide_draws(self, num_draws: int, arguments: Arguments | None = None, *, seed: int = 0) -> dict[str, Tensor]:
        """Draws of the guide alone, called on new data if `arguments` are given: ``site -> (S, *shape)``."""
        chosen = self._checked(arguments)
        with seeded(seed), self._running(chosen):
            return joined([self._draw_guide(size, chosen)[0] for size in self._chunks(num_draws)])  # type: ignore[no-any-return]

    def predictive(
        self,
        num_draws: int,
        arguments: Arguments | None = None,
        *,
        seed: int = 0,
        latents: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Draws of the observed sites (and deterministic ones) given draws of the guide: ``site -> (S, *shape)``.

        Args:
            arguments: call on new data; observed sites are drawn whatever is passed for them. None: the fit's data.
            latents: ``site -> (S, *shape)``, instead of draws of the guide.

        Raises:
            SignatureError: the new call does not fit the model.
            ShapeError: a latent has one value for each row of the fit's data, and the new data have other rows.
        """
        chosen = self._checked(arguments)
        with seeded(seed), self._running(chosen):
            if latents is None:
                latents = joined([self._draw_guide(size, chosen)[0] for size in self._chunks(num_draws)])
            try:
                with explained("model", chosen):
                    parts = [self._predict(part, size, chosen) for part, size in self._split(latents, num_draws)]
                    return joined(parts)  # type: ignore[no-any-return]
            except VipackError as error:
                local = [s.name for s in self.table.of_kind("latent") if s.plates]
                if arguments is not None and local:
                    raise ShapeError(
                        f"latent site(s) {', '.join(map(repr, local))} have a value for each row of the fit's data, which "
                        f"does not fit the new data ({error}); predict with data of the same rows, or fit an amortised guide."
                    ) from error
                raise

    def _checked(self, arguments: Arguments | None) -> Arguments:
        if arguments is None:
            return self.arguments
        check_signature("model", self.program.model, arguments)
        check_signature("guide", self.program.guide, arguments)
        return arguments

    def log_likelihood(self, latents: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """log p(x_i | z) of each observation at draws ``site -> (S, *shape)``: ``site -> (S, *batch shape)``, in nats.

        Never scaled. Empty where discrete latents are summed out, since an observation then has no density given z.
        """
        if self._evaluator is not None or not latents:
            return {}

        def one(values: Latents) -> dict[str, Tensor]:
            trace = self._model_trace(values)
            trace.compute_log_prob()
            return {name: trace.nodes[name]["unscaled_log_prob"] for name in self._observed}

        with seeded(0), self._running(self.arguments):
            parts = [
                self.ways.run("log_likelihood", _vmap_or_loop(one, part, size), self.arguments)
                for part, size in self._split(latents)
            ]
        return joined(parts)  # type: ignore[no-any-return]

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
        with bound, pyro.validation_enabled(False), vmappable_densities(), torch.no_grad():
            yield

    def _chunks(self, num_draws: int) -> list[int]:
        full, rest = divmod(num_draws, self._at_once)
        return [self._at_once] * full + [rest] * bool(rest)

    def _split(self, latents: Mapping[str, Tensor], num_draws: int = 0) -> Iterator[tuple[Latents, int]]:
        start = 0
        for size in self._chunks(len(next(iter(latents.values()))) if latents else num_draws):
            yield {name: value[start : start + size] for name, value in latents.items()}, size
            start += size

    # --- the guide

    def _draw_guide(self, num_draws: int, arguments: Arguments) -> tuple[Latents, Tensor, Tensor]:
        def one(_: Any) -> Any:
            trace = self._guide_trace(self.program.guide, arguments)
            return {name: trace.nodes[name]["value"] for name in self._latents}, *total(trace, self._row_plate)

        def in_plate() -> Any:
            return self._broadcast.guide(
                self.program.guide, lambda guide: self._guide_trace(guide, arguments), num_draws
            )

        ways: dict[str, Callable[[], Any]] = {
            "vmap": lambda: vmapped(one, torch.arange(num_draws)),
            "plate": in_plate,
            "loop": lambda: stacked([one(None) for _ in range(num_draws)]),
        }
        return self.ways.run("guide", ways, arguments)  # type: ignore[no-any-return]

    def _guide_trace(self, guide: Callable[..., Any], arguments: Arguments) -> Trace:
        if isinstance(poutine.unwrap(guide), Messenger):
            trace = self.program.traces(arguments)[0]
        else:
            trace = poutine.trace(guide).get_trace(*arguments.args, **arguments.kwargs)
        trace.compute_log_prob()
        return trace

    def _points(self, lows: list[Latents], highs: list[Latents]) -> tuple[str, ...]:
        """Continuous latents that are the same in every draw though they need not be, from the extremes of each chunk."""
        low, high = lows[0], highs[0]
        for other_low, other_high in zip(lows[1:], highs[1:], strict=True):
            low = {name: torch.minimum(value, other_low[name]) for name, value in low.items()}
            high = {name: torch.maximum(value, other_high[name]) for name, value in high.items()}
        free = [site.name for site in self.table.of_kind("latent") if _is_free(site)]
        return tuple(name for name in free if torch.equal(low[name], high[name]))

    # --- the model

    def _evaluate(self, latents: Latents, num_draws: int) -> tuple[Latents, Tensor, Tensor]:
        """Deterministic sites, log p(x, z) and its rows."""

        def one(values: Latents) -> Any:
            trace = self._model_trace(values)
            kept = {n: s["value"] for n, s in trace.nodes.items() if s["type"] == "sample" and is_deterministic(s)}
            if self._evaluator is not None:
                with vmappable_sums():
                    log_p = self._evaluator.log_prob(trace).double()
                return kept, log_p, log_p.new_empty(0)
            trace.compute_log_prob()
            return kept, *total(trace, self._row_plate)

        ways = _vmap_or_loop(one, latents, num_draws)
        if self._evaluator is None and latents:
            ways["plate"] = lambda: self._broadcast.model(latents, self._model_trace, one)
        return self.ways.run("model", ways, self.arguments)  # type: ignore[no-any-return]

    def _model_trace(self, latents: Mapping[str, Tensor]) -> Trace:
        model = poutine.condition(self._enumerated_model or self.program.model, data=dict(latents))
        return poutine.trace(model).get_trace(*self.arguments.args, **self.arguments.kwargs)

    def _enumerator(self, model_trace: Trace) -> TraceEinsumEvaluator | None:
        self._enumerated_model: Callable[..., Any] | None = None
        if not self.table.of_kind("enumerated"):
            return None
        self._enumerated_model = Enumerate(first_available_dim=-1 - self._nesting)(self.program.model)
        with seeded(0), self._running(self.arguments):
            trace = self._model_trace({name: model_trace.nodes[name]["value"] for name in self._latents})
        return TraceEinsumEvaluator(trace, True, self._nesting)

    def _predict(self, latents: Latents, num_draws: int, arguments: Arguments) -> dict[str, Tensor]:
        wanted = {site.name for site in self.table.of_kind("observed", "deterministic")}

        def one(values: Latents) -> dict[str, Tensor]:
            # Latents are given outside: they keep their values, and what the data fixed is drawn.
            model = _Given(values)(Unobserved()(self.program.model))
            trace = poutine.trace(model).get_trace(*arguments.args, **arguments.kwargs)
            return {n: s["value"] for n, s in trace.nodes.items() if n in wanted and s["type"] == "sample"}

        return self.ways.run("predictive", _vmap_or_loop(one, latents, num_draws), arguments)  # type: ignore[no-any-return]


class _Given(Messenger):  # type: ignore[misc]
    """Gives named latents their values, leaving them latent."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._values = values

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] in self._values:
            msg["value"] = self._values[msg["name"]]
            msg["done"] = True


def _vmap_or_loop(
    one: Callable[[Any], Any], latents: Mapping[str, Tensor], num_draws: int
) -> dict[str, Callable[[], Any]]:
    def draw(index: int) -> Any:
        return one({name: value[index] for name, value in latents.items()})

    return {
        # vmap wants something to map over, which a model without latents does not give
        "vmap": lambda: vmapped(one, dict(latents)) if latents else vmapped(lambda _: one({}), torch.arange(num_draws)),
        "loop": lambda: stacked([draw(index) for index in range(num_draws)]),
    }


def _fingerprint(parameters: Parameters) -> str:
    """Equal as long as no parameter or buffer has moved. Compiled steps move them without torch's taking note."""
    found = hashlib.blake2b()
    for name, value in sorted({**parameters.unconstrained, **parameters.buffers()}.items()):
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _is_free(site: Site) -> bool:
    """Whether a latent is continuous and can take other values: probabilities of a single outcome cannot."""
    if site.support is None:
        return True
    if site.support.is_discrete:
        return False
    try:
        shape = biject_to(site.support).inverse_shape(site.batch_shape + site.event_shape)
    except NotImplementedError:  # a support that has no bijection
        return True
    return 0 not in shape


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
