"""Numbers that change from step to step, as functions of the step: warm-ups of a weight, temperatures that fall."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vipack.errors import UsageError
from vipack.hints import checked_class

__all__ = ["Cosine", "Cyclical", "Exponential", "Function", "Linear", "Schedule"]


class Schedule(ABC):
    """A function from the number of the gradient step (from 0) to a number."""

    @abstractmethod
    def __call__(self, step: int) -> float:
        """The number of the gradient step `step`."""


@dataclass(frozen=True)
class _Ramp(Schedule):
    """From `start` to `end`: after `delay` steps, over `steps` more."""

    start: float
    end: float
    steps: int
    delay: int = 0

    def __post_init__(self) -> None:
        _check(self)


@checked_class
@dataclass(frozen=True)
class Linear(_Ramp):
    """`start` for `delay` steps, then a straight line that is at `end` after `steps` more, and stays there."""

    def __call__(self, step: int) -> float:
        """See :class:`Schedule`."""
        return _between(self.start, self.end, _share(step, self.steps, self.delay))


@checked_class
@dataclass(frozen=True)
class Cosine(_Ramp):
    """`start` for `delay` steps, then half a cosine that is at `end` after `steps` more, and stays there."""

    def __call__(self, step: int) -> float:
        """See :class:`Schedule`."""
        share = _share(step, self.steps, self.delay)
        return _between(self.start, self.end, (1.0 - math.cos(math.pi * share)) / 2.0)


@checked_class
@dataclass(frozen=True)
class Exponential(_Ramp):
    """`start` for `delay` steps, then a constant factor each step, until it is at `end` after `steps` more, and stays there.

    As for the temperature of a Gumbel-softmax; both ends are positive.
    """

    def __post_init__(self) -> None:
        _check(self)
        for name in ("start", "end"):
            if not getattr(self, name) > 0:
                raise UsageError(f"Exponential: {name} must be positive, found {getattr(self, name)!r}.")

    def __call__(self, step: int) -> float:
        """See :class:`Schedule`."""
        share = _share(step, self.steps, self.delay)
        if share in (0.0, 1.0):
            return self.end if share else self.start
        return math.exp(_between(math.log(self.start), math.log(self.end), share))


@checked_class
@dataclass(frozen=True)
class Cyclical(Schedule):
    """Every `period` steps a line from `start` to `end` over the first `ratio` of them, and `end` for the rest.

    Attributes:
        cycles: how many, after which it stays at `end`; None for no last one.

    Source: Fu et al. (2019), arXiv:1903.10145.
    """

    period: int
    ratio: float = 0.5
    start: float = 0.0
    end: float = 1.0
    cycles: int | None = None

    def __post_init__(self) -> None:
        _check(self)
        if not 0 < self.ratio <= 1:
            raise UsageError(f"Cyclical: ratio must be above 0 and at most 1, found {self.ratio!r}.")

    def __call__(self, step: int) -> float:
        """See :class:`Schedule`."""
        if self.cycles is not None and step >= self.cycles * self.period:
            return self.end
        return _between(self.start, self.end, min(1.0, step % self.period / (self.ratio * self.period)))


@checked_class
@dataclass(frozen=True, repr=False)
class Function(Schedule):
    """A function of your own, from the number of the step to a number, where only a schedule is understood, as in ``fixed``."""

    function: Callable[[int], float]

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise UsageError(f"Function: expected a function of the step, found {self.function!r}.")

    def __call__(self, step: int) -> float:
        """See :class:`Schedule`."""
        return self.function(step)

    def __repr__(self) -> str:
        return f"Function({getattr(self.function, '__qualname__', self.function)})"


KINDS: dict[str, Any] = {
    kind.__name__: kind for kind in (Linear, Cosine, Exponential, Cyclical)
}  # that a file can hold


def _share(step: int, steps: int, delay: int) -> float:
    return min(1.0, max(0, step - delay) / steps)


def _between(start: float, end: float, share: float) -> float:
    return end if share == 1.0 else start + (end - start) * share


def _check(schedule: Any) -> None:
    """
    Raises:
        UsageError: an end is no finite number, or a number of steps none that a schedule can have.
    """
    kind = type(schedule).__name__
    for name, least in (("steps", 1), ("period", 1), ("cycles", 1), ("delay", 0)):
        value = getattr(schedule, name, None)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise UsageError(f"{kind}: {name} must be an integer of at least {least}, found {value!r}.")
    for name in ("start", "end", "ratio"):
        value = getattr(schedule, name, 0.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UsageError(f"{kind}: {name} must be a finite number, found {value!r}.")
