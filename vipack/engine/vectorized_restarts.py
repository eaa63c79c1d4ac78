"""Several fits of one program side by side: R starts trained by one graph, of which the best is kept."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pyro.optim.clipped_adam import ClippedAdam
from torch import Tensor
from torch.optim import SGD

from vipack.engine.capture.capture import Graph, Layout, capture
from vipack.engine.capture.tracing import CaptureError
from vipack.engine.guards.execution import Execution, recorded
from vipack.engine.guards.python_state import PythonState
from vipack.engine.optimizers.fit_optimizer import FitOptimizer, Handle
from vipack.engine.optimizers.parameter_groups import distinct_rates, grouped, joined_coefficients, rules_of
from vipack.engine.steps.contracts import Batches, Engine, NonFiniteStep, Tier
from vipack.engine.steps.feeding import RepeatedBatch
from vipack.engine.steps.promotion import Promotion
from vipack.engine.steps.runner import GraphRunner
from vipack.engine.steps.snapshots import Names, Snapshot
from vipack.errors import NonFiniteError
from vipack.program import Arguments, Program, TorchState
from vipack.types import EngineReport

__all__ = ["RestartsEngine", "Start"]

_RECENT = 100  # steps whose mean loss says which start leads
_TRACED_AT_ONCE = 64

Start = dict[str, Tensor]


class RestartsEngine(Engine):
    """Trains R starts of a program at once; the program's own parameters are always those of the leader.

    Args:
        starts: for each start, the unconstrained initial value of every parameter by name.
        data: arrays of the data (in the order of ``tensors_of``) of which each start has its own: index ->
            ``(R, *shape)``. Losses then cannot be compared, and the leader means nothing.

    Attributes:
        leader: the start with the lowest mean loss lately, or the one that :meth:`publish` was last told.

    Raises:
        CaptureError: the program or the optimizer cannot run side by side.
    """

    def __init__(
        self,
        program: Program,
        loss: Any,
        optimizer: FitOptimizer,
        batches: Batches,
        starts: Sequence[Start],
        tier: Tier,
        data: Mapping[int, Tensor] | None = None,
    ) -> None:
        self._program = program
        self._data = data
        self._loss = loss
        self._tier = tier
        self.report = EngineReport("traced", steps={})
        graph = self._graph(batches)
        self._memory = _StackedMemory(program, graph, optimizer, starts)
        self._runners: dict[Hashable, GraphRunner] = {}
        self._promotions: dict[Hashable, Promotion] = {}
        self._states: list[PythonState] = []
        self._history: list[np.ndarray] = []
        self.leader = 0
        self._add(batches, graph)

    @property
    def losses(self) -> np.ndarray:
        """Of every step and start, ``(steps, R)`` in nats."""
        return np.concatenate(self._history)

    def advance(self, batches: Batches, num_steps: int, remaining: int) -> list[float]:
        """Take `num_steps` steps with every start; the losses are the leader's (nats)."""
        self._look_around()
        history: list[np.ndarray] = []
        left = num_steps
        while left > 0:
            size, in_a_row = batches.upcoming()
            runner = self._runners.get(size) or self._add(batches, self._graph(batches))
            number = min(left, in_a_row)
            promotion = self._promotions[size]
            if self._tier != "traced":
                promotion(RepeatedBatch(batches.peek()), remaining - (num_steps - left))
            tier, started = runner.native_tier, time.perf_counter()
            if runner.native is not None:
                new = runner.native_steps(batches, number)
            else:
                new = runner.traced(batches, min(number, _TRACED_AT_ONCE))
            promotion.seconds = (time.perf_counter() - started) / len(new)
            self.report.tier = tier
            self.report.steps[tier] = self.report.steps.get(tier, 0) + len(new)
            history.append(new)
            left -= len(new)
        losses = np.concatenate(history)
        self._history.append(losses)
        recent = losses[-_RECENT:].mean(0)
        if not np.isfinite(recent).any():
            raise NonFiniteStep([], NonFiniteError("the losses of all starts are NaN or infinite"))
        self.publish(int(np.nanargmin(np.where(np.isfinite(recent), recent, np.nan))))
        own: list[float] = losses[:, self.leader].tolist()
        return own

    def refresh(self) -> None:
        for runner in self._runners.values():
            runner.refresh()

    def rest(self) -> None:
        for promotion in self._promotions.values():
            promotion.stop()

    def go_on(self, tier: Tier, running: str) -> None:
        """Saved runs go on with one start."""

    def publish(self, start: int) -> None:
        """Let the program's parameters, buffers and optimizer be those of one start."""
        self.leader = start
        self._memory.publish(start)

    def _look_around(self) -> None:
        """Forget the graphs of a program that was changed from outside, as by a callback that anneals a weight."""
        if any(state.outdated() for state in self._states):
            for promotion in self._promotions.values():
                promotion.stop()
            self._runners, self._promotions, self._states = {}, {}, []

    def _graph(self, batches: Batches) -> Graph:
        return capture(self._program, self._loss, batches.peek(), self._executed(batches.peek()))

    def _executed(self, batch: Arguments) -> Execution | None:
        """What of the user's code runs in a step."""
        generators = TorchState.current()
        try:
            with self._program.bound(batch), recorded() as execution:
                self._loss.loss(self._program.model, self._program.guide, *batch.args, **batch.kwargs)
        finally:
            generators.install()
        return execution

    def _add(self, batches: Batches, graph: Graph) -> GraphRunner:
        """The step for batches of the size that comes next."""
        try:
            runner = GraphRunner(graph, self._memory, self._program.parameters, batches, own=self._data)
            # What lies in the cache was traced once; what does not is traced here, where it may turn out not to go.
            if self._tier not in ("auto", "compiled") or runner.prepare(torch.get_num_threads()) is None:
                _ = runner.step.module
        except Exception as error:  # vmap has no rule for every operation, and refuses draws that depend on parameters
            raise CaptureError(f"the step cannot be vectorized: {str(error)[:150]}") from error
        if graph.reads and runner.step.checked:
            raise CaptureError(f"the starts may take different branches ({graph.reads[0].where})")
        self.report.capture_seconds += runner.seconds
        size = batches.upcoming()[0]
        self._runners[size] = runner
        self._states.append(graph.state)
        self._promotions[size] = Promotion(runner, self._memory, self._tier, self.report)
        return runner


