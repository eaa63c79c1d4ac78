"""The engine of a run: it starts with Pyro itself and moves up as far as the program allows and the run's length pays."""

from __future__ import annotations

import contextlib
import itertools
import time
import warnings
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from vipack.engine.capture.capture import tensors_of
from vipack.engine.capture.outlook import Effort
from vipack.engine.compiled.compiler import busy
from vipack.engine.eager import EagerStep
from vipack.engine.graphs import CapturedGraphs
from vipack.engine.guards.execution import recorded
from vipack.engine.optimizers.fit_optimizer import FitOptimizer
from vipack.engine.pace import Paces
from vipack.engine.steps.contracts import Batches, Engine, NonFiniteStep, SingleSteps, Tier
from vipack.engine.steps.feeding import RepeatedBatch
from vipack.engine.steps.promotion import Promotion
from vipack.engine.steps.runner import GraphRunner
from vipack.engine.steps.shapes import Shape
from vipack.errors import NonFiniteError
from vipack.program import Program, TorchState
from vipack.types import EngineReport

__all__ = ["TRACE_STEPS", "TieredEngine"]

TRACE_STEPS = 240  # a capture costs about as much as a hundred eager steps, and saves about two thirds of each
_TRACE_SECONDS = 15.0  # of eager steps, which are as long as most captures take
_FAST_SECONDS = 20e-6  # a call from Python takes as long
_TRACED_AT_ONCE = 64
_FIRST_CHECK = 1_000  # steps, after which graphs are held to eager steps once more
_EAGER_IN_A_ROW = 16  # steps, after which the next are Pyro's too where batches are of too many shapes, or graphs slow
_SLOW = 2  # comparisons in a row, after which a program that branches is Pyro's for good
_PYRO_IS_FASTER = "eager: Pyro's own steps took less time than the graph's; they are compared again from time to time"


