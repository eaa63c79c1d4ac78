"""Whether a run ended worse than it was, beyond what noise explains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vipack.errors import DivergenceWarning, warn
from vipack.training.stopping import without_spikes
from vipack.training.trainer import Trainer
from vipack.types import StopReason

__all__ = ["Worsening", "warn_if_worse", "worsening"]

_BLOCKS = 20  # of a run, whose means are compared
_LEAST_STEPS, _LEAST_BLOCKS = 20, 10  # of a block, and blocks of a run that is long enough
_LEAST = 0.05  # nats that matter; a run without noise swings about its optimum by less
_ROUNDING = 1e-6  # of a sum of float32
_BATCHES = 10  # of a block, whose means tell its noise
_TIMES = 6.0  # the noise: the best of twenty blocks lies two standard errors below their mean by chance alone
_SHARE = 0.4  # of the way that block means would go in all, were they to move as they do in the later half


@dataclass(frozen=True)
class Worsening:
    """How far the mean loss at the end of a run lies above the lowest along it.

    Attributes:
        rise, noise: nats, of the mean of a block of steps.
        best: mean loss of the block of steps with the lowest one, nats.
        steps: first and last step of that block.
        num_last: steps of the last block.
    """

    rise: float
    noise: float
    best: float
    steps: tuple[int, int]
    num_last: int


def worsening(losses: Sequence[float]) -> Worsening | None:
    """How a run has worsened; None where it has not, where noise may explain it, and where the run is short.

    The run is cut into 20 blocks, each clipped to its central 95%. The noise of a difference of two comes from the batch means
    within them, and from how neighbouring blocks differ in the later half, since parameters that wander move whole blocks.

    Args:
        losses: of every step, nats.
    """
    size = max(_LEAST_STEPS, len(losses) // _BLOCKS)
    count = len(losses) // size
    if count < _LEAST_BLOCKS:
        return None
    blocks = np.asarray(losses[len(losses) - count * size :], dtype=np.float64).reshape(count, size)
    if not np.isfinite(blocks).all():
        return None
    blocks = np.stack([without_spikes(block) for block in blocks])
    means = blocks.mean(1)
    best = int(means.argmin())
    rise = float(means[-2:].min() - means[best])  # of both the last blocks: noise that lasts longer than one is no rise
    around = max(map(_noise_of_mean, blocks[max(0, best - 1) : best + 2]))  # of one block it is not known well enough
    within = math.hypot(around, _noise_of_mean(blocks[-1]))
    between = float(np.sort(np.abs(np.diff(means[count // 2 :])))[:-2].mean())
    noise = max(within, between)
    if rise <= max(_LEAST, _TIMES * within, _SHARE * count * between, _ROUNDING * abs(means[-1])):
        return None
    first = len(losses) - (count - best) * size
    return Worsening(rise, noise, float(means[best]), (first + 1, first + size), size)


def _noise_of_mean(block: np.ndarray) -> float:
    """The standard error of a block's mean, from how the means of consecutive batches differ, so that a trend does not count."""
    size = len(block) // _BATCHES
    means = block[: size * _BATCHES].reshape(_BATCHES, size).mean(1)
    return float(np.sqrt((np.diff(means) ** 2).mean() / 2 / _BATCHES))


def warn_if_worse(trainer: Trainer) -> None:
    """Say so where the run has ended worse than it was; a loss whose schedule is known may rise.

    Warns:
        DivergenceWarning: it has.
    """
    if trainer.stopped.reason in (StopReason.DIVERGED, StopReason.INTERRUPTED) or _has_schedule(trainer.prepared.loss):
        return
    rising = worsening(trainer.state.losses)
    if rising is None:
        return
    first, last = rising.steps
    warn(
        DivergenceWarning(
            f"the run ended worse than it was: the mean loss of its last {rising.num_last} steps is "
            f"{rising.best + rising.rise:.6g} nats, that of steps {first} to {last} was {rising.best:.6g} (their noise is "
            f"{rising.noise:.2g}). Lower the learning rate, let it fall, or take fewer steps and more particles. Where the loss itself "
            "changes along the run, as with a weight of the KL that a callback raises, a rise is no fault: compare "
            "fit.elbo() instead."
        )
    )


def _has_schedule(loss: Any) -> bool:
    """Whether the loss of equal parameters changes from step to step, as far as the objective shows it."""
    return bool(getattr(loss, "schedules", None)) or callable(getattr(loss, "beta", None))