class _StackedMemory:
    """The vectors of a step with a leading dimension for starts."""

    one_by_one = False
    reducer = None

    def __init__(self, program: Program, graph: Graph, optimizer: FitOptimizer, starts: Sequence[Start]) -> None:
        layout: Layout = graph.layout
        self.names = layout.names
        self.copies: int | None = len(starts)
        self._program = program
        self._tensors = [program.parameters.unconstrained[name] for name in layout.names]
        handles = {id(handle.parameter): handle for handle in optimizer.handles(self._tensors) or ()}
        self._handles: list[Handle | None] = [
            None if name in graph.unused else handles.get(id(tensor))
            for name, tensor in zip(layout.names, self._tensors, strict=True)
        ]
        rules = rules_of(self._handles)
        if not handles or any(rule is None for rule in rules):
            raise CaptureError("the optimizer cannot train several starts at once; Adam and its like can")
        self.groups, self._members = grouped(self._tensors, self._handles, [rule for rule in rules if rule is not None])
        self.values = [
            torch.stack(
                [torch.cat([start[layout.names[index]].reshape(-1) for index in group.indices]) for start in starts]
            ).to(program.parameters.device)
            for group in self.groups
        ]
        self.states = [
            torch.full_like(value, first)
            for group, value in zip(self.groups, self.values, strict=True)
            for first in group.rule.first
        ]
        buffers = program.parameters.buffers().values()
        self._buffers = [buffer.expand(len(starts), *buffer.shape).clone() for buffer in buffers]
        self.order = tuple(range(len(layout.names)))
        self.active = (True,) * len(self.groups)
        self._rates = list(distinct_rates(self._handles, self._members).values())
        if any(rates.one_by_one for rates in self._rates):
            raise CaptureError("a learning rate that goes by losses cannot serve several starts at once")
        self._done = 0

    def buffers(self) -> list[Tensor]:
        """Of the modules, with a leading dimension."""
        return self._buffers

    def next_coefficients(self, dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(self.coefficients(1)).to(dtype)

    def coefficients(self, num_steps: int) -> np.ndarray:
        """The update rules' coefficients for the next steps, the same for all starts."""
        coming: dict[int, np.ndarray] = {}
        for rates in self._rates:
            coming |= rates.take(num_steps)
        of_groups = []
        for group, handle in zip(self.groups, self._members, strict=True):
            if handle is not None and group.rule.num_coefficients:
                of_groups.append(group.rule.coefficients(self._done, coming[id(handle.group)]))
        self._done += num_steps
        return joined_coefficients(of_groups, num_steps)

    def finish(self, loss: float) -> None:
        """Nothing remains."""

    def mark(self) -> tuple[Any, ...]:
        """Nothing is taken back one by one."""
        return ()

    def undo(self, mark: tuple[Any, ...]) -> None:
        """See :meth:`mark`."""

    def snapshot(self) -> Snapshot:
        """Copies of everything that a step changes, the generator included."""
        values, states, buffers = (
            tuple(value.clone() for value in vectors) for vectors in (self.values, self.states, self._buffers)
        )
        rates = tuple(rates.state() for rates in self._rates)
        return Snapshot(values, states, buffers, (float(self._done),), rates, TorchState.current())

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot."""
        saved = (*snapshot.values, *snapshot.states, *snapshot.buffers)
        for own, value in zip((*self.values, *self.states, *self._buffers), saved, strict=True):
            own.copy_(value)
        self._done = int(snapshot.counts[0])
        for rates, state in zip(self._rates, snapshot.rates, strict=True):
            rates.restore(state)
        snapshot.generator.install()

    @property
    def pieces(self) -> Names:
        """What stands where in the vectors."""
        return Names.of(self.groups, self.names)

    def publish(self, start: int) -> None:
        """Copy one start into the program's parameters and buffers, and its moments into the optimizer."""
        states = iter(self.states)
        with torch.no_grad():
            for group, value in zip(self.groups, self.values, strict=True):
                named = [(name, next(states)) for name in group.rule.state]
                sizes = [shape.numel() for shape in group.shapes]
                pieces = value[start].split(sizes)
                for index, shape, piece in zip(group.indices, group.shapes, pieces, strict=True):
                    self._tensors[index].copy_(piece.view(shape))
                    self._hand_over(
                        index, shape, [(n, s[start].split(sizes)[group.indices.index(index)]) for n, s in named]
                    )
            for own, buffer in zip(self._program.parameters.buffers().values(), self._buffers, strict=True):
                own.copy_(buffer[start])

    def _hand_over(self, index: int, shape: torch.Size, states: list[tuple[str, Tensor]]) -> None:
        handle = self._handles[index]
        if handle is None:
            return
        state = handle.optimizer.state[handle.parameter]
        for name, value in states:
            state[name] = value.reshape(shape).clone()
        if isinstance(handle.optimizer, ClippedAdam):
            state["step"] = self._done
        elif not isinstance(handle.optimizer, SGD):
            state["step"] = torch.tensor(float(self._done))
