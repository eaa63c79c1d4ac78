"""One block of memory for parameters and optimizer state, which every tier works on.

Parameters and moments become views of a few long vectors: a fused kernel updates a vector at once, while Pyro, torch's
optimizers and the user go on seeing their own tensors, always current.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vipack.compat.gradient_hooks import has_gradient_hooks, set_gradient
from vipack.compat.pytorch import version_of
from vipack.engine.capture.capture import Layout
from vipack.engine.graph.all_reduce import Reducer
from vipack.engine.optimizers.fit_optimizer import FitOptimizer, Handle
from vipack.engine.optimizers.memory_holders import have_other_holders
from vipack.engine.optimizers.parameter_groups import (
    FROZEN,
    GRADIENT,
    ParameterGroup,
    distinct_rates,
    grouped,
    joined_coefficients,
    rules_of,
)
from vipack.engine.steps.snapshots import Names, Snapshot
from vipack.program import Parameters, TorchState

__all__ = ["GraphMemory", "Memory"]

_AHEAD = 64  # steps whose coefficients are computed at once where steps are taken one by one
_MOVING = ("params", "lr", "initial_lr")  # options of an optimizer that no graph holds


class Memory:
    """The vectors of all parameters and of their optimizer's state.

    Args:
        updates: for each graph that works on it, the names of the parameters that its steps update. Those of one vector are
            always updated together.
        outside: let the optimizer itself take the steps, as one does that no rule is known of or whose gradients hooks see.

    Attributes:
        names: of the parameters, by index.
        values: one vector for each group.
        states: the state vectors of the groups' rules, group after group.
        outside: whether the optimizer itself takes the step, on the gradients that the graph leaves in ``states``.
    """

    copies: int | None = None
    reducer: Reducer | None = None

    def __init__(
        self,
        parameters: Parameters,
        optimizer: FitOptimizer,
        updates: Sequence[frozenset[str]] | None = None,
        *,
        outside: bool = False,
    ) -> None:
        layout = Layout.of(parameters)
        self.names = layout.names
        updates = [frozenset(layout.names)] if updates is None else list(updates)
        self._tensors = [parameters.unconstrained[name] for name in layout.names]
        patterns = [tuple(name in some for some in updates) for name in layout.names]
        # An optimizer has met those only that were updated before.
        updated = [tensor for tensor, pattern in zip(self._tensors, patterns, strict=True) if any(pattern)]
        self._updated = frozenset().union(*updates)
        handles = optimizer.handles(updated)
        self._all_handles = handles or []
        by_parameter = {id(handle.parameter): handle for handle in self._all_handles}
        self._optimizer = optimizer
        self._parameters = parameters
        self._gradients: list[tuple[int, Tensor, Tensor]] = []  # group, parameter, the piece for its gradient
        self._handles = [by_parameter.get(id(tensor)) for tensor in self._tensors]
        rules = rules_of(self._handles)
        self._hooked = any(map(has_gradient_hooks, self._tensors))
        self.outside = outside or self._hooked or handles is None or any(rule is None for rule in rules)
        if self.outside:
            rules = [GRADIENT if any(pattern) else FROZEN for pattern in patterns]
            self._handles = [None] * len(rules)
        self._staying = have_other_holders(self._tensors, parameters.modules) if parameters.shared else None
        self.groups, members = grouped(
            self._tensors, self._handles, [rule or FROZEN for rule in rules], patterns, self._staying
        )
        self.values: list[Tensor] = []
        self.states: list[Tensor] = []
        self._adopted: list[tuple[Tensor, int, Tensor]] = []  # parameter, address of its piece, the piece
        self._entries: list[tuple[dict[str, Any], str, int, Tensor]] = []  # optimizer's state, name, address, the piece
        self._even = True  # parameters of one vector have taken as many steps
        self._all_rates = distinct_rates(self._handles, members)
        self._members = members
        self._options, self._sharing = _constants_of(self._handles), _sharing_a_rate(self.groups, self._handles)
        for index, group in enumerate(self.groups):
            self._adopt(index, group)
        self._counted = [h for h in self._handles if h is not None and isinstance(_state(h).get("step"), Tensor)]
        self._counts = self._adopt_counts()
        optimized = [handle for handle in self._handles if handle is not None]
        self._optimizers = [(handle, _state(handle)) for handle in optimized]
        self._plain_counts = [h for h in self._handles if h is not None and isinstance(_state(h).get("step"), int)]
        counting = {id(handle) for handle in (*self._counted, *self._plain_counts)}
        by_group = [[self._handles[index] for index in group.indices] for group in self.groups]
        self._sharing_a_count = [
            [h for h in handles if h is not None]
            for handles in by_group
            if len(handles) > 1 and id(handles[0]) in counting
        ]
        self._steps = [_state(handle)["step"] for handle in self._counted]
        self._versions = [version_of(step) for step in self._steps]  # of the optimizer's own tensors: a user's writes

    @property
    def one_by_one(self) -> bool:
        """Whether something must be done in Python after every step."""
        return self.outside or any(rates.one_by_one for rates in self._all_rates.values())

    def met_hooks(self) -> bool:
        """Whether hooks on gradients have come or gone since it was made."""
        return any(map(has_gradient_hooks, self._tensors)) != self._hooked

    def can_update(self, names: frozenset[str]) -> bool:
        """Whether steps can update these parameters and no others."""
        return names <= self._updated and all(
            len({self.names[index] in names for index in group.indices}) == 1 for group in self.groups
        )

    def for_graph(self, names: Sequence[str], updated: frozenset[str]) -> GraphMemory:
        """The memory as one graph's steps see it.

        Args:
            names: the parameters that the graph takes, in its order.
            updated: those that its steps update; one of the sets that the memory was made for.
        """
        return GraphMemory(self, names, updated)

    @property
    def pieces(self) -> Names:
        """What stands where in the vectors."""
        return Names.of(self.groups, self.names)

    def buffers(self) -> list[Tensor]:
        """The modules' buffers, in order."""
        return list(self._parameters.buffers().values())

    def reclaim(self) -> bool:
        """Copy from tensors that others have put instead of its own: another run's memory, a state that was loaded.

        Returns:
            False where parameters that are updated together have no longer taken the same number of steps or no longer have
            the same learning rate, where other options of an optimizer are no longer those of the graph, and where it was
            given another state as a whole, as by ``load_state_dict``.
        """
        if any(handle.optimizer.state.get(handle.parameter) is not state for handle, state in self._optimizers):
            return False
        if not self._optimizer.holds(self._all_handles):
            return False
        counts = False
        with torch.no_grad():
            for tensor, address, piece in self._adopted:
                if tensor.data_ptr() != address:
                    piece.copy_(tensor.detach())
                    tensor.data = piece
            for state, name, address, piece in self._entries:
                current = state.get(name)
                if current is not None and not (isinstance(current, Tensor) and current.data_ptr() == address):
                    piece.copy_(torch.as_tensor(current).reshape(piece.shape))
                    _move(state, name, piece)
                    counts = counts or name == "step"
        if counts:
            self._steps = [_state(handle)["step"] for handle in self._counted]
        versions = [version_of(step) for step in self._steps]
        if counts or self._plain_counts or versions != self._versions:
            self._versions = versions
            self._counts.add_(0.0)  # what was made ahead of these counts is seen to be out of date
            self._even = all(len(set(map(_count, handles))) == 1 for handles in self._sharing_a_count)
        return self._even and self._same_options()

    def _same_options(self) -> bool:
        if any(now[name] is not v and now[name] != v for now, options in self._options for name, v in options):
            return False
        return all(other["lr"] == first["lr"] for first, *others in self._sharing for other in others)

    def snapshot(self) -> Snapshot:
        """Copies of everything that a step changes, the generator included."""
        return Snapshot(
            tuple(value.clone() for value in self.values),
            tuple(state.clone() for state in self.states),
            tuple(buffer.clone() for buffer in self.buffers()),
            (*self._counts.tolist(), *(_state(handle)["step"] for handle in self._plain_counts)),
            tuple(rates.state() for rates in self._all_rates.values()),
            TorchState.current(),
            self._optimizer.state() if self.outside else None,
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot."""
        with torch.no_grad():
            for own, saved in zip([*self.values, *self.states], [*snapshot.values, *snapshot.states], strict=True):
                own.copy_(saved)
            for buffer, saved in zip(self.buffers(), snapshot.buffers, strict=True):
                buffer.copy_(saved)
        number = len(self._counted)
        self._counts.copy_(torch.tensor(snapshot.counts[:number]))
        for handle, count in zip(self._plain_counts, snapshot.counts[number:], strict=True):
            _state(handle)["step"] = int(count)
        for rates, stood in zip(self._all_rates.values(), snapshot.rates, strict=True):
            rates.restore(stood)
        if snapshot.optimizer is not None:
            self._optimizer.load_state(snapshot.optimizer)
        snapshot.generator.install()

    def _adopt_counts(self) -> Tensor:
        """Step counts that are tensors, as one vector that the optimizers' own counts are elements of."""
        steps = [_state(handle)["step"] for handle in self._counted]
        device = steps[0].device if steps else None  # an optimizer that is fused or capturable counts on the GPU
        vector = torch.tensor([float(step) for step in steps], device=device)
        for index, handle in enumerate(self._counted):
            piece = vector[index]
            _move(_state(handle), "step", piece)
            self._entries.append((_state(handle), "step", piece.data_ptr(), piece))
        return vector

    def _adopt(self, group_index: int, group: ParameterGroup) -> None:
        """Move a group's parameters and state into vectors, those parameters excepted that others look at."""
        tensors = [self._tensors[index] for index in group.indices]
        stay = self._staying is not None and self._staying[group.indices[0]]
        if stay:
            value = tensors[0].detach().as_strided((group.size,), (1,))
        else:
            value = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        self.values.append(value)
        for tensor, piece in zip(tensors, value.split([t.numel() for t in tensors]), strict=True):
            if not stay:
                tensor.data = piece.view(tensor.shape)
            self._adopted.append((tensor, tensor.data_ptr(), piece.view(tensor.shape)))
        for name, first in zip(group.rule.state, group.rule.first, strict=True):
            vector = torch.full_like(value, first)
            pieces = vector.split([tensor.numel() for tensor in tensors])
            if group.rule is GRADIENT:
                self._gradients += [
                    (group_index, t, piece.view(t.shape)) for t, piece in zip(tensors, pieces, strict=True)
                ]
                self.states.append(vector)
                continue
            for index, tensor, piece in zip(group.indices, tensors, pieces, strict=True):
                handle = self._handles[index]
                assert handle is not None
                state = handle.optimizer.state[tensor]
                if isinstance(state.get(name), Tensor):
                    piece.copy_(state[name].reshape(-1))
                view = piece.view(tensor.shape)
                _move(state, name, view)
                self._entries.append((state, name, view.data_ptr(), view))
            self.states.append(vector)


class GraphMemory:
    """A memory as the steps of one graph see it, which may update some of its parameters only.

    Attributes:
        groups, values, states, names, reducer, copies, one_by_one: of the memory.
        order: for each parameter of the graph, its index in the memory.
        active: for each group, whether the steps update it.
    """

    copies: int | None = None

    def __init__(self, memory: Memory, names: Sequence[str], updated: frozenset[str]) -> None:
        self._memory = memory
        self.groups, self.values, self.states = memory.groups, memory.values, memory.states
        self.names, self.reducer = memory.names, memory.reducer
        indices = {name: index for index, name in enumerate(memory.names)}
        self.order = tuple(indices[name] for name in names)
        self.active = tuple(memory.names[group.indices[0]] in updated for group in memory.groups)
        members = zip(memory.groups, self.active, strict=True)
        handles = [memory._handles[index] for group, updates in members if updates for index in group.indices]
        stepping = {id(handle) for handle in handles if handle is not None}
        self._rates = {key: rates for key, rates in memory._all_rates.items() if rates.moves_with(stepping)}
        self._plain_counts = [handle for handle in memory._plain_counts if id(handle) in stepping]
        every = all(id(handle) in stepping for handle in memory._counted)
        stepped = [float(id(handle) in stepping) for handle in memory._counted]
        self._counted = None if every else torch.tensor(stepped, device=memory._counts.device)
        self._coming: list[Tensor] = []  # coefficients of steps, those of the next one last
        self._coming_from: tuple[list[tuple[float, ...]], int] = (
            [],
            -1,
        )  # rates and version of the counts that they were made for

    @property
    def one_by_one(self) -> bool:
        """Whether something must be done in Python after every step."""
        return self._memory.one_by_one

    def buffers(self) -> list[Tensor]:
        """The modules' buffers, in order."""
        return self._memory.buffers()

    def coefficients(self, num_steps: int) -> np.ndarray:
        """The rules' coefficients for the next steps ``(K, number of all)``; rates and step counts move on by as many."""
        coefficients = self._compute(num_steps)
        self._count_on(num_steps)
        return coefficients

    def next_coefficients(self, dtype: torch.dtype) -> Tensor:
        """Those of one step, ``(1, number of all)``; where only the step counts move, those of many are computed at once."""
        if self._plain_counts or any(rates.moving for rates in self._rates.values()):
            return torch.from_numpy(self.coefficients(1)).to(dtype)
        counts = self._memory._counts
        stand = [rates.rates for rates in self._rates.values()], version_of(counts)
        if not self._coming or stand != self._coming_from:
            self._coming = list(torch.from_numpy(self._compute(_AHEAD)).to(dtype).split(1))[::-1]
        self._count_on(1)
        self._coming_from = stand[0], version_of(counts)
        return self._coming.pop()

    def mark(self) -> tuple[Any, ...]:
        """Where the rates stand, for :meth:`undo`."""
        return tuple(rates.state() for rates in self._rates.values() if rates.moving)

    def undo(self, mark: tuple[Any, ...]) -> None:
        """Take back that rates and counts have moved on by a step since :meth:`mark`."""
        self._count_on(-1)
        for rates, state in zip([rates for rates in self._rates.values() if rates.moving], mark, strict=True):
            rates.restore(state)

    def finish(self, loss: float) -> None:
        """What remains of a step with this loss: schedules that go by losses, or the optimizer's own step."""
        memory = self._memory
        for rates in self._rates.values():
            rates.look(loss)
        if memory.outside:
            stepping = [(tensor, piece) for group, tensor, piece in memory._gradients if self.active[group]]
            for tensor, piece in stepping:
                set_gradient(tensor, piece)
            memory._optimizer.loss = loss
            memory._optimizer.update({tensor for tensor, _ in stepping})
            for tensor, piece in stepping:  # Pyro leaves zeros, and adds the next gradient to them
                tensor.grad = torch.zeros_like(piece)

    def _compute(self, num_steps: int) -> np.ndarray:
        coming: dict[int, np.ndarray] = {}
        for rates in self._rates.values():
            coming |= rates.take(num_steps)
        of_groups = []
        for group, handle, updates in zip(self.groups, self._memory._members, self.active, strict=True):
            if not group.rule.num_coefficients:
                continue
            if handle is not None and updates:
                of_groups.append(group.rule.coefficients(_count(handle), coming[id(handle.group)]))
            else:
                of_groups.append(np.zeros((num_steps, group.rule.num_coefficients)))
        return joined_coefficients(of_groups, num_steps)

    def _count_on(self, num_steps: int) -> None:
        memory = self._memory
        memory._counts += num_steps if self._counted is None else num_steps * self._counted
        for handle in self._plain_counts:
            _state(handle)["step"] += num_steps


def _move(state: dict[str, Any], name: str, piece: Tensor) -> None:
    """Move a tensor of an optimizer's state: the object stays, since a kept ``state_dict()`` holds it as well."""
    current = state.get(name)
    if isinstance(current, Tensor) and current.shape == piece.shape and current.dtype == piece.dtype:
        current.data = piece
    else:
        state[name] = piece


def _constants_of(handles: Sequence[Handle | None]) -> list[tuple[dict[str, Any], list[tuple[str, Any]]]]:
    """Of each of the optimizer's own groups the options that a graph holds as constants."""
    every = {id(handle.group): handle.group for handle in handles if handle is not None}
    return [(now, [item for item in now.items() if item[0] not in _MOVING]) for now in every.values()]


def _sharing_a_rate(groups: Sequence[ParameterGroup], handles: Sequence[Handle | None]) -> list[list[dict[str, Any]]]:
    """The optimizer's own groups that share a learning rate in one of ours, where there are several."""
    sharing = []
    for group in groups:
        members = (handles[index] for index in group.indices)
        options = list({id(h.group): h.group for h in members if h is not None}.values())
        sharing += [options] if len(options) > 1 else []
    return sharing


def _state(handle: Handle) -> dict[str, Any]:
    state: dict[str, Any] = handle.optimizer.state[handle.parameter]
    return state


def _count(handle: Handle) -> int:
    """Steps that the optimizer has taken with a parameter; at least the one before its memory was adopted."""
    return int(_state(handle).get("step", 1))