class TieredEngine(Engine):
    """Eager, traced and compiled steps over one memory, all drawing the same numbers.

    Every move is checked against eager on the same draws. Where a program cannot be captured or compiled the run goes on
    a tier lower, and ``report.reason`` says why.

    Args:
        single: where steps are single calls; None where they are on rows of the same data.
    """

    def __init__(
        self,
        program: Program,
        loss: Any,
        optimizer: FitOptimizer,
        tier: Tier = "auto",
        single: SingleSteps | None = None,
    ) -> None:
        self._effort = Effort() if single is None else single.effort
        self._program = program
        self._optimizer = optimizer
        self._tier = tier
        self._live = single is not None
        self._eager = EagerStep(program, loss, optimizer) if single is None else single.eager
        self._paces = Paces(self._effort)
        self._at_rest = False  # the last step was Pyro's, since graphs are slower
        self._steps = 0
        self._next_check = _FIRST_CHECK
        self._begin = "eager"
        self._eager_seconds = 0.0  # that an eager step takes at least
        self._eager_in_a_row = 0
        self._looked_at = self._effort.steps  # how many steps Pyro had taken at the last look at a shape
        self._recording = False
        self.report = EngineReport("eager", steps={}) if single is None else single.report
        self._graphs = CapturedGraphs(program, loss, optimizer, self._eager, self.report, live=self._live)
        self._graphs.execution = None if single is None else single.execution
        self._shapes, self._safe = self._graphs.shapes, self._graphs.safe

    def advance(self, batches: Batches, num_steps: int, remaining: int) -> list[float]:
        losses: list[float] = []
        self._graphs.look_around()
        if self._live:
            self._safe.forget()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Encountered NaN")  # Pyro's; ours names the site
            while len(losses) < num_steps:
                size, in_a_row = batches.upcoming()
                shape = self._shape(size, batches)
                try:
                    self._move_up(shape, batches, remaining - len(losses))
                    losses += self._take(size, shape, batches, min(num_steps - len(losses), in_a_row))
                except NonFiniteStep as error:
                    raise error.after(losses) from error.cause
                self._eager_in_a_row = self._eager_in_a_row + 1 if self.report.tier == "eager" else 0
        return losses

    def refresh(self) -> None:
        self._graphs.look_at_data = True

    def rest(self) -> None:
        for shape in self._shapes:
            shape.stop()
        self._safe.forget()  # parameters may be set meanwhile, as to those of a run's best step

    def go_on(self, tier: Tier, running: str) -> None:
        self._tier, self._begin = tier, running

    def runner(self, key: Hashable) -> GraphRunner | None:
        """The captured step for batches of one shape, if there is one."""
        shape = self._shapes.get(key)
        return None if shape is None else shape.runner

    def refuses(self, key: Hashable) -> bool:
        """Whether no graph takes batches of this shape."""
        shape = self._shapes.get(key)
        return shape is not None and shape.done and shape.graph is None

    def rests(self) -> bool:
        """Whether steps are Pyro's for now: there is no graph and nothing to be tried, or other shapes come all the time."""
        if self._tier == "auto" and (self._shapes.crowded or self._at_rest) and self._eager_in_a_row >= _EAGER_IN_A_ROW:
            return True
        tried = (shape.graph is None and (shape.done or not self._effort.affords()) for shape in self._shapes)
        return self._tier == "auto" and all(tried)

    def give(self, key: Hashable, tensors: Sequence[Tensor]) -> None:
        """Let the next steps on batches of one shape work on these tensors."""
        runner = self.runner(key)
        if runner is not None:
            runner.take(tensors)

    def _shape(self, size: Hashable, batches: Batches) -> Shape:
        """What is known of batches of one size, and of the branch that the program takes on the next one."""
        before, self._looked_at = self._looked_at, self._effort.steps
        shape = self._shapes.of(size, self._looked_at - before)
        if self._shapes.crowded:
            self.report.reason = (
                "eager: batches of more shapes than get a graph, or with as many numbers as arguments; those that come often have "
                "theirs"
            )
            return shape
        if not shape.may_branch or shape.runner is None or shape.runner.valid:
            return shape
        for other in self._other_branches(size, batches):
            self._shapes.take(size, other)
            return other
        return self._miss(size) or shape

    def _other_branches(self, size: Hashable, batches: Batches) -> Iterator[Shape]:
        """Those whose graph may take the next step."""
        for other in self._shapes.others(size):
            assert other.runner is not None
            if self._live:
                other.runner.take(tensors_of(batches.peek())[0])
            else:
                other.runner.refresh()
            if other.runner.valid:
                yield other

    def _miss(self, size: Hashable) -> Shape | None:
        """No graph takes the next step; a branch that is to get one, if this has happened often enough."""
        sparing = self._tier == "auto"
        if self._shapes.is_lost(size, sparing=sparing):
            reads = {read.where for shape in self._shapes for read in (shape.graph.reads if shape.graph else ())}
            self._shapes.give_up(size)
            self.report.reason = (
                "eager: what the program reads from tensors into Python is another number in almost every step "
                f"({', '.join(sorted(reads)[:3])})"
            )
            return None
        return self._shapes.missed(size, sparing=sparing)

    def outdated(self) -> str:
        """See :meth:`CapturedGraphs.outdated`."""
        return self._graphs.outdated()

    def unchanged(self) -> bool:
        """Whether graphs and memory still are those of the program and its optimizer."""
        return self._graphs.unchanged()

    def settled(self, key: Hashable) -> bool:
        """Whether steps of one shape are as fast as a single call can be, so that nothing need be tried any more."""
        shape = self._shapes.get(key)
        if shape is None or shape.promotion is None:
            return False
        pace = self._paces.get(key)
        judged = self._tier != "auto" or pace is None or pace.judged
        return shape.promotion.seconds < _FAST_SECONDS or (judged and "compiled" in shape.promotion.refused)

    # --- steps

    def _take(self, size: Hashable, shape: Shape, batches: Batches, number: int) -> list[float]:
        """Up to `number` steps on batches of one shape, in the best tier there is."""
        self._at_rest = False
        if shape.runner is None or not shape.runner.valid:
            return self._eager_steps(batches, 1)
        assert self._graphs.memory is not None
        alone = self._live and number == 1
        if not alone:
            self._safe.keep(self._graphs.memory, batches)
        if alone or shape.unsteady:
            return (self._faster if self._tier == "auto" else self._take_one)(size, shape, batches)
        try:
            losses = self._graph_steps(shape, shape.runner, batches, number)
        except Exception as error:  # an operator refused its input: eager says which site gave it
            self._go_back(batches)
            if self._has_failed(shape, error):
                return []
            return self._eager_steps(batches, min(number, _TRACED_AT_ONCE))
        if np.isfinite(losses[-1]):
            return losses
        return self._recover(batches, losses[:-1])

    def _faster(self, size: Hashable, shape: Shape, batches: Batches) -> list[float]:
        """One step by a graph, or Pyro's own while these take less time."""
        assert shape.runner is not None
        pace = self._paces.of(size)
        self._at_rest, started = pace.rests(shape.runner.native_tier), time.perf_counter()
        if self._at_rest:
            losses = self._eager_steps(batches, 1)
            pace.count_pyros(time.perf_counter() - started)
        else:
            losses = self._take_one(size, shape, batches)
            pace.count(time.perf_counter() - started)
        native = shape.promotion is not None and "interpreted" in shape.promotion.refused
        if shape.may_branch and native and pace.slow >= _SLOW:
            self._shapes.give_up(size)
            self.report.reason = (
                "eager: the program takes other branches so often that its graphs took longer than Pyro's steps"
            )
        elif self._at_rest:
            self.report.reason = self.report.reason or _PYRO_IS_FASTER
        elif self.report.reason == _PYRO_IS_FASTER:
            self.report.reason = ""
        return losses

    def _take_one(self, size: Hashable, shape: Shape, batches: Batches) -> list[float]:
        """One step, which leaves everything as it was where the graph cannot take it; then another one's, or Pyro's."""
        generators, position = TorchState.current(), batches.state()
        for branch in itertools.chain([shape], self._other_branches(size, batches) if shape.may_branch else ()):
            runner = branch.runner
            assert runner is not None
            mark, tier = runner.mark(), runner.native_tier
            error = None
            try:
                losses = self._graph_steps(branch, runner, batches, 1)
            except Exception as raised:  # an operator refused its input
                error = raised
            else:
                if np.isfinite(losses[-1]) or runner.well:
                    if branch is not shape:
                        self._shapes.take(size, branch)
                    self._shapes.hit(size)
                    return losses if self._live or np.isfinite(losses[-1]) else self._recover(batches, [])
                self._count(tier, -1)
                self._safe.count(-1)
            generators.install()
            batches.load_state(position)
            runner.undo(mark)
            if error is not None and self._has_failed(branch, error):
                return []
        if shape.may_branch and self._miss(size) is not None:
            return []
        return self._eager_steps(batches, 1)

    def _has_failed(self, shape: Shape, error: Exception) -> bool:
        """Whether a native step raised, so that the graph takes the next ones."""
        assert shape.runner is not None
        if shape.runner.native is None or shape.promotion is None:
            return False
        tier = shape.runner.native_tier
        shape.promotion.fail(f"the {tier} step raised {type(error).__name__}: {str(error)[:200]}")
        return True

    def _graph_steps(self, shape: Shape, runner: GraphRunner, batches: Batches, number: int) -> list[float]:
        assert self._graphs.memory is not None
        number = 1 if self._graphs.memory.one_by_one else min(number, max(1, self._next_check - self._steps))
        tier, started = runner.native_tier, time.perf_counter()
        if runner.native is not None:
            losses = runner.native_steps(batches, number)
        else:
            losses = runner.traced(batches, min(number, _TRACED_AT_ONCE))
        if shape.promotion is not None:
            shape.promotion.seconds = (time.perf_counter() - started) / len(losses)
        if self._graphs.memory.one_by_one and (np.isfinite(losses[-1]) or (self._live and runner.well)):
            runner.finish(float(losses[-1]))
        self._count(tier, len(losses))
        self._safe.count(len(losses))
        result: list[float] = losses.tolist()
        return result

    def _eager_steps(self, batches: Batches, number: int) -> list[float]:
        losses: list[float] = []
        for _ in range(number):
            try:
                started = time.perf_counter()
                with recorded() if self._recording else contextlib.nullcontext() as execution:
                    losses.append(self._eager(next(batches)))
                if self._steps > 0:  # the first one imports and fills caches
                    seconds = time.perf_counter() - started
                    self._eager_seconds = min(seconds, self._eager_seconds or seconds)
                    self._effort.count(seconds)
                if self._recording:
                    self._recording, self._graphs.execution = False, execution
            except NonFiniteError as error:
                raise NonFiniteStep(losses, error) from error
            self._count("eager", 1)
        return losses

    def _count(self, tier: str, number: int) -> None:
        self._steps += number
        self.report.tier = tier
        self.report.steps[tier] = self.report.steps.get(tier, 0) + number

    def _uncount(self, number: int) -> None:
        self._steps -= number
        for tier in reversed(self.report.steps):  # in which the last steps were taken
            count = min(number, self.report.steps[tier])
            self.report.steps[tier] -= count
            number -= count

    # --- moving up

    def _move_up(self, shape: Shape, batches: Batches, remaining: int) -> None:
        if self._tier == "eager":
            return
        if self._graphs.plain_left:
            self._graphs.plain_left -= 1
            return
        if shape.graph is None and not shape.done:
            seconds = self._eager_seconds or self._effort.per_step
            few = remaining < TRACE_STEPS and remaining * seconds < _TRACE_SECONDS
            if self._tier == "auto" and self._begin == "eager" and few:
                return
            if not self._optimizer.has_stepped():
                self._recording = True  # the next step, which is Pyro's anyway, shows what it runs and reads
                return
            if self._tier == "auto" and (not self._effort.affords() or (self._paces.await_native and busy())):
                return
            shape.done, started = True, time.perf_counter()
            self._graphs.capture(shape, batches, seconds if self._live and self._tier == "auto" else None)
            if shape.graph is None and shape.done:
                self._effort.vain += time.perf_counter() - started
        elif shape.graph is not None and (
            shape.runner is None or shape.updated != self._graphs.updated_by(shape.graph)
        ):
            self._graphs.bind(shape, shape.graph, batches)  # other graphs have come, or parameters that they update
        elif shape.runner is not None and shape.is_due():
            self._graphs.check_again(shape, batches)
        elif shape.runner is not None and self._steps >= self._next_check:
            self._next_check = max(10 * self._next_check, self._steps + 1)
            self._graphs.check_again(shape, batches)
        if shape.runner is None or self._tier == "traced" or not shape.runner.valid:
            return
        if shape.promotion is None:
            assert self._graphs.memory is not None
            shape.promotion = Promotion(shape.runner, self._graphs.memory, self._tier, self.report)
            shape.promotion.seconds = shape.traced_seconds
        shape.promotion(RepeatedBatch(batches.peek()), remaining)

    # --- losses that are not finite

    def _go_back(self, batches: Batches, but: int = 0) -> None:
        """To a safe state, and forward again to `but` steps before where the run stood."""
        assert self._graphs.memory is not None
        again = self._safe.go_back(self._graphs.memory, batches, but)
        counted = self._steps, dict(self.report.steps)
        while again > 0:
            size, in_a_row = batches.upcoming()
            shape = self._shape(size, batches)
            again -= len(self._take(size, shape, batches, min(again, in_a_row)))
        self._steps, self.report.steps = counted

    def _recover(self, batches: Batches, finite: list[float]) -> list[float]:
        """Take the last two steps eagerly, which names the site; the losses, if Pyro's own are finite after all.

        Two, because a gradient that is not finite shows in the loss of the next step only.

        Raises:
            NonFiniteStep: Pyro's own steps give such a loss too.
        """
        behind = 1 if self._safe.reaches(2) else 0
        self._go_back(batches, but=1 + behind)
        self._uncount(1 + behind)
        kept = finite[: max(0, len(finite) - behind)]
        try:
            again = self._eager_steps(batches, 1 + behind)
            return kept + (again if finite else again[behind:])
        except NonFiniteStep as error:
            if finite:
                raise error.after(kept) from error.cause
            # An earlier call gave the loss of the first step.
            raise NonFiniteStep([], error.cause, behind - len(error.losses)) from error.cause
