"""Numbers that follow a schedule: part of each batch, so that every engine is given them as it is given rows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from vipack.errors import UsageError
from vipack.program import Arguments
from vipack.schedules import Schedule
from vipack.training.streams import BatchStream, WrappedStream

__all__ = ["ScheduledStream", "first_values", "refuse_schedules", "schedules_in"]


def schedules_in(fixed: Mapping[str, Any]) -> dict[str, Schedule]:
    """Those of the fixed arguments that are schedules."""
    return {name: value for name, value in fixed.items() if isinstance(value, Schedule)}


def refuse_schedules(fixed: object, where: str, cure: str = "") -> None:
    """
    Args:
        cure: what else may be done.

    Raises:
        UsageError: one of the fixed arguments is a schedule.
    """
    for name in schedules_in(fixed) if isinstance(fixed, Mapping) else ():
        raise UsageError(f"fixed[{name!r}]: {where} takes no schedule; {cure}give a number.")


def first_values(fixed: Mapping[str, Any], dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """The fixed arguments with a tensor ``()`` in place of each schedule, which holds the number of step 0."""
    return {
        name: torch.tensor(_value(f"fixed[{name!r}]", value, 0), dtype=dtype, device=device)
        if isinstance(value, Schedule)
        else value
        for name, value in fixed.items()
    }


class ScheduledStream(WrappedStream):
    """Batches with the numbers of their steps; where it stands is the step that schedules are asked for.

    Args:
        inner: the batches, whose fixed arguments have a tensor ``()`` for each schedule.
        schedules, cells: those of fixed arguments and these tensors, which are written to: they hold the numbers of the last
            step taken, so that whatever is evaluated in between has them.
        own: the objective's, by name.
    """

    def __init__(
        self,
        inner: BatchStream,
        schedules: Mapping[str, Schedule],
        cells: Mapping[str, Tensor],
        own: Mapping[str, Callable[[int], float]],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__(inner)
        self._names = list(schedules)
        self._functions: list[tuple[str, Callable[[int], float]]] = [
            *((f"fixed[{name!r}]", schedule) for name, schedule in schedules.items()),
            *((f"loss: {name}", function) for name, function in own.items()),
        ]
        self._own = tuple(torch.zeros((), dtype=dtype, device=device) for _ in own)
        self.cells = (*(cells[name] for name in schedules), *self._own)
        self._position = 0

    def __next__(self) -> Arguments:
        batch = self._with_numbers(next(self._inner))
        self._move_on(1)
        return batch

    def peek(self) -> Arguments:
        return self._with_numbers(self._inner.peek())

    def indices(self, number: int) -> Tensor | None:
        self._move_on(number)
        return super().indices(number)

    def whole(self) -> Arguments | None:
        whole = self._inner.whole()
        return None if whole is None else dataclasses.replace(whole, numbers=self._own)

    def scheduled(self, number: int) -> list[Tensor]:
        steps = range(self._position, self._position + number)
        return [
            torch.tensor([_value(name, function, step) for step in steps], dtype=cell.dtype, device=cell.device)
            for (name, function), cell in zip(self._functions, self.cells, strict=True)
        ]

    def state(self) -> dict[str, Any]:
        return {**super().state(), "step": self._position}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self._position = int(state["step"])
        self._write(max(0, self._position - 1))

    def _with_numbers(self, batch: Arguments) -> Arguments:
        numbers = [column[0] for column in self.scheduled(1)]
        count = len(self._names)
        kwargs = {**batch.kwargs, **dict(zip(self._names, numbers[:count], strict=True))}
        return dataclasses.replace(batch, kwargs=kwargs, numbers=tuple(numbers[count:]))

    def _move_on(self, number: int) -> None:
        self._position += number
        self._write(self._position - 1)

    def _write(self, step: int) -> None:
        for (name, function), cell in zip(self._functions, self.cells, strict=True):
            cell.fill_(_value(name, function, step))


def _value(name: str, function: Callable[[int], float], step: int) -> float:
    """
    Raises:
        UsageError: the schedule raised, or gave no finite number of a kind that it may be.
    """
    try:
        value = function(step)
        number = float(value)
    except Exception as error:
        raise UsageError(
            f"{name}: the schedule {function!r} raised {type(error).__name__} at step {step}: {error}; it must give a number "
            "for every step of the run."
        ) from error
    if isinstance(value, bool) or not math.isfinite(number):
        raise UsageError(f"{name}: the schedule {function!r} gave {value!r} at step {step}; expected a finite number.")
    if name in ("loss: beta", "loss: free_bits") and number < 0:
        raise UsageError(f"{name}: the schedule {function!r} gave {value!r} at step {step}; expected at least 0.")
    return number
