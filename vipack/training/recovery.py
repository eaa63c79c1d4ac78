"""A step size that was too large: seen early, and made smaller from the best state on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vipack.engine.optimizers.fit_optimizer import FitOptimizer, make_optimizer
from vipack.program import Parameters
from vipack.types import Stopped, StopReason

__all__ = ["ATTEMPTS", "Exploding", "slower"]

ATTEMPTS = 4  # after which a divergence is final
_FACTOR = 0.25  # on the learning rate, each time
_WINDOW = 100  # steps


@dataclass(frozen=True)
class Exploding:
    """Stop as diverged when the loss stands far above where it began.

    The median of the last hundred losses is compared with that of the first hundred: a rise of 20 times their spread, and
    of more than a nat, is no noise.
    """

    def __call__(self, losses: Sequence[float], seconds: float) -> Stopped | None:
        if len(losses) < 2 * _WINDOW:
            return None
        low, middle, high = np.quantile(np.asarray(losses[:_WINDOW]), [0.25, 0.5, 0.75])
        now = float(np.median(np.asarray(losses[-_WINDOW:])))
        if now <= middle + max(1.0, 20 * (high - low)):
            return None
        return Stopped(StopReason.DIVERGED, f"the loss rose from {middle:.4g} to {now:.4g} in {len(losses)} steps")


def slower(optimizer: FitOptimizer, parameters: Parameters) -> FitOptimizer:
    """The default optimizer at the same step of its schedule, with a quarter of its learning rate and no moments."""
    state = optimizer.state()
    for group in state["state"]["param_groups"]:
        group["lr"] *= _FACTOR
        group["initial_lr"] *= _FACTOR
    state["state"]["state"], state["stepped"] = {}, False
    state["scheduler"]["base_lrs"] = [rate * _FACTOR for rate in state["scheduler"]["base_lrs"]]
    fresh = make_optimizer(None, parameters, None)
    fresh.load_state(state)
    return fresh
