"""A fitted guide for one data set, and the questions it answers."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyro
import torch
from pyro.infer.autoguide import AutoGuide
from torch import Tensor

from vipack.compat.heap import return_free_memory
from vipack.display import listed
from vipack.entry import entry, on_its_own
from vipack.errors import VipackError
from vipack.posterior.broadcast import Broadcast
from vipack.posterior.draws import Draws, Extremes, few_labels
from vipack.posterior.observations import Observations, by_names
from vipack.posterior.vectorize import Vectorizer, joined, stacked, vmap_or_loop, vmapped
from vipack.program import Arguments, Program, SiteTable, seeded
from vipack.program.densities.scaling import Unscaled
from vipack.program.densities.substitution import Given
from vipack.program.densities.vmappable import vmappable_densities
from vipack.program.evaluation.evaluation import Evaluation
from vipack.program.evaluation.prediction import Prediction
from vipack.program.running.replay import Replay
from vipack.program.running.runs import check_signature, explained
from vipack.types import Judged, Verdict

__all__ = ["Posterior"]

_ELEMENTS_AT_ONCE = 20_000_000  # numbers held by one vectorized pass, about 80 MB in float32
_REPLAYED_AT_ONCE = 6_000_000  # numbers of one replay, which stay in a processor's cache
_LEAST_REPLAYS = 8  # that pay for the capture

Latents = dict[str, Tensor]  # site -> (S, *site shape)


class Posterior:
    """A fitted guide for one data set. It reads the parameters as they stand and never changes them.

    Args:
        scaled: False leaves out what ``poutine.scale`` and minibatches do to densities.
        observations: the data's rows, so that :meth:`of_some_rows` can look at a few of them.

    Attributes:
        table: the model's sites.
        evaluation: the program, called with its arguments; to be asked inside :meth:`running`.
        ends: where climbs of the training ended on R^D ``(R, D)``, and the widths there; None without any.
        vectorizer: runs the program for many draws; ``vectorizer.chosen`` says how (graph, vmap, plate or loop).
    """

    def __init__(
        self,
        program: Program,
        arguments: Arguments,
        *,
        scaled: bool = True,
        observations: Observations | None = None,
    ) -> None:
        self.program = program
        self._scaled = scaled
        self._observations = observations
        self.arguments = arguments
        self.vectorizer = Vectorizer()
        with seeded(0), self.running(arguments):
            self.evaluation = Evaluation(program, arguments)
        self.table: SiteTable = self.evaluation.table
        self._broadcast = Broadcast(self.evaluation)
        self._at_once = max(1, _ELEMENTS_AT_ONCE // max(1, self.evaluation.numbers))
        self._judged: tuple[Judged, str] | None = None
        self.ends: tuple[Tensor, Tensor] | None = None
        self.grounds: object = None  # of the last verdict, as whoever judged left them

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (self.program, self.arguments, self._scaled, self._judged)

    @property
    def judged(self) -> Judged | None:
        """What the last diagnosis said of the guide as it stands; None without one, or if its parameters moved since."""
        return self._judged[0] if self._judged and self._judged[1] == self.program.parameters.digest() else None

    @property
    def verdict(self) -> Verdict | None:
        """That diagnosis' verdict."""
        return None if self.judged is None else self.judged.verdict

    def judge(self, judged: Judged, grounds: object = None) -> None:
        """Let answers follow this, which is of the guide as it stands; see :class:`vipack.types.Judged`."""
        self._judged, self.grounds = (judged, self.program.parameters.digest()), grounds

    def __repr__(self) -> str:
        judged = "not judged" if self.verdict is None else self.verdict.value
        return f"Posterior({self.guide_name} of {listed(s.name for s in self.table.of_kind('latent'))}; {judged})"

    @property
    def numbers(self) -> int:
        """Roughly how many numbers one draw's run holds: what a draw costs grows with them."""
        return self.evaluation.numbers

    @property
    def rows_apart(self) -> bool:
        """Whether every latent and likelihood term belongs to a row of one plate, in model and guide."""
        return self.evaluation.row_plate is not None

    def of_some_rows(self, count: int) -> tuple[Posterior, int] | None:
        """The posterior of `count` rows, evenly spaced, and of how many they are; None where there are not twice as many.

        None, too, where latents are shared, or the guide has parameters for each row.
        """
        rows, plate = self._observations, self.evaluation.row_plate
        if rows is None or plate is None or rows.num_rows < 2 * count or isinstance(self.program.guide, AutoGuide):
            return None
        try:
            return Posterior(self.program, rows.some(count), scaled=self._scaled), rows.num_rows
        except VipackError:
            return None

    @property
    def observed(self) -> dict[str, Tensor]:
        """The observed sites' values, by name."""
        return dict(self.evaluation.observed)

    @property
    def observed_masks(self) -> dict[str, Tensor]:
        """Where ``obs_mask=``, ``poutine.mask`` or ``.mask()`` leaves observations out: site -> True for those that count.

        Each mask broadcasts to the site's batch shape; sites without one are not listed.
        """
        return dict(self.evaluation.masks)

    def draws(
        self,
        num_draws: int,
        *,
        seed: int = 0,
        densities: bool = True,
        computed: bool | None = None,
        keep: bool = True,
        enumerated: bool = True,
        each: Callable[[int], object] = int,
    ) -> Draws:
        """`num_draws` draws from the guide.

        Args:
            densities: False skips log p(x, z); then ``log_joint`` is NaN.
            computed: whether to run the model for deterministic sites and enumerated latents; by default as `densities`.
            keep: False forgets latents and deterministic sites as soon as their densities are known, to save memory.
            each: called with the number of draws of each chunk, once it is done.
            enumerated: False leaves out latents that are summed out, and the deterministic sites that depend on them.

        Warns:
            ProgramWarning: the draws of enumerated latents would not fit in memory, and are left out.
        """
        extremes = Extremes(self.table)
        computed = densities if computed is None else computed
        discrete = enumerated and computed and keep and few_labels(self.table, num_draws)
        replay = self._replay(num_draws)

        def chunks() -> Iterator[tuple[Latents, Latents, Latents, Tensor, Tensor, Tensor]]:
            for size in self._chunks(num_draws):
                latents, log_q, row_log_q = self._draw_guide(size)
                extremes.add(latents)
                deterministic: Latents = {}
                labels: Latents = {}
                log_joint, row_log_joint = torch.full_like(log_q, torch.nan), torch.full_like(row_log_q, torch.nan)
                if densities:
                    deterministic, log_joint, row_log_joint = self._evaluate(latents, size, replay)
                elif computed and self.table.of_kind("deterministic"):
                    deterministic = self._run("sites", self.evaluation.sites, latents, size)
                if discrete:
                    labels = self._draw_enumerated(latents, size)
                    if self.evaluation.varying:
                        deterministic = self._deterministic({**latents, **labels}, size)
                kept = (latents, deterministic, labels) if keep else ({}, {}, {})
                each(size)
                yield *kept, log_joint, log_q, row_log_joint - row_log_q

        with seeded(seed), self.running(self.arguments):
            latents, deterministic, labels, log_joint, log_q, rows = joined(chunks(), num_draws)
        points = extremes.points() if num_draws > 1 else ()
        rows = rows if self.evaluation.row_plate else None
        return Draws(latents, deterministic, log_joint, log_q, rows, points, labels, dict(self.evaluation.counted))

    def deterministic(self, latents: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The model's deterministic sites at given latents ``site -> (S, *shape)``.

        Those that depend on enumerated latents are left out, unless `latents` has draws of these too.
        """
        if all(name in latents for name in self.evaluation.enumerated):
            with seeded(0), self.running(self.arguments):
                chunks = (self._deterministic(chunk, size) for chunk, size in self._split(latents))
                return joined(chunks, _count(latents))  # type: ignore[no-any-return]
        return self.at(latents)[0]

    def at(self, latents: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """The deterministic sites, and log p(x, z) ``(S,)`` in nats, at given latents ``site -> (S, *shape)``."""
        with seeded(0), self.running(self.arguments):
            replay = self._replay(_count(latents))
            chunks = (self._evaluate(chunk, size, replay) for chunk, size in self._split(latents))
            deterministic, log_joint, _ = joined(chunks, _count(latents))
        return deterministic, log_joint

    def rows_of(self, latents: Mapping[str, Tensor], chosen: Tensor) -> dict[str, Tensor]:
        """Latents ``site -> (S, *shape)`` put together row by row, row i of new draw s from draw ``chosen[s, i]``.

        For posteriors that are a product over rows, whose draws have ``row_log_weights``.
        """
        rows = torch.arange(chosen.shape[1], device=chosen.device)
        mixed = {}
        for name, value in latents.items():
            axis = 1 + self.table[name].dim_names.index(self.evaluation.row_plate)
            mixed[name] = value.movedim(axis, 1)[chosen, rows].movedim(1, axis)
        return mixed

    def guide_draws(self, num_draws: int, arguments: Arguments | None = None, *, seed: int = 0) -> dict[str, Tensor]:
        """Draws of the guide alone, called on new data if `arguments` are given: ``site -> (S, *shape)``."""
        with seeded(seed):
            return self._draw_latents(num_draws, self._checked(arguments))

    def predictive(
        self,
        num_draws: int,
        arguments: Arguments | None = None,
        *,
        seed: int = 0,
        latents: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Draws of the observed sites given draws of the latents: ``site -> (S, *shape)``.

        Deterministic sites come with them, and whatever sites only this call has. Latents that are summed out are drawn
        from their posterior; for new data, those that belong to rows from their prior given the rest.

        Args:
            arguments: call on new data; observed sites are drawn whatever is passed for them. None: the fit's data.
            latents: ``site -> (S, *shape)``, instead of draws of the guide.

        Raises:
            SignatureError: the new call does not fit the model.
            ShapeError: a latent has one value for each row of the fit's data, and the new data have other rows.
        """
        chosen = self._checked(arguments)
        with self.running(self.arguments), explained("model", self.arguments):
            prediction = Prediction(self.evaluation, chosen)
        with seeded(seed):
            values = self._starts(num_draws, prediction, chosen, latents)
            with self.running(chosen):
                prediction.check_shapes(values)
                chunks = (
                    self.vectorizer.run("predictive", vmap_or_loop(prediction.predict, chunk, size), chosen)
                    for chunk, size in self._split(values, num_draws)
                )
                return joined(chunks, num_draws)  # type: ignore[no-any-return]

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
        if self.evaluation.enumerated or not latents:
            return {}
        with seeded(0), self.running(self.arguments):
            chunks = (
                self._run("log_likelihood", self.evaluation.log_likelihood, chunk, size)
                for chunk, size in self._split(latents)
            )
            return joined(chunks, _count(latents))  # type: ignore[no-any-return]

    def named_arguments(self, arguments: Arguments | None = None) -> dict[str, Any]:
        """What the model is called with, positional arguments under their names; by default for the fit's data."""
        return by_names(self.program.model, self.arguments if arguments is None else arguments)

    @property
    def guide_name(self) -> str:
        """The name of the guide's function or class."""
        return str(getattr(self.program.guide, "__name__", type(self.program.guide).__name__))

    @contextlib.contextmanager
    def running(self, arguments: Arguments | None = None) -> Iterator[None]:
        """What the program runs in, called with `arguments`, by default the posterior's: evaluated, and without gradients."""
        values = self.program.parameters.detached()
        bound = self.program.bound(arguments or self.arguments, values=values, training=False)
        with contextlib.ExitStack() as stack:
            stack.enter_context(on_its_own())
            stack.enter_context(contextlib.nullcontext() if self._scaled else Unscaled())
            for context in (bound, pyro.validation_enabled(False), vmappable_densities(), torch.no_grad()):
                stack.enter_context(context)
            yield

    def _chunks(self, num_draws: int) -> Iterator[int]:
        for start in range(0, num_draws, self._at_once):
            yield min(self._at_once, num_draws - start)
            return_free_memory()

    def _split(self, latents: Mapping[str, Tensor], num_draws: int = 0) -> Iterator[tuple[Latents, int]]:
        start = 0
        for size in self._chunks(_count(latents) or num_draws):
            yield {name: value[start : start + size] for name, value in latents.items()}, size
            start += size

    def _draw_guide(self, num_draws: int, arguments: Arguments | None = None) -> tuple[Latents, Tensor, Tensor]:
        """Latents, log q and its rows; of the guide called with `arguments`, by default those of the fit."""
        evaluation = self.evaluation
        methods: dict[str, Callable[[], Any]] = {
            "vmap": lambda: vmapped(lambda _: evaluation.draw(arguments), torch.arange(num_draws)),
            "plate": lambda: self._broadcast.guide(num_draws, arguments),
            "loop": lambda: stacked([evaluation.draw(arguments) for _ in range(num_draws)]),
        }
        return self.vectorizer.run("guide", methods, arguments or self.arguments)  # type: ignore[no-any-return]

    def _replay(self, num_draws: int) -> Replay | None:
        """What evaluates the model at so many draws by a graph; None where they are too few to pay for it."""
        pieces = max(1, math.ceil(self._at_once * self.numbers / _REPLAYED_AT_ONCE))
        size = math.ceil(self._at_once / pieces)  # so that a chunk is cut evenly
        return Replay(self.evaluation.evaluate, size) if num_draws >= _LEAST_REPLAYS * size else None

    def _evaluate(
        self, latents: Latents, num_draws: int, replay: Replay | None = None
    ) -> tuple[Latents, Tensor, Tensor]:
        """Deterministic sites, log p(x, z) and its rows."""
        methods = vmap_or_loop(self.evaluation.evaluate, latents, num_draws)
        if replay is not None and latents:
            methods["graph"] = lambda: joined(replay(latents), num_draws)
        if not self.evaluation.enumerated and latents:
            methods["plate"] = lambda: self._broadcast.model(latents)
        return self.vectorizer.run("model", methods, self.arguments)  # type: ignore[no-any-return]

    def _draw_enumerated(self, latents: Latents, num_draws: int) -> Latents:
        return self._run("enumerated", self.evaluation.draw_enumerated, latents, num_draws)  # type: ignore[no-any-return]

    def _deterministic(self, values: Latents, num_draws: int) -> Latents:
        return self._run("deterministic", self.evaluation.deterministic, values, num_draws)  # type: ignore[no-any-return]

    def _starts(
        self, num_draws: int, prediction: Prediction, arguments: Arguments, given: Mapping[str, Tensor] | None
    ) -> Latents:
        """Draws of the latents that a prediction is made from, `given` ones of the guide among them."""
        if given is None and prediction.is_new and not prediction.drawn:
            return self._draw_latents(num_draws, arguments)
        latents = self._draw_latents(num_draws, self.arguments) if given is None else dict(given)
        labels: Latents = {}
        if prediction.drawn:
            with self.running(self.arguments):
                chunks = (self._draw_enumerated(chunk, size) for chunk, size in self._split(latents, num_draws))
                drawn = joined(chunks, num_draws)
            labels = {name: drawn[name] for name in prediction.drawn}
        if given is None and prediction.is_new and prediction.local:
            # Labels of groups of the fit's data go with the shared latents they were drawn for.
            latents |= self._draw_local(latents, num_draws, prediction, arguments)
        return {**latents, **labels}

    def _draw_latents(self, num_draws: int, arguments: Arguments) -> Latents:
        own = None if arguments is self.arguments else arguments
        with self.running(arguments):
            chunks = (self._draw_guide(size, own)[0] for size in self._chunks(num_draws))
            return joined(chunks, num_draws)  # type: ignore[no-any-return]

    def _draw_local(
        self, latents: Latents, num_draws: int, prediction: Prediction, arguments: Arguments
    ) -> dict[str, Tensor]:
        """Latents of the rows of new data, the others given."""
        shared = {name: value for name, value in latents.items() if name not in prediction.local}

        def one(values: Mapping[str, Tensor]) -> Latents:
            with Given(values):
                drawn = self.evaluation.draw(arguments)[0]
            return {name: drawn[name] for name in prediction.local}

        with self.running(arguments):
            chunks = (self._run("local", one, chunk, size) for chunk, size in self._split(shared, num_draws))
            return joined(chunks, num_draws)  # type: ignore[no-any-return]

    def _run(self, what: str, one: Callable[[Any], Any], values: Mapping[str, Tensor], num_draws: int) -> Any:
        return self.vectorizer.run(what, vmap_or_loop(one, values, num_draws), self.arguments)


def _count(latents: Mapping[str, Tensor]) -> int:
    return len(next(iter(latents.values()))) if latents else 0


@entry
def _rebuilt(program: Program, arguments: Arguments, scaled: bool, judged: tuple[Judged, str] | None) -> Posterior:
    posterior = Posterior(program, arguments, scaled=scaled)
    posterior._judged = judged
    return posterior
