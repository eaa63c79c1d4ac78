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

__all__ = ["FROZEN", "GRADIENT", "ParameterGroup", "distinct_rates", "grouped", "rate_key", "rules_of", "together"]

_LARGE = 16_384  # elements from which a parameter is a vector of its own, to save gathering its gradient


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are updated together, as one vector, by one rule with one learning rate.

    Attributes:
        places: indices of its parameters in the graph's layout.
        shapes: their shapes, in that order.
        row: where the rule's numbers start in the step's row.
        clip: a function of a gradient, for optimizers that clip each parameter by itself.
    """

    places: tuple[int, ...]
    shapes: tuple[torch.Size, ...]
    rule: Rule
    row: int
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
    for place, (tensor, handle, rule) in enumerate(zip(tensors, handles, each, strict=True)):
        alone = handle is not None and (tensor.numel() >= _LARGE or handle.clip != (None, None))
        steps = None if handle is None else int(handle.optimizer.state.get(handle.parameter, {}).get("step", 0))
        pattern = None if patterns is None else patterns[place]
        key = (rule.key, _schedule(handle), steps, pattern, place if alone else None)
        by_key.setdefault(key, []).append(place)
        rules[key] = rule
    groups, members, row = [], [], 0
    parted = by_key.items() if staying is None else _parted(by_key, tensors, staying)
    for key, places in parted:
        shapes = tuple(tensors[place].shape for place in places)
        handle = handles[places[0]]
        clip = None if handle is None or handle.clip == (None, None) else _clipper(*handle.clip)
        groups.append(ParameterGroup(tuple(places), shapes, rules[key], row, clip))
        members.append(handle)
        row += rules[key].width
    return groups, members


def _parted(
    by_key: Mapping[Any, Sequence[int]], tensors: Sequence[Tensor], staying: Sequence[bool]
) -> list[tuple[Any, list[int]]]:
    """Of each group those that may be moved, and each stretch of memory whose parameters stay there."""
    found = []
    for key, places in by_key.items():
        moved = [place for place in places if not staying[place]]
        stretches: list[list[int]] = []
        for place in (place for place in places if staying[place]):
            if stretches and in_one_stretch(tensors[stretches[-1][-1]], tensors[place]):
                stretches[-1].append(place)
            else:
                stretches.append([place])
        found += [(key, some) for some in (moved, *stretches) if some]
    return found


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
        FROZEN if h is None else None if isinstance(h.scheduler, odd) else rule_of(h.optimizer, h.group)
        for h in handles
    ]


def _no_rows(done: int, rates: np.ndarray) -> np.ndarray:
    return np.empty((len(rates), 0))


FROZEN = Rule(("frozen",), (), (), 0, _no_rows, lambda p, g, state, row: (p, []))
GRADIENT = Rule(("gradient",), ("gradient",), (0.0,), 0, _no_rows, lambda p, g, state, row: (p, [g]))


def rate_key(handle: Handle) -> tuple[int, int]:
    """Equal for parameters that have one learning rate, in one group of one optimizer."""
    return id(handle.optimizer), id(handle.group)


def distinct_rates(handles: Sequence[Handle | None], members: Sequence[Handle | None]) -> dict[tuple[int, int], Rates]:
    """The rates that are asked for, one a group, and those of schedules, which must move on with every step."""
    found: dict[tuple[int, int], Rates] = {}
    for handle in [*members, *handles]:
        if handle is None:
            continue
        rates = Rates(handle.optimizer, handle.group, handle.scheduler)
        if handle in members or rates.moving:
            found.setdefault(rate_key(handle), rates).handles.append(handle)
    return found
