"""Numbers of the step at hand that an objective reads, such as a weight that follows a schedule."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from torch import Tensor

__all__ = ["numbers_of_step", "step_numbers"]

_NUMBERS: ContextVar[tuple[Tensor, ...]] = ContextVar("numbers", default=())


@contextlib.contextmanager
def numbers_of_step(numbers: tuple[Tensor, ...]) -> Iterator[None]:
    """Inside the block, :func:`step_numbers` gives these."""
    token = _NUMBERS.set(numbers)
    try:
        yield
    finally:
        _NUMBERS.reset(token)


def step_numbers() -> tuple[Tensor, ...]:
    """Tensors ``()``, in the order of the objective's schedules; none outside of a fit's steps."""
    return _NUMBERS.get()
