"""When a run ends: rules that look at the losses so far and give a reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vipack.errors import UsageError
from vipack.hints import checked_class
from vipack.importance import mean_and_se
from vipack.types import Estimate, Stopped, StopReason

__all__ = [
    "Converged",
    "Settled",
    "SmallGain",
    "StopRule",
    "TimeLimit",
    "asked",
    "batch_means",
    "rules_of",
    "without_spikes",
]

_BATCHES = 10  # of losses, whose means tell the noise of theirs


class StopRule(Protocol):
    """Looks at a run every few steps; it must depend on its arguments alone, so that a resumed run ends alike."""

    def __call__(self, losses: Sequence[float], seconds: float) -> Stopped | None:
        """The reason to stop now, or None.

        Args:
            losses: of every step so far, nats.
            seconds: trained so far.
        """


@checked_class
@dataclass(frozen=True)
class Converged:
    """Stop when the smoothed loss no longer falls by more than its own noise.

    The mean loss of the last third of the run is compared with that of the third before it; their standard errors come
    from batch means, which allow for neighbouring losses being alike. A third, rather than a fixed window, so that slow
    progress is still seen. Each third is clipped to its central 95% first: with a spike once in 500 steps the plain means
    stopped a run with 45 nats still to gain (see tests/training/test_stopping.py).

    Attributes:
        tolerance: how many standard errors a gain must exceed to count.
        min_steps: never stop before.
    """

    tolerance: float = 1.0
    min_steps: int = 600

    def __post_init__(self) -> None:
        if isinstance(self.tolerance, bool) or not isinstance(self.tolerance, int | float) or not self.tolerance >= 0:
            raise UsageError(f"Converged: tolerance must be a number of at least 0, found {self.tolerance!r}.")
        if isinstance(self.min_steps, bool) or not isinstance(self.min_steps, int) or self.min_steps < 30:
            raise UsageError(f"Converged: min_steps must be an integer of at least 30, found {self.min_steps!r}.")

    def __call__(self, losses: Sequence[float], seconds: float) -> Stopped | None:
        """See :class:`StopRule`."""
        count = len(losses)
        if count < self.min_steps:
            return None
        third = count // 3
        gain, noise = _gain(losses, third, without_spikes)
        if gain > self.tolerance * noise:
            return None
        return Stopped(
            StopReason.CONVERGED,
            f"over the last {third} steps the loss fell by {gain:.3g} nats, its noise is {noise:.2g}",
        )


@dataclass(frozen=True)
class Settled:
    """Stop when it is sure that the last third of a run gained next to nothing over the third before it.

    Where :class:`Converged` asks whether a gain can be told from noise, this asks whether it matters: noise that may hide
    a gain lets the run go on. A run that gains so little in a third of its length gains little more by going on as long.

    Attributes:
        least: nats that a gain must reach to matter; two of its standard errors must be less.
        min_steps: never stop before.
    """

    least: float = 0.003
    min_steps: int = 400

    def __call__(self, losses: Sequence[float], seconds: float) -> Stopped | None:
        third = len(losses) // 3
        if len(losses) < self.min_steps:
            return None
        gain, noise = _gain(losses, third)
        if not max(gain, 2 * noise) < self.least:
            return None
        return Stopped(StopReason.CONVERGED, f"over the last {third} of {len(losses)} steps it gained {gain:.4f} nats")


@checked_class
@dataclass(frozen=True)
class SmallGain:
    """Stop when the loss has fallen by less than a share of itself; for losses without noise, such as those of coordinate ascent.

    Attributes:
        share: of the loss.
        period: steps over which the gain is taken, and after which this looks again.
        after: steps at the beginning that do not count.
    """

    share: float = 1e-4
    period: int = 10
    after: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.share, bool) or not isinstance(self.share, int | float) or not self.share >= 0:
            raise UsageError(f"SmallGain: share must be a number of at least 0, found {self.share!r}.")
        if isinstance(self.period, bool) or not isinstance(self.period, int) or self.period < 1:
            raise UsageError(f"SmallGain: period must be an integer of at least 1, found {self.period!r}.")
        if isinstance(self.after, bool) or not isinstance(self.after, int) or self.after < 0:
            raise UsageError(f"SmallGain: after must be an integer of at least 0, found {self.after!r}.")

    def __call__(self, losses: Sequence[float], seconds: float) -> Stopped | None:
        if len(losses) <= self.period + self.after:
            return None
        gain = losses[-1 - self.period] - losses[-1]
        if gain > self.share * abs(losses[-1]):
            return None
        return Stopped(StopReason.CONVERGED, f"the last {self.period} of {len(losses)} steps gained {gain:.3g} nats")


@checked_class
@dataclass(frozen=True)
class TimeLimit:
    """Stop after so many seconds of training."""

    seconds: float

    def __post_init__(self) -> None:
        if isinstance(self.seconds, bool) or not isinstance(self.seconds, int | float) or not self.seconds > 0:
            raise UsageError(f"TimeLimit: expected a positive number of seconds, found {self.seconds!r}.")

    def __call__(self, losses: Sequence[float], seconds: float) -> Stopped | None:
        """See :class:`StopRule`."""
        if seconds < self.seconds:
            return None
        return Stopped(StopReason.TIME, f"{seconds:.1f} s of the {self.seconds:g} s allowed")


def rules_of(stop: object) -> tuple[StopRule, ...]:
    """One rule or several as a tuple.

    Raises:
        UsageError: something that is no rule.
    """
    rules = tuple(stop) if isinstance(stop, tuple | list) else (stop,)
    for rule in rules:
        if not callable(rule) or isinstance(rule, type):
            raise UsageError(
                f"stop: expected a rule such as vipack.Converged() or vipack.TimeLimit(60), found {rule!r}; "
                "for a number of steps use steps=."
            )
    return rules


def asked(rule: StopRule, losses: Sequence[float], seconds: float) -> Stopped | None:
    """What `rule` says.

    Raises:
        UsageError: it says something else than a Stopped or None.
    """
    answer = rule(losses, seconds)
    if answer is None or isinstance(answer, Stopped):
        return answer
    name = getattr(rule, "__name__", type(rule).__name__)
    raise UsageError(
        f"stop: the rule {name} returned {answer!r}, expected None to go on or a vipack.types.Stopped(reason, detail) to stop."
    )


def _gain(
    losses: Sequence[float], third: int, cleaned: Callable[[np.ndarray], np.ndarray] = lambda values: values
) -> tuple[float, float]:
    """How much less the last `third` losses are than the third before, in the mean, and the standard error, nats."""
    recent = np.asarray(losses[-2 * third :], dtype=np.float64)
    before, after = (batch_means(cleaned(values)) for values in (recent[:third], recent[third:]))
    return before.value - after.value, math.hypot(before.se, after.se)


def without_spikes(values: np.ndarray) -> np.ndarray:
    """The values clipped to their central 95%."""
    low, high = np.quantile(values, [0.025, 0.975])
    clipped: np.ndarray = np.clip(values, low, high)
    return clipped


def batch_means(values: np.ndarray) -> Estimate:
    """Mean and its standard error from the means of consecutive batches."""
    size = len(values) // _BATCHES
    means = values[: size * _BATCHES].reshape(_BATCHES, size).mean(1)
    return Estimate(float(values.mean()), mean_and_se(means).se)
