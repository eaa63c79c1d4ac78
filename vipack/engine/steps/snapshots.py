"""A copy of everything that a step changes, and the names of what stands in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vipack.engine.optimizers.parameter_groups import ParameterGroup
from vipack.program import TorchState

__all__ = ["Names", "Snapshot"]


@dataclass(frozen=True)
class Snapshot:
    """Copies of everything that a step changes.

    Attributes:
        counts: of steps, by parameter group or parameter.
        rates: learning rates, with the state of their schedules.
        optimizer: the whole state of an optimizer that takes its steps itself.
    """

    values: tuple[Tensor, ...]
    states: tuple[Tensor, ...]
    buffers: tuple[Tensor, ...]
    counts: tuple[float, ...]
    rates: tuple[Any, ...]
    generator: TorchState
    optimizer: dict[str, Any] | None = None


@dataclass(frozen=True)
class Names:
    """What stands where in a memory.

    Attributes:
        pieces: of each vector of parameters, their names and sizes in order.
        owners: for each state vector, the vector of parameters that it belongs to.
        kinds: for each state vector, the optimizer's name for it.
    """

    pieces: tuple[tuple[tuple[str, int], ...], ...]
    owners: tuple[int, ...]
    kinds: tuple[str, ...]

    @classmethod
    def of(cls, groups: Sequence[ParameterGroup], names: Sequence[str]) -> Names:
        """The names in groups, from those of parameters by index."""
        states = [(index, kind) for index, group in enumerate(groups) for kind in group.rule.state]
        return cls(
            tuple(
                tuple((names[index], shape.numel()) for index, shape in zip(group.indices, group.shapes, strict=True))
                for group in groups
            ),
            tuple(index for index, _ in states),
            tuple(kind for _, kind in states),
        )

    def at(self, vector: int, chosen: Tensor) -> str:
        """The parameter that the first chosen element of a vector belongs to; of fits side by side, that of any."""
        flat = chosen.reshape(-1, chosen.shape[-1]).any(0)
        element, end = int(flat.nonzero()[0]), 0
        for name, size in self.pieces[vector]:
            end += size
            if element < end:
                return name
        raise IndexError(element)
