"""Which parameters lie in one vector, and by which rules and rates they are updated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR

from vipack.engine.optimizers.fit_optimizer import Handle
from vipack.engine.optimizers.memory_holders import in_one_stretch
from vipack.engine.optimizers.rates import Rates
from vipack.engine.optimizers.update_rules import Rule, rule_of

__all__ = [
    "FROZEN",
    "GRADIENT",
    "ParameterGroup",
    "distinct_rates",
    "gradient_of",
    "grouped",
    "joined_coefficients",
    "rules_of",
    "split_parameters",
]

_LARGE = 16_384  # elements from which a parameter is a vector of its own, to save gathering its gradient


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are updated together, as one vector, by one rule with one learning rate.

    Attributes:
        indices: of its parameters in the graph's layout.
        shapes: their shapes, in that order.
        start: of the rule's coefficients among all of a step.
        clip: a function of a gradient, for optimizers that clip each parameter by itself.
    """

    indices: tuple[int, ...]
    shapes: tuple[torch.Size, ...]
    rule: Rule
    start: int
    clip: Callable[[Tensor], Tensor] | None = None

    @property
    def size(self) -> int:
        """Elements of the vector."""
        return sum(shape.numel() for shape in self.shapes)


def grouped(
    tensors: Sequence[Tensor],
    handles: Sequence[Handle | None],
    each: Sequence[Rule],
    patterns: Sequence[Any] | None = None,
    staying: Sequence[bool] | None = None,
) -> tuple[list[ParameterGroup], list[Handle | None]]:
    """Parameters by rule, learning rate and steps taken, large ones by themselves; and for each group one of its handles.

    Args:
        patterns: equal for parameters that are always updated together; all are by default.
        staying: for each parameter, whether it must stay in the memory that it lies in; none by default. These are in one
            group only where they lie there one after the other.
    """
    by_key: dict[tuple[Any, ...], list[int]] = {}
    rules: dict[tuple[Any, ...], Rule] = {}
    for index, (tensor, handle, rule) in enumerate(zip(tensors, handles, each, strict=True)):
        alone = handle is not None and (tensor.numel() >= _LARGE or handle.clip != (None, None))
        steps = None if handle is None else int(handle.optimizer.state.get(handle.parameter, {}).get("step", 0))
        pattern = None if patterns is None else patterns[index]
        key = (rule.key, _schedule(handle), steps, pattern, index if alone else None)
        by_key.setdefault(key, []).append(index)
        rules[key] = rule
    groups, members, start = [], [], 0
    together = by_key.items() if staying is None else _by_stretch(by_key, tensors, staying)
    for key, indices in together:
        shapes = tuple(tensors[index].shape for index in indices)
        handle = handles[indices[0]]
        clip = None if handle is None or handle.clip == (None, None) else _clipper(*handle.clip)
        groups.append(ParameterGroup(tuple(indices), shapes, rules[key], start, clip))
        members.append(handle)
        start += rules[key].num_coefficients
    return groups, members


def _by_stretch(
    by_key: Mapping[Any, Sequence[int]], tensors: Sequence[Tensor], staying: Sequence[bool]
) -> list[tuple[Any, list[int]]]:
    """Of each group those that may be moved, and each stretch of memory whose parameters stay there."""
    split = []
    for key, indices in by_key.items():
        moved = [index for index in indices if not staying[index]]
        stretches: list[list[int]] = []
        for index in (index for index in indices if staying[index]):
            if stretches and in_one_stretch(tensors[stretches[-1][-1]], tensors[index]):
                stretches[-1].append(index)
            else:
                stretches.append([index])
        split += [(key, some) for some in (moved, *stretches) if some]
    return split


def split_parameters(groups: Sequence[ParameterGroup], values: Sequence[Tensor]) -> list[Tensor]:
    """The parameters in the layout's order and shapes, out of the groups' vectors."""
    parameters: list[Any] = [None] * sum(len(group.indices) for group in groups)
    for group, value in zip(groups, values, strict=True):
        pieces = value.split([shape.numel() for shape in group.shapes])
        for index, shape, piece in zip(group.indices, group.shapes, pieces, strict=True):
            parameters[index] = piece.reshape(shape)
    return parameters


def gradient_of(group: ParameterGroup, gradients: Mapping[int, Tensor]) -> Tensor:
    """The gradient of a group's vector, clipped where its parameters are."""
    own = [gradients[index] for index in group.indices]
    if group.clip is not None:
        own = [group.clip(gradient) for gradient in own]
    flat = [gradient.reshape(-1) for gradient in own]
    return torch.cat(flat) if len(flat) > 1 else flat[0]


def joined_coefficients(of_groups: Sequence[np.ndarray], num_steps: int) -> np.ndarray:
    """The coefficients of several groups side by side, ``(K, number of all)``."""
    if len(of_groups) == 1:
        return of_groups[0]
    return np.concatenate([np.empty((num_steps, 0)), *of_groups], axis=1)


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
    """The rule of each parameter: ``FROZEN`` where it has no handle, None where its optimizer has no rule here."""
    # These schedules change momentum with the rate, which is a constant of a rule.
    odd = (OneCycleLR, CyclicLR)
    return [
        FROZEN if h is None else None if isinstance(h.scheduler, odd) else rule_of(h.optimizer, h.group)
        for h in handles
    ]


def _no_coefficients(done: int, rates: np.ndarray) -> np.ndarray:
    return np.empty((len(rates), 0))


FROZEN = Rule(("frozen",), (), (), 0, _no_coefficients, lambda p, g, state, _: (p, []))
GRADIENT = Rule(("gradient",), ("gradient",), (0.0,), 0, _no_coefficients, lambda p, g, state, _: (p, [g]))


def distinct_rates(handles: Sequence[Handle | None], members: Sequence[Handle | None]) -> dict[int, Rates]:
    """The rates that are asked for, by the ``id`` of their optimizer, and those of schedules, which must move on with every step."""
    by_optimizer: dict[int, Rates] = {}
    for handle in [*members, *handles]:
        if handle is None:
            continue
        rates = by_optimizer.get(id(handle.optimizer)) or Rates(handle.optimizer, handle.scheduler)
        if handle in members or rates.moving:
            by_optimizer.setdefault(id(handle.optimizer), rates).handles.append(handle)
    return by_optimizer
