"""The engine of a run: it starts with Pyro itself and moves up as far as the program allows and the run's length pays."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from vipack.engine.capture import CaptureError, capture
from vipack.engine.eager import EagerStep
from vipack.engine.memory import Memory, Snapshot
from vipack.engine.optimizers import FitOptimizer
from vipack.engine.promotion import Again, Promotion, close
from vipack.engine.runner import Batches, GraphRunner
from vipack.engine.safe import SafeStates
from vipack.engine.watch import Watch
from vipack.errors import EngineWarning, NonFiniteError
from vipack.program import Arguments, Program
from vipack.types import EngineReport

__all__ = ["TIERS", "Engine", "NonFiniteStep", "Tier", "TieredEngine"]

Tier = Literal["auto", "eager", "traced", "interpreted", "compiled"]
TIERS: tuple[Tier, ...] = ("auto", "eager", "traced", "interpreted", "compiled")

_TRACE_STEPS = 240  # a capture costs about as much as a hundred eager steps, and saves about two thirds of each
_FAST_SECONDS = 20e-6  # a call from Python takes as long
_TRACED_AT_ONCE = 64
_APART = 0.2  # of the way of one step, that the graph's step may end elsewhere
_SHAPES = 8  # of batches that get a graph
_CAPTURES = 4  # after which a program that is changed from outside again and again runs as it is


class NonFiniteStep(Exception):
    """A step met NaN or infinity; the losses before it are kept, and nothing of the step itself."""

    def __init__(self, losses: list[float], cause: NonFiniteError) -> None:
        super().__init__(str(cause))
        self.losses = losses
        self.cause = cause


class Engine(Protocol):
    """Runs steps. Parameters, optimizer and generators are up to date after every call."""

    report: EngineReport

    def advance(self, batches: Batches, num_steps: int, remaining: int) -> list[float]:
        """Take `num_steps` steps and return their losses (nats).

        Args:
            remaining: steps that the run is expected to take in all from here, for deciding what pays.

        Raises:
            NonFiniteStep: a loss or gradient is not finite.
        """
        ...

    def rest(self) -> None:
        """There are no steps to take for now: stop what goes on in the background."""
        ...

    def go_on(self, tier: Tier, running: str) -> None:
        """Go on as a saved run: its `tier`, and with "auto" the one it was `running` in, if that can be had at once."""
        ...


@dataclass
class _Shape:
    """What is known of batches of one size."""

    runner: GraphRunner | None = None
    watch: Watch | None = None  # on what the graph holds as it was
    promotion: Promotion | None = None
    captured: bool = False  # tried, with or without success
    traced_seconds: float = 0.0


class TieredEngine:
    """Eager, traced and compiled steps over one memory, all drawing the same numbers.

    Every move is checked against eager on the same draws. Where a program cannot be captured or compiled the run goes on
    a tier lower, and ``report.reason`` says why.

    Args:
        eager: takes one step as Pyro does; by default on the program's own parameters.
        live: whether every batch may hold other tensors than the last, rather than rows of the same ones.
    """

    def __init__(
        self,
        program: Program,
        loss: Any,
        optimizer: FitOptimizer,
        tier: Tier = "auto",
        eager: Callable[[Arguments], float] | None = None,
        *,
        live: bool = False,
    ) -> None:
        self._program = program
        self._loss = loss
        self._optimizer = optimizer
        self._tier = tier
        self._live = live
        self._eager = eager or EagerStep(program, loss, optimizer)
        self._shapes: dict[Hashable, _Shape] = {}
        self._memory: Memory | None = None
        self._safe = SafeStates()
        self._steps = 0
        self._next_check = 1_000
        self._begin = "eager"
        self._captures_left = _CAPTURES
        self._plain_left = 0
        self._layout: Any = None  # of the memory: parameters, and those that get no gradient
        self.report = EngineReport("eager", steps={})

    def advance(self, batches: Batches, num_steps: int, remaining: int) -> list[float]:
        """See :class:`Engine`."""
        losses: list[float] = []
        self._look_around()
        if self._memory is not None and not self._memory.reclaim():
            self._forget()
            self._memory = self._layout = None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Encountered NaN")  # Pyro's; ours names the site
            while len(losses) < num_steps:
                size, in_a_row = batches.upcoming()
                shape = self._shape(size)
                try:
                    self._move_up(shape, batches, remaining - len(losses))
                    losses += self._take(shape, batches, min(num_steps - len(losses), in_a_row))
                except NonFiniteStep as error:
                    raise NonFiniteStep(losses + error.losses, error.cause) from error.cause
        return losses

    def rest(self) -> None:
        """See :class:`Engine`."""
        for shape in self._shapes.values():
            if shape.promotion is not None:
                shape.promotion.stop()

    def go_on(self, tier: Tier, running: str) -> None:
        """See :class:`Engine`."""
        self._tier, self._begin = tier, running

    def runner(self, key: Hashable) -> GraphRunner | None:
        """The captured step for batches of one shape, if there is one."""
        shape = self._shapes.get(key)
        return None if shape is None else shape.runner

    def _shape(self, size: Hashable) -> _Shape:
        """What is known of batches of one size; of too many sizes, nothing is kept."""
        shape = self._shapes.get(size)
        if shape is None and len(self._shapes) < _SHAPES:
            shape = self._shapes[size] = _Shape()
        elif shape is None:
            self.report.reason = (
                f"eager: batches of more than {_SHAPES} shapes, or with other numbers as arguments, each need a graph; "
                "the first ones got theirs"
            )
            shape = _Shape(captured=True)
        return shape

    def outdated(self) -> str:
        """The name of a Python variable that a graph was captured with and that has changed since; empty if none has."""
        watches = (shape.watch for shape in self._shapes.values() if shape.runner is not None)
        return next((name for watch in watches if watch is not None and (name := watch.outdated())), "")

    def unchanged(self) -> bool:
        """Whether graphs and memory still are those of the program and its optimizer."""
        return not self.outdated() and (self._memory is None or self._memory.reclaim())

    def _forget(self) -> None:
        """Drop all graphs; they may be captured anew, unless that has happened often."""
        for shape in self._shapes.values():
            if shape.promotion is not None:
                shape.promotion.stop()
        self._safe.forget()
        self._captures_left -= 1
        self._plain_left = 1  # a new parameter may come with it, which the optimizer must meet
        self._shapes = {size: _Shape(captured=self._captures_left <= 0) for size in self._shapes}

    def _look_around(self) -> None:
        """Forget the graphs of a program that was changed from outside, as by a callback that anneals a weight."""
        name = self.outdated()
        if not name:
            return
        self._forget()
        if self._captures_left > 0:
            return
        self.report.reason = (
            f"eager: {name!r}, which the program reads, was changed from outside {_CAPTURES} times since the run began"
        )
        warnings.warn(EngineWarning(f"{self.report.reason}; pass it in `fixed` or `data`."), stacklevel=2)

    def settled(self, key: Hashable) -> bool:
        """Whether steps of one shape are as fast as a single call can be, so that nothing need be tried any more."""
        shape = self._shapes.get(key)
        if shape is None or shape.promotion is None:
            return False
        return shape.promotion.seconds < _FAST_SECONDS or "compiled" in shape.promotion.refused

    # --- steps

    def _take(self, shape: _Shape, batches: Batches, number: int) -> list[float]:
        """Up to `number` steps on batches of one shape, in the best tier there is."""
        if shape.runner is None:
            return self._eager_steps(batches, 1)
        assert self._memory is not None
        self._safe.keep(self._memory, batches)
        try:
            losses = self._graph_steps(shape, shape.runner, batches, number)
        except Exception as error:  # an operator refused its input, as Cholesky does: eager says which site gave it
            self._go_back(batches)
            if shape.runner.native is None or shape.promotion is None:
                return self._eager_steps(batches, min(number, _TRACED_AT_ONCE))
            tier = shape.runner.native_tier
            shape.promotion.fail(f"the {tier} step raised {type(error).__name__}: {str(error)[:200]}")
            return []
        if not np.isfinite(losses[-1]):
            return self._recover(batches, losses[:-1])
        return losses

    def _graph_steps(self, shape: _Shape, runner: GraphRunner, batches: Batches, number: int) -> list[float]:
        assert self._memory is not None
        number = 1 if self._memory.one_by_one else min(number, max(1, self._next_check - self._steps))
        tier, started = runner.native_tier, time.perf_counter()
        if runner.native is not None:
            found = runner.native_steps(batches, number)
        else:
            found = runner.traced(batches, min(number, _TRACED_AT_ONCE))
        if shape.promotion is not None:
            shape.promotion.seconds = (time.perf_counter() - started) / len(found)
        if self._memory.one_by_one and np.isfinite(found[-1]):
            self._memory.finish(float(found[-1]))
        self._count(tier, len(found))
        self._safe.count(len(found))
        made: list[float] = found.tolist()
        return made

    def _eager_steps(self, batches: Batches, number: int) -> list[float]:
        losses: list[float] = []
        for _ in range(number):
            try:
                losses.append(self._eager(next(batches)))
            except NonFiniteError as error:
                raise NonFiniteStep(losses, error) from error
            self._count("eager", 1)
        return losses

    def _count(self, tier: str, number: int) -> None:
        self._steps += number
        self.report.tier = tier
        self.report.steps[tier] = self.report.steps.get(tier, 0) + number

    # --- moving up

    def _move_up(self, shape: _Shape, batches: Batches, remaining: int) -> None:
        if self._tier == "eager":
            return
        if self._plain_left:
            self._plain_left -= 1
            return
        if not shape.captured and self._optimizer.has_stepped():
            if self._tier != "auto" or self._begin != "eager" or remaining >= _TRACE_STEPS:
                shape.captured = True
                self._capture(shape, batches)
        elif shape.runner is not None and self._steps >= self._next_check:
            self._next_check = max(10 * self._next_check, self._steps + 1)
            self._check_again(shape, batches)
        if shape.runner is None or self._tier == "traced":
            return
        if shape.promotion is None:
            assert self._memory is not None
            shape.promotion = Promotion(shape.runner, self._memory, self._tier, self.report)
            shape.promotion.seconds = shape.traced_seconds
        shape.promotion(Again(batches.peek()), remaining)

    def _capture(self, shape: _Shape, batches: Batches) -> None:
        """Capture the next step, and hold the graph to what Pyro makes of it. Nothing is changed."""
        batch = batches.peek()
        try:
            graph = capture(self._program, self._loss, batch)
            memory, layout = self._memory, (graph.layout.names, graph.unused)
            if memory is None or layout != self._layout:
                memory, self._layout = (
                    Memory(self._program.parameters, graph.layout, self._optimizer, graph.unused),
                    layout,
                )
                for other in self._shapes.values():
                    other.runner = None  # it works on the old one
                self._safe.forget()
            runner = GraphRunner(graph, memory, self._program.parameters, batch, batches.whole(), live=self._live)
        except CaptureError as error:
            self.report.reason = f"eager: {error}"
            return
        self._memory, shape.watch = memory, graph.watch
        self.report.capture_seconds += runner.seconds
        mismatch = self._compare(shape, runner, batch)
        if mismatch:
            self.report.reason = f"eager: the captured graph gave another step ({mismatch})"
            return
        shape.runner = runner

    def _compare(self, shape: _Shape, runner: GraphRunner, batch: Arguments) -> str:
        """Take a step on `batch` eagerly and by the graph, go back to before, and say how they differ."""
        memory = self._memory
        assert memory is not None
        before = memory.snapshot()
        try:
            expected = self._eager(batch)
        except NonFiniteError as error:
            raise NonFiniteStep([], error) from error
        finally:
            if shape.watch is not None:
                shape.watch.restore()
        after = memory.snapshot()
        memory.restore(before)
        started = time.perf_counter()
        found = float(runner.traced(Again(batch), 1)[0])
        shape.traced_seconds = time.perf_counter() - started
        if memory.one_by_one and np.isfinite(found):
            memory.finish(found)
        reached = memory.snapshot()
        memory.restore(before)
        if not reached.generator.equals(after.generator):
            return "it draws other random numbers than the program"
        if not close(found, expected, self._program.parameters.dtype):
            return f"a loss of {found:.8g} where Pyro gives {expected:.8g}"
        return "it moves the parameters elsewhere" if _apart(before, after, reached) else ""

    def _check_again(self, shape: _Shape, batches: Batches) -> None:
        """A program that changes as it runs (a counter, a variable set from outside) no longer agrees with its graph."""
        assert shape.runner is not None
        mismatch = self._compare(shape, shape.runner, batches.peek())
        if not mismatch:
            return
        for other in self._shapes.values():
            other.runner, other.captured = None, True
        self.report.reason = (
            f"eager: after {self._steps} steps the captured graph no longer agrees with the program ({mismatch})"
        )
        warnings.warn(
            EngineWarning(
                f"{self.report.reason}; the model or guide changes from call to call, as by a counter or a variable that "
                "is set from outside. Pass such values in `fixed` or `data`, or use engine='eager'."
            ),
            stacklevel=2,
        )

    # --- losses that are not finite

    def _go_back(self, batches: Batches, but: int = 0) -> None:
        """To a safe state, and forward again to `but` steps before where the run stood."""
        assert self._memory is not None
        again = self._safe.go_back(self._memory, batches, but)
        counted = self._steps, dict(self.report.steps)
        while again > 0:
            size, in_a_row = batches.upcoming()
            again -= len(self._take(self._shape(size), batches, min(again, in_a_row)))
        self._steps, self.report.steps = counted

    def _recover(self, batches: Batches, finite: list[float]) -> list[float]:
        """Take the last two steps eagerly, which names the site; the losses, if Pyro's own are finite after all.

        Two, because a gradient that is not finite shows in the loss of the next step only.

        Raises:
            NonFiniteStep: as eager found it.
        """
        behind = 1 if self._safe.reaches(2) else 0
        self._go_back(batches, but=1 + behind)
        kept = finite[: max(0, len(finite) - behind)]
        try:
            again = self._eager_steps(batches, 1 + behind)
            return kept + (again if finite else again[behind:])
        except NonFiniteStep as error:  # without finite losses, the first step is one that was told of before
            raise NonFiniteStep(kept + error.losses[0 if finite else behind :], error.cause) from error.cause


def _apart(before: Snapshot, expected: Snapshot, found: Snapshot) -> bool:
    """Whether one step led to two places.

    Adam takes a full step even where the gradient is nothing but rounding, so single elements may part.
    """
    way, gap = 0.0, 0.0
    for start, right, other in zip(before.values, expected.values, found.values, strict=True):
        way += float((right - start).double().square().sum())
        gap += float((other - right).double().square().sum())
    return gap > (_APART**2) * way + 1e-12
