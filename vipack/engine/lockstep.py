"""The engine of a data-parallel run: every process takes the same steps in the same tier, and decides nothing alone."""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
import warnings
from typing import Any, Literal, cast

import numpy as np

from vipack.engine.eager import EagerStep
from vipack.engine.graph.all_reduce import Reducer
from vipack.engine.graphs import CapturedGraphs
from vipack.engine.guards.execution import recorded
from vipack.engine.optimizers.fit_optimizer import FitOptimizer
from vipack.engine.steps.contracts import Batches, Engine, NonFiniteStep, Tier
from vipack.engine.steps.feeding import RepeatedBatch
from vipack.engine.steps.promotion import Promotion
from vipack.engine.steps.safe_states import SafeStates
from vipack.engine.steps.shapes import Shape
from vipack.errors import NonFiniteError, ProcessError
from vipack.program import Program
from vipack.types import EngineReport

__all__ = ["LockstepEngine"]

_FIRST_CHECK = 1_000  # steps, after which graphs are compared with Pyro again, and then after ten times as many
_COPIED_EVERY = 256  # steps, whatever the clock says: all processes go back to the same one
_AT_ONCE = 64  # traced steps
_WAITS = 3  # steps that Pyro takes so that the optimizer meets a parameter


class LockstepEngine(Engine):
    """Eager, traced, interpreted or compiled steps, each with one sum over all processes.

    A step makes one call of :class:`Reducer` in whatever tier, and trials make none, so that a process never waits for
    something that no other one does. Whether a graph is right is agreed by all; where it is not, or where one process
    cannot have it, all go on a tier lower, and ``report.reason`` names the process.

    Args:
        tier: none but "auto" goes by the clock, so it is not among them.

    Attributes:
        seconds: that steps took, adding up included.
    """

    def __init__(self, program: Program, loss: Any, optimizer: FitOptimizer, tier: Tier, reducer: Reducer) -> None:
        self._optimizer, self._tier, self._reducer = optimizer, tier, reducer
        self._eager = EagerStep(program, loss, optimizer, reducer)
        self.report = EngineReport("eager", steps={})
        self._graphs = CapturedGraphs(program, loss, optimizer, self._eager, self.report, live=False, reducer=reducer)
        self._graphs.safe = SafeStates(_COPIED_EVERY)
        self._shape: Shape | None = None
        self._steps, self._next_check = 0, _FIRST_CHECK
        self._recording, self._waits_left = False, _WAITS
        self.seconds = 0.0

    def advance(self, batches: Batches, num_steps: int, remaining: int) -> list[float]:
        losses: list[float] = []
        with self._reducer.active(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Encountered NaN")  # Pyro's; ours names the site
            self._look_around()
            while len(losses) < num_steps:
                self._move_up(batches, remaining - len(losses))
                began = time.perf_counter()
                try:
                    losses += self._take(batches, num_steps - len(losses))
                except NonFiniteStep as error:
                    raise error.after(losses) from error.cause
                finally:
                    self.seconds += time.perf_counter() - began
        return losses

    def refresh(self) -> None:
        self._graphs.look_at_data = True

    def rest(self) -> None:
        for shape in self._graphs.shapes:
            shape.stop()
        self._graphs.safe.forget()

    def go_on(self, tier: Tier, running: str) -> None:
        self._tier = tier

    @property
    def settled(self) -> Tier | Literal[""]:
        """The tier that steps are taken in from now on; empty where that is still open."""
        if self._shape is None:
            return ""
        return "eager" if self._shape.runner is None else cast(Tier, self._shape.runner.native_tier)

    def settle_on(self, tier: Tier) -> None:
        """Go on in the tier of a saved run, as :attr:`settled` was: another one rounds sums otherwise."""
        if tier != self._tier:
            self._tier = tier
            self.report.reason = f"{tier}: as the run from whose checkpoint it goes on"

    # --- steps

    def _take(self, batches: Batches, number: int) -> list[float]:
        shape = self._shape
        if shape is None or shape.runner is None:
            return [self._eager_step(batches)]
        memory, safe, runner = self._graphs.memory, self._graphs.safe, shape.runner
        assert memory is not None
        safe.keep(memory, batches)
        number = 1 if memory.one_by_one else max(1, min(number, self._next_check - self._steps))
        tier, error = runner.native_tier, None
        self._reducer.losses.clear()
        try:
            if runner.native is not None:
                losses = runner.native_steps(batches, number)
            else:
                losses = runner.traced(batches, min(number, _AT_ONCE))
        except ProcessError:
            raise
        except Exception as raised:  # an operator refused its input: for the others it is a loss that is not finite
            if _of_process(raised) is not None:
                raise ProcessError(_of_process(raised)) from raised
            error = raised
            self._reducer.fail(self._num_reduced(shape))
            losses = np.asarray(self._reducer.losses)
        if memory.one_by_one and error is None and np.isfinite(losses[-1]):
            runner.finish(float(losses[-1]))
        self._count(tier, len(losses))
        safe.count(len(losses))
        result: list[float] = losses.tolist()
        return result if math.isfinite(result[-1]) else self._recover(batches, result[:-1])

    def _eager_step(self, batches: Batches) -> float:
        try:
            with recorded() if self._recording else contextlib.nullcontext() as execution:
                loss = self._eager(next(batches))
            if self._recording:
                self._recording, self._graphs.execution = False, execution
        except NonFiniteError as error:
            raise NonFiniteStep([], error) from error
        self._count("eager", 1)
        return loss

    def _recover(self, batches: Batches, finite: list[float]) -> list[float]:
        """Take the last two steps by Pyro, which names the site; the losses, if Pyro's own are finite after all.

        Raises:
            NonFiniteStep: Pyro's own steps give such a loss too.
        """
        memory, safe = self._graphs.memory, self._graphs.safe
        assert memory is not None
        behind = 1 if safe.reaches(2) else 0
        counted = self._steps - 1 - behind, dict(self.report.steps)
        again = safe.go_back(memory, batches, 1 + behind)
        while again > 0:
            again -= len(self._take(batches, again))
        self._steps, self.report.steps = counted
        self.report.steps[self.report.tier] -= 1 + behind
        kept, losses = finite[: max(0, len(finite) - behind)], list[float]()
        try:
            for _ in range(1 + behind):
                losses.append(self._eager_step(batches))
        except NonFiniteStep as error:
            if finite:
                raise NonFiniteStep(kept + losses, error.cause) from error.cause
            raise NonFiniteStep([], error.cause, behind - len(losses)) from error.cause
        return kept + (losses if finite else losses[behind:])

    def _count(self, tier: str, number: int) -> None:
        self._steps += number
        self.report.tier = tier
        self.report.steps[tier] = self.report.steps.get(tier, 0) + number

    # --- moving up, which all processes do at the same step

    def _look_around(self) -> None:
        """Where the program of one process was changed from outside, all drop their graphs."""
        with self._reducer.alone("looking at what the program reads"):
            name = self._graphs.outdated()
            self._graphs.look_around()
        if self._shape is not None and any(self._reducer.exchange.gather(name)):
            if not name:
                self._graphs.forget("a variable of another process was", "pass it in `fixed` or `data`")
            self._shape = None

    def _move_up(self, batches: Batches, remaining: int) -> None:
        if self._tier == "eager":
            return
        if self._graphs.plain_left:
            self._graphs.plain_left -= 1
            return
        if self._shape is None:
            if not self._optimizer.has_stepped():
                self._recording = True  # the next step, which is Pyro's anyway, shows what it runs and reads
                return
            self._shape = self._graphs.shapes.of(batches.upcoming()[0], 0)
            if not self._shape.done:
                self._shape.done = True
                self._capture(self._shape, batches)
                if self._shape is not None:
                    self._promote(self._shape, batches, remaining)
        elif self._shape.runner is not None and self._steps >= self._next_check:
            self._next_check = max(10 * self._next_check, self._steps + 1)
            with self._reducer.alone("comparing a graph with Pyro"):
                self._graphs.check_again(self._shape, batches)
            self._agree_on_graph(self._shape)

    def _capture(self, shape: Shape, batches: Batches) -> None:
        with self._reducer.alone("capturing a step"):
            self._graphs.capture(shape, batches)
            if shape.graph is not None and shape.graph.reads:
                shape.graph, shape.runner = None, None
                self.report.reason = (
                    "eager: the program reads numbers from its tensors, and may then branch otherwise in each process"
                )
        if self._waits_left and any(self._reducer.exchange.gather(self._graphs.awaits_parameters(shape))):
            self._waits_left -= 1
            shape.graph, shape.runner, shape.done = None, None, False
            self._shape = None  # all take one more step by Pyro, and try again
            return
        self._agree_on_graph(shape)

    def _agree_on_graph(self, shape: Shape) -> None:
        """All have a graph with the same gradients, or none has."""
        layout = "" if shape.runner is None else self._layout(shape)
        answers: list[Any] = self._reducer.exchange.gather((layout, self.report.reason))
        layouts = [answer[0] for answer in answers]
        if all(layouts) and len(set(layouts)) == 1:
            return
        shape.graph, shape.runner, shape.promotion = None, None, None
        self.report.reason = self._first_reason(answers, layouts) or (
            "eager: the steps of the processes have gradients of different parameters"
        )

    def _promote(self, shape: Shape, batches: Batches, remaining: int) -> None:
        """Into native code: the first process compiles, and the others find it compiled."""
        if shape.runner is None or self._tier == "traced":
            return
        assert self._graphs.memory is not None
        shape.promotion = Promotion(shape.runner, self._graphs.memory, self._tier, self.report)
        shape.promotion.seconds = shape.traced_seconds
        for turn in (0, 1):
            with self._reducer.alone("compiling a step"):
                if turn == min(1, self._reducer.exchange.rank):
                    shape.promotion(RepeatedBatch(batches.peek()), remaining)
            answers: list[Any] = self._reducer.exchange.gather((shape.runner.native_tier, self.report.reason))
        tiers = [answer[0] for answer in answers]
        if len(set(tiers)) > 1:
            shape.runner.go_back(None, "traced")
            named = [tier if tier == self._tier else "" for tier in tiers]
            self.report.reason = self._first_reason(answers, named)

    def _first_reason(self, answers: list[Any], reached: list[str]) -> str:
        """Why the first process that has not come as far as the others has not."""
        rank = next((rank for rank, each in enumerate(reached) if not each), None)
        if rank is None or not answers[rank][1]:
            return ""
        tier, _, reason = answers[rank][1].partition(": ")
        own = reason if rank == self._reducer.exchange.rank else f"process {rank}: {reason}"
        return (
            f"{'eager' if self._shape is None or self._shape.runner is None else 'traced'}: {own}" if reason else tier
        )

    def _layout(self, shape: Shape) -> str:
        assert shape.graph is not None
        layout = shape.graph.layout
        described = (layout.names, [tuple(s) for s in layout.shapes], sorted(shape.updated))
        return hashlib.sha256(repr(described).encode()).hexdigest()

    def _num_reduced(self, shape: Shape) -> int:
        assert shape.graph is not None
        layout = shape.graph.layout
        pairs = zip(layout.names, layout.shapes, strict=True)
        return sum(size.numel() for name, size in pairs if name not in self._reducer.of_rows)


def _of_process(error: BaseException) -> str | None:
    """What was said of another process, where that is why native code raised."""
    text = str(error)
    return text.partition("ProcessError: ")[2].partition("\n")[0] or None
