"""One block of memory for parameters and optimizer state, which every tier works on.

Parameters and moments become views of a few long vectors: a fused kernel updates a vector at once, while Pyro, torch's
optimizers and the user go on seeing their own tensors, always current.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR

from vipack.engine.capture import Layout
from vipack.engine.optimizers import FitOptimizer, Handle
from vipack.engine.rates import Rates
from vipack.engine.rules import Rule, rule_of
from vipack.engine.step_graph import Unit
from vipack.program import Parameters, TorchState

__all__ = ["Memory", "Snapshot", "grouped", "rules_of", "together"]

_AHEAD = 64  # rows that are made at once where steps are taken one by one
_MOVING = ("params", "lr", "initial_lr")  # entries of a parameter group that no graph holds
_LARGE = 16_384  # elements from which a parameter is a vector of its own, to save gathering its gradient


@dataclass(frozen=True)
class Snapshot:
    """Copies of everything that a step changes."""

    values: tuple[Tensor, ...]
    states: tuple[Tensor, ...]
    buffers: dict[str, Tensor]
    counts: Tensor
    plain_counts: tuple[int, ...]
    rates: tuple[Any, ...]
    generator: TorchState
    optimizer: dict[str, Any] | None


class Memory:
    """The vectors of a step, and the optimizer's numbers for it.

    Args:
        unused: names of parameters that get no gradient, and so stay as they are.

    Attributes:
        values: one vector for each unit.
        states: the state vectors of the units' rules, unit after unit.
        outside: whether the optimizer itself takes the step, on the gradients that the graph leaves in ``states``.
    """

    copies: int | None = None

    def __init__(
        self, parameters: Parameters, layout: Layout, optimizer: FitOptimizer, unused: frozenset[str] = frozenset()
    ) -> None:
        handles = optimizer.handles()
        by_parameter = {id(handle.parameter): handle for handle in handles or ()}
        self._optimizer = optimizer
        self._parameters = parameters
        self._gradients: list[tuple[Tensor, Tensor]] = []
        self._tensors = [parameters.unconstrained[name] for name in layout.names]
        self._handles = [
            None if name in unused else by_parameter.get(id(tensor))
            for name, tensor in zip(layout.names, self._tensors, strict=True)
        ]
        rules = rules_of(self._handles)
        self.outside = handles is None or any(rule is None for rule in rules)
        if self.outside:
            rules = [_FROZEN if name in unused else _GRADIENT for name in layout.names]
            self._handles = [None] * len(rules)
        self.units, members = grouped(self._tensors, self._handles, [rule or _FROZEN for rule in rules])
        self.values: list[Tensor] = []
        self.states: list[Tensor] = []
        self._held: list[tuple[Tensor, int, Tensor]] = []  # parameter, address of its piece, the piece
        self._entries: list[tuple[dict[str, Any], str, Tensor]] = []  # optimizer's state, name, the piece
        self._uneven = False
        self._all_rates = _distinct_rates(self._handles, members)
        self._members = members
        self._options, self._sharing = _constants_of(self._handles), _sharing_a_rate(self.units, self._handles)
        for unit in self.units:
            self._adopt(unit)
        self._counts = self._adopt_counts()
        self._coming: list[Tensor] = []  # rows, the next one last
        self._coming_from: tuple[list[float], int] = [], -1  # rates and version of the counts that they were made for
        optimized = [handle for handle in self._handles if handle is not None]
        self._optimizers = [(handle, _state(handle)) for handle in optimized]
        self._plain_counts = [h for h in self._handles if h is not None and isinstance(_state(h).get("step"), int)]

    @property
    def one_by_one(self) -> bool:
        """Whether something must be done in Python after every step."""
        return self.outside or any(rates.one_by_one for rates in self._all_rates.values())

    @property
    def row_width(self) -> int:
        """Optimizer numbers a step."""
        return sum(unit.rule.width for unit in self.units)

    def rows(self, num_steps: int) -> np.ndarray:
        """The optimizer's numbers for the next steps ``(K, width)``; rates and step counts move on by as many."""
        made = self._numbers(num_steps)
        self._count_on(num_steps)
        return made

    def row(self, dtype: torch.dtype) -> Tensor:
        """What :meth:`rows` gives for one step, ``(1, width)``; where only the step counts move, many are made at once."""
        if self._plain_counts or any(rates.moving for rates in self._all_rates.values()):
            return torch.from_numpy(self.rows(1)).to(dtype)
        stand = [rates.rate for rates in self._all_rates.values()], self._counts._version
        if not self._coming or stand != self._coming_from:
            self._coming = list(torch.from_numpy(self._numbers(_AHEAD)).to(dtype).split(1))[::-1]
        self._count_on(1)
        self._coming_from = stand[0], self._counts._version
        return self._coming.pop()

    def _numbers(self, num_steps: int) -> np.ndarray:
        taken = {key: rates.take(num_steps) for key, rates in self._all_rates.items()}
        parts = []
        for unit, handle in zip(self.units, self._members, strict=True):
            if handle is not None and unit.rule.width:
                parts.append(unit.rule.rows(_count(handle), taken[_rate_key(handle)]))
        return together(parts, num_steps)

    def buffers(self) -> list[Tensor]:
        """The modules' buffers, in order."""
        return list(self._parameters.buffers().values())

    def finish(self, loss: float) -> None:
        """What remains of a step with this loss: schedules that go by losses, or the optimizer's own step."""
        for rates in self._all_rates.values():
            rates.look(loss)
        if self.outside:
            for tensor, gradient in self._gradients:
                tensor.grad = gradient
            self._optimizer.loss = loss
            self._optimizer.update({tensor for tensor, _ in self._gradients})

    def reclaim(self) -> bool:
        """Take up what others put in the place of its tensors: another run's memory, a state that was loaded.

        Returns:
            False where parameters that are updated together have no longer taken the same number of steps or no longer have
            the same learning rate, where other options of an optimizer are no longer those of the graph, and where it was
            given another state as a whole, as by ``load_state_dict``.
        """
        if any(handle.optimizer.state.get(handle.parameter) is not state for handle, state in self._optimizers):
            return False
        counts = False
        with torch.no_grad():
            for tensor, address, piece in self._held:
                if tensor.data_ptr() != address:
                    piece.copy_(tensor.detach())
                    tensor.data = piece
            for state, name, piece in self._entries:
                found = state.get(name)
                if found is not piece and found is not None:
                    piece.copy_(torch.as_tensor(found).reshape(piece.shape))
                    state[name] = piece
                    counts = counts or name == "step"
        if counts:
            held = ([self._handles[place] for place in unit.places] for unit in self.units)
            self._uneven = any(
                len({_count(handle) for handle in handles if handle is not None}) > 1 for handles in held
            )
        return not self._uneven and self._same_options()

    def _same_options(self) -> bool:
        if any(group[name] is not v and group[name] != v for group, options in self._options for name, v in options):
            return False
        return all(group["lr"] == first["lr"] for first, *others in self._sharing for group in others)

    def snapshot(self) -> Snapshot:
        """Copies of everything that a step changes, the generator included."""
        return Snapshot(
            tuple(value.clone() for value in self.values),
            tuple(state.clone() for state in self.states),
            {key: buffer.clone() for key, buffer in self._parameters.buffers().items()},
            self._counts.clone(),
            tuple(_state(handle)["step"] for handle in self._plain_counts),
            tuple(rates.state() for rates in self._all_rates.values()),
            TorchState.current(),
            self._optimizer.state() if self.outside else None,
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot."""
        with torch.no_grad():
            for held, saved in zip([*self.values, *self.states], [*snapshot.values, *snapshot.states], strict=True):
                held.copy_(saved)
            for key, buffer in self._parameters.buffers().items():
                buffer.copy_(snapshot.buffers[key])
        self._counts.copy_(snapshot.counts)
        for handle, count in zip(self._plain_counts, snapshot.plain_counts, strict=True):
            _state(handle)["step"] = count
        for rates, saved in zip(self._all_rates.values(), snapshot.rates, strict=True):
            rates.restore(saved)
        if snapshot.optimizer is not None:
            self._optimizer.load_state(snapshot.optimizer)
        snapshot.generator.install()

    def _count_on(self, num_steps: int) -> None:
        self._counts += num_steps
        for handle in self._plain_counts:
            _state(handle)["step"] += num_steps

    def _adopt_counts(self) -> Tensor:
        """Step counts that are tensors, as one vector that the optimizers' own counts are elements of."""
        counted = [h for h in self._handles if h is not None and isinstance(_state(h).get("step"), Tensor)]
        steps = [_state(handle)["step"] for handle in counted]
        device = steps[0].device if steps else None  # an optimizer that is fused or capturable counts on the GPU
        vector = torch.tensor([float(step) for step in steps], device=device)
        for place, handle in enumerate(counted):
            _state(handle)["step"] = piece = vector[place]
            self._entries.append((_state(handle), "step", piece))
        return vector

    def _adopt(self, unit: Unit) -> None:
        """Move a unit's parameters and state into vectors, and leave views where they were."""
        tensors = [self._tensors[place] for place in unit.places]
        value = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        self.values.append(value)
        for tensor, piece in zip(tensors, value.split([t.numel() for t in tensors]), strict=True):
            tensor.data = piece.view(tensor.shape)
            self._held.append((tensor, tensor.data_ptr(), piece.view(tensor.shape)))
        for name, first in zip(unit.rule.state, unit.rule.first, strict=True):
            vector = torch.full_like(value, first)
            pieces = vector.split([tensor.numel() for tensor in tensors])
            if unit.rule is _GRADIENT:
                self._gradients += [(t, piece.view(t.shape)) for t, piece in zip(tensors, pieces, strict=True)]
                self.states.append(vector)
                continue
            for place, tensor, piece in zip(unit.places, tensors, pieces, strict=True):
                handle = self._handles[place]
                assert handle is not None
                state = handle.optimizer.state[tensor]
                if isinstance(state.get(name), Tensor):
                    piece.copy_(state[name].reshape(-1))
                state[name] = view = piece.view(tensor.shape)
                self._entries.append((state, name, view))
            self.states.append(vector)


def _constants_of(handles: Sequence[Handle | None]) -> list[tuple[dict[str, Any], list[tuple[str, Any]]]]:
    """Of each parameter group those that a graph holds as constants."""
    groups = {id(handle.group): handle.group for handle in handles if handle is not None}
    return [(group, [item for item in group.items() if item[0] not in _MOVING]) for group in groups.values()]


def _sharing_a_rate(units: Sequence[Unit], handles: Sequence[Handle | None]) -> list[list[dict[str, Any]]]:
    """Parameter groups with one learning rate, unit by unit, where there are several."""
    found = []
    for unit in units:
        members = (handles[place] for place in unit.places)
        groups = list({id(h.group): h.group for h in members if h is not None}.values())
        found += [groups] if len(groups) > 1 else []
    return found


def _state(handle: Handle) -> dict[str, Any]:
    state: dict[str, Any] = handle.optimizer.state[handle.parameter]
    return state


def _count(handle: Handle) -> int:
    """Steps that the optimizer has taken with a parameter; at least the one before its memory was adopted."""
    return int(_state(handle).get("step", 1))


def grouped(
    tensors: Sequence[Tensor], handles: Sequence[Handle | None], each: Sequence[Rule]
) -> tuple[list[Unit], list[Handle | None]]:
    """Parameters by rule, learning rate and steps taken, large ones by themselves; and for each unit one of its handles."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    rules: dict[tuple[Any, ...], Rule] = {}
    for place, (tensor, handle, rule) in enumerate(zip(tensors, handles, each, strict=True)):
        alone = handle is not None and (tensor.numel() >= _LARGE or handle.clip != (None, None))
        steps = None if handle is None else int(handle.optimizer.state.get(handle.parameter, {}).get("step", 0))
        key = (rule.key, _schedule(handle), steps, place if alone else None)
        groups.setdefault(key, []).append(place)
        rules[key] = rule
    units, members, row = [], [], 0
    for key, places in groups.items():
        shapes = tuple(tensors[place].shape for place in places)
        handle = handles[places[0]]
        clip = None if handle is None or handle.clip == (None, None) else _clipper(*handle.clip)
        units.append(Unit(tuple(places), shapes, rules[key], row, clip))
        members.append(handle)
        row += rules[key].width
    return units, members


def together(parts: Sequence[np.ndarray], num_steps: int) -> np.ndarray:
    """The rows of several rules side by side, ``(K, width)``."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([np.empty((num_steps, 0)), *parts], axis=1)


def _schedule(handle: Handle | None) -> Any:
    """Equal for parameters whose learning rates are and will be the same."""
    if handle is None:
        return None
    scheduler = handle.scheduler
    if scheduler is None or len(scheduler.optimizer.param_groups) > 1:
        return (handle.group["lr"], id(handle.group))[: 1 if scheduler is None else 2]
    return handle.group["lr"], type(scheduler).__name__, repr(scheduler.state_dict())


def _clipper(largest_norm: float | None, largest_value: float | None) -> Callable[[Tensor], Tensor]:
    """``clip_grad_norm_`` and ``clip_grad_value_`` of one gradient, as pyro.optim applies them."""

    def clip(gradient: Tensor) -> Tensor:
        if largest_norm is not None:
            norm = torch.linalg.vector_norm(gradient)
            gradient = gradient * (largest_norm / (norm + 1e-6)).clamp(max=1.0)
        if largest_value is not None:
            gradient = gradient.clamp(-largest_value, largest_value)
        return gradient

    return clip


def rules_of(handles: Sequence[Handle | None]) -> list[Rule | None]:
    """The rule of each parameter: one that leaves it alone where it has no handle, None where there is no rule."""
    # These schedules turn momentum down as the rate goes up, which a rule has as constants.
    odd = (OneCycleLR, CyclicLR)
    return [
        _FROZEN if h is None else None if isinstance(h.scheduler, odd) else rule_of(h.optimizer, h.group)
        for h in handles
    ]


def _no_rows(done: int, rates: np.ndarray) -> np.ndarray:
    return np.empty((len(rates), 0))


_FROZEN = Rule(("frozen",), (), (), 0, _no_rows, lambda p, g, state, row: (p, []))
_GRADIENT = Rule(("gradient",), ("gradient",), (0.0,), 0, _no_rows, lambda p, g, state, row: (p, [g]))


def _rate_key(handle: Handle) -> tuple[int, int]:
    return id(handle.optimizer), id(handle.group)


def _distinct_rates(handles: Sequence[Handle | None], members: Sequence[Handle | None]) -> dict[tuple[int, int], Rates]:
    """The rates that are asked for, one a unit, and those of schedules, which must move on with every step."""
    found: dict[tuple[int, int], Rates] = {}
    for handle in [*members, *handles]:
        if handle is None:
            continue
        rates = Rates(handle.optimizer, handle.group, handle.scheduler)
        if handle in members or rates.moving:
            found.setdefault(_rate_key(handle), rates)
    return found
