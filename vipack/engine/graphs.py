"""The captured graphs of a run, and the memory that they work on: captured, compared with Pyro, and dropped when the program changes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from vipack.compat.gradient_hooks import has_gradient_hooks, hooks_left_out
from vipack.engine.capture.capture import Graph, Layout, capture
from vipack.engine.capture.tracing import CaptureError
from vipack.engine.graph.all_reduce import Reducer
from vipack.engine.guards.execution import Execution
from vipack.engine.optimizers.fit_optimizer import FitOptimizer
from vipack.engine.steps.contracts import Batches
from vipack.engine.steps.memory import Memory
from vipack.engine.steps.runner import GraphRunner
from vipack.engine.steps.safe_states import SafeStates
from vipack.engine.steps.shapes import Shape, Shapes
from vipack.engine.steps.trials import Compared, TrialError, compare
from vipack.errors import EngineWarning, warn
from vipack.program import Arguments, Program
from vipack.program.running.params import UnmetParameterError
from vipack.types import EngineReport

__all__ = ["CapturedGraphs"]

_LOOK_SHARE = 0.5  # of an eager step's time, that looking at the variables that a program reads may take
_LOOKS = 5  # that are timed before they are called slow
_CAPTURES = 4  # after which a program that is changed from outside again and again runs as it is
_REGROUPINGS = 16  # likewise for a program whose optimizer is changed
_CONSTANT_OPTIONS = 3  # such changes after which the optimizer takes its own steps, on gradients of the graph


class CapturedGraphs:
    """A graph for each shape of batches, over one memory.

    Args:
        eager: takes one step as Pyro does, with which graphs are compared.
        report: is told what is captured, and why something is not.
        live: whether every call may come with other tensors than the last.
        reducer: adds up gradients over the processes of a run.

    Attributes:
        execution: of the latest step of the program that was recorded.
        plain_left: how many steps are Pyro's before anything is tried.
        look_at_data: whether data may have changed, so that graphs look at them before the next step.
    """

    def __init__(
        self,
        program: Program,
        loss: Any,
        optimizer: FitOptimizer,
        eager: Callable[[Arguments], float],
        report: EngineReport,
        *,
        live: bool,
        reducer: Reducer | None = None,
    ) -> None:
        self._reducer = reducer
        self._program, self._loss, self._optimizer, self._eager = program, loss, optimizer, eager
        self._live = live
        self._captures_left, self._regroupings_left = _CAPTURES, _REGROUPINGS
        self.report = report
        self.shapes, self.safe = Shapes(), SafeStates()
        self.memory: Memory | None = None
        self.execution: Execution | None = None
        self.plain_left = 0
        self.look_at_data = False

    def outdated(self) -> str:
        """The name of a Python variable that a graph was captured with and that has changed since; empty if none has."""
        graphs = [shape.graph for shape in self.shapes if shape.graph is not None]
        return next((name for graph in graphs if (name := graph.state.outdated())), "")

    def unchanged(self) -> bool:
        """Whether graphs and memory still are those of the program and its optimizer."""
        return not self.outdated() and (self.memory is None or self.memory.reclaim())

    def forget(self, what: str, cure: str) -> None:
        """Drop all graphs; they may be captured anew, unless that has happened often.

        Args:
            what: has been changed from outside, and what to do instead.
        """
        for shape in self.shapes:
            shape.stop()
        self.safe.forget()
        self._captures_left -= 1
        self.shapes.anew(done=self._captures_left <= 0)
        self.plain_left = 1  # a new parameter may come with it, which the optimizer must meet
        if self._captures_left == 0:
            self.report.reason = f"eager: {what} changed from outside {_CAPTURES} times since the run began"
            warn(EngineWarning(f"{self.report.reason}; {cure}."))

    def regroup(self) -> None:
        """Drop the memory of an optimizer that was changed; the graphs go on with a new one, unless that has happened often."""
        for shape in self.shapes:
            shape.unbind()
        self.memory = None
        self.safe.forget()
        self._regroupings_left -= 1
        if self._regroupings_left == 0:
            self.shapes.anew(done=True)
            self.report.reason = (
                f"eager: options of the optimizer were changed {_REGROUPINGS} times since the run began"
            )

    def look_around(self) -> None:
        """Forget the graphs of a program that was changed from outside, as by a callback that anneals a weight."""
        name = self.outdated()
        if name:
            self.forget(f"{name!r}, which the program reads, was", "pass it in `fixed` or `data`")
        if self.memory is not None and (not self.memory.reclaim() or self.memory.met_hooks()):
            self.regroup()
        if self.look_at_data:
            self.look_at_data = False
            for shape in self.shapes:
                if shape.runner is not None:
                    shape.runner.refresh()

    def capture(self, shape: Shape, batches: Batches, eager_seconds: float | None = None) -> None:
        """Capture the next step, and compare the graph's step with Pyro's. Nothing is changed.

        Args:
            eager_seconds: what a step of Pyro's takes, where looking at what the program reads must cost less.
        """
        try:
            with hooks_left_out(self._program.parameters.unconstrained.values()):
                shape.graph = capture(self._program, self._loss, batches.peek(), self.execution)
        except UnmetParameterError:
            shape.done = shape.waited  # the next step, which is taken eagerly, meets it
            shape.waited = True
            return
        except CaptureError as error:
            self.report.reason = f"eager: {error}"
            return
        self.report.capture_seconds += shape.graph.seconds
        slow = "" if eager_seconds is None else _slow_looks(shape.graph, eager_seconds)
        if slow:
            shape.graph, self.report.reason = None, f"eager: {slow}"
            return
        self.bind(shape, shape.graph, batches)

    def bind(self, shape: Shape, graph: Graph, batches: Batches) -> None:
        """Let a graph's steps work on the memory, which is made anew where they update other parameters than it knows."""
        shape.runner = shape.promotion = None
        shape.updated = self.updated_by(graph)
        if not self._has_met(shape):
            return  # it meets them in the next step, which is taken eagerly
        try:
            memory = self._memory_for(graph, shape.updated)
            own = memory.for_graph(graph.layout.names, shape.updated)
            parameters, keeping = self._program.parameters, bool(graph.reads)
            runner = GraphRunner(graph, own, parameters, batches, live=self._live, keeping=keeping)
        except CaptureError as error:
            shape.graph, self.report.reason = None, f"eager: {error}"
            return
        self.report.capture_seconds += runner.seconds - graph.seconds
        try:
            mismatch = self._compare(shape, graph, runner, batches.peek()).mismatch
        except TrialError:
            return  # the step itself will raise
        if mismatch:
            shape.graph, self.report.reason = None, f"eager: the captured graph gave another step ({mismatch})"
            return
        shape.runner = runner

    def updated_by(self, graph: Graph) -> frozenset[str]:
        """The parameters that a step updates: those with a gradient, and those that Pyro has left one of zeros for."""
        unconstrained = self._program.parameters.unconstrained
        idle = graph.touched & graph.unused
        return (graph.touched - idle) | {name for name in idle if unconstrained[name].grad is not None}

    def awaits_parameters(self, shape: Shape) -> bool:
        """Whether a shape has no runner since its steps update parameters that the optimizer meets in the next step alone."""
        if shape.runner is not None:
            return False
        return shape.waited if shape.graph is None else not self._has_met(shape)

    def _memory_for(self, graph: Graph, updated: frozenset[str]) -> Memory:
        memory, parameters = self.memory, self._program.parameters
        if memory is not None and memory.names == Layout.of(parameters).names and memory.can_update(updated):
            return memory
        others = [shape for shape in self.shapes if shape.graph is not None and shape.graph is not graph]
        for shape in others:
            shape.unbind()  # to be bound to the new memory when its turn comes
        self.safe.forget()
        met = [shape.updated for shape in others if self._has_met(shape)]
        outside = self._live and self._regroupings_left <= _REGROUPINGS - _CONSTANT_OPTIONS
        self.memory = Memory(parameters, self._optimizer, [updated, *met], outside=outside)
        self.memory.reducer = self._reducer
        return self.memory

    def _has_met(self, shape: Shape) -> bool:
        """Whether the optimizer has met all parameters that steps of a shape update."""
        unconstrained = self._program.parameters.unconstrained
        return all(self._optimizer.has_met(unconstrained[name]) for name in shape.updated)

    def _compare(self, shape: Shape, graph: Graph, runner: GraphRunner, batch: Arguments) -> Compared:
        assert self.memory is not None
        unconstrained = self._program.parameters.unconstrained
        with hooks_left_out(unconstrained.values()):
            compared = compare(self._eager, graph, runner, self.memory, batch)
            hooked = next((name for name, value in unconstrained.items() if has_gradient_hooks(value)), None)
        if hooked is not None:
            compared = replace(compared, mismatch=f"each run of the program hooks the gradient of {hooked!r} once more")
        self.execution = graph.state.execution
        shape.traced_seconds = compared.traced_seconds or shape.traced_seconds
        return compared

    def check_again(self, shape: Shape, batches: Batches) -> None:
        """A program that changes as it runs (a counter, a variable set from outside) no longer agrees with its graph."""
        assert shape.runner is not None
        assert shape.graph is not None
        try:
            compared = self._compare(shape, shape.graph, shape.runner, batches.peek())
        except TrialError:
            return
        mismatch = compared.mismatch
        if not mismatch or (shape.may_branch and not compared.well):  # another branch, which says nothing of this one
            return
        for other in self.shapes:
            other.graph, other.runner, other.done = None, None, True
        self.report.reason = f"eager: after {sum(self.report.steps.values())} steps the captured graph no longer agrees with the program ({mismatch})"
        warn(
            EngineWarning(
                f"{self.report.reason}; the model or guide changes from call to call, as by a counter or a variable that "
                "is set from outside. Pass such values in `fixed` or `data`, or use engine='eager'."
            )
        )


def _slow_looks(graph: Graph, step: float) -> str:
    """Why looking before each step at what the program reads costs more than a graph saves; empty where it does not."""
    seconds = math.inf
    for _ in range(_LOOKS):  # one of them may meet another process
        started = time.perf_counter()
        graph.state.outdated()
        seconds = min(seconds, time.perf_counter() - started)
        if seconds < _LOOK_SHARE * step or step == 0.0:
            return ""
    return (
        f"before each step, {graph.state.num_variables:,} Python variables that the program reads would be compared with "
        f"what they held, which takes {1e3 * seconds:.1f} ms beside {1e3 * step:.1f} ms of a step; hold them in arrays or "
        "tensors, or call run(num_steps, ...)"
    )
