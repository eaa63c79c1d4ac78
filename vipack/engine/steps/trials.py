"""Whether a captured step, and the tier that runs it, take the program's own step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vipack.engine.capture.annealed import asks_for_types
from vipack.engine.capture.capture import Graph
from vipack.engine.guards.execution import Execution, recorded
from vipack.engine.steps.contracts import Batches
from vipack.engine.steps.feeding import RepeatedBatch
from vipack.engine.steps.memory import Memory
from vipack.engine.steps.parity import Trial
from vipack.engine.steps.promotion import measured_difference
from vipack.engine.steps.runner import GraphRunner
from vipack.program import Arguments

__all__ = ["Compared", "TrialError", "compare"]


class TrialError(Exception):
    """The program's own step raised on trial."""


@dataclass(frozen=True)
class Compared:
    """What a trial has shown.

    Attributes:
        mismatch: how the steps differ, or why no graph can take them; empty where they agree.
        traced_seconds: of a step by the graph as it was captured; 0 if there was none.
        well: whether the graph's checks held.
    """

    mismatch: str
    traced_seconds: float = 0.0
    well: bool = True


def compare(
    eager: Callable[[Arguments], float], graph: Graph, runner: GraphRunner, memory: Memory, batch: Arguments
) -> Compared:
    """Take a step on `batch` eagerly and in the tier that runs, and go back to before.

    Raises:
        TrialError: the eager step raised.
    """
    state = graph.state
    state.begin()
    before = memory.snapshot()
    grew = True
    while grew:  # of the variables that a run reads, each must be seen to stay as it is in a run
        execution: Execution | None = None
        try:
            with recorded() as execution:
                loss = eager(batch)
        except Exception as error:  # the step itself will raise it again
            raise TrialError from error
        finally:
            changed, lost = state.changed_by_a_run(), state.restore()
            after = memory.snapshot()
            memory.restore(before)
        expected = Trial(before, np.asarray([loss]), after)
        grew = state.extend(execution)
        if graph.annealed and execution is not None and (where := asks_for_types(execution.codes)):
            return Compared(
                f"a number changes from call to call, and the program asks for the type of something, {where}"
            )
        what = changed or lost
        if what or state.reason:
            return Compared(state.reason or f"each run of the program changes {what!r}, which it may read again")
    single = RepeatedBatch(batch)

    def take(steps: Callable[[Batches, int], np.ndarray]) -> np.ndarray:
        losses = steps(single, 1)
        if memory.one_by_one and (np.isfinite(losses[0]) or runner.well):
            runner.finish(float(losses[0]))
        return losses

    started = time.perf_counter()
    try:
        actual = traced = Trial(before, take(runner.traced), memory.snapshot())
    except Exception as error:  # the program's own step, which it repeats, raised nothing
        memory.restore(before)
        return Compared(f"the graph raised {type(error).__name__}: {str(error)[:200]}")
    seconds, well = time.perf_counter() - started, runner.valid and runner.well
    memory.restore(before)
    if runner.native is not None:
        actual = Trial(before, take(runner.native_steps), memory.snapshot())
        memory.restore(before)
    mismatch = measured_difference(
        memory, expected, actual, traced, lambda: take(runner.traced), seconds, leave_out=("gradient",)
    )
    return Compared(mismatch, seconds, well)
