"""Learning rates of the coming steps, from whatever schedule the user's optimizer has."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import numpy as np
from pyro.optim.clipped_adam import ClippedAdam
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from vipack.compat.optimizer_state import COUNTS, advanced
from vipack.engine.optimizers.fit_optimizer import CosineRate, Handle

__all__ = ["Rates"]


class Rates:
    """The learning rate of one parameter group, step by step; taking rates moves the schedule on.

    Attributes:
        one_by_one: whether a rate depends on the loss of the step before.
        moving: whether taking a rate changes anything.
        handles: the parameters of the group.
    """

    def __init__(
        self, optimizer: Optimizer, group: dict[str, Any], scheduler: LRScheduler | ReduceLROnPlateau | None
    ) -> None:
        self._optimizer = optimizer
        self._group = group
        self._scheduler = scheduler
        self.handles: list[Handle] = []
        self.one_by_one = isinstance(scheduler, ReduceLROnPlateau)
        self.moving = scheduler is not None or isinstance(optimizer, ClippedAdam)

    def moves_with(self, stepping: Collection[int]) -> bool:
        """Whether a step of these handles (by ``id``) moves the rate on: a schedule moves on with every step."""
        return self._scheduler is not None or any(id(handle) in stepping for handle in self.handles)

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return float(self._group["lr"])

    def take(self, num_steps: int) -> np.ndarray:
        """Rates of the next `num_steps` steps, ``(K,)`` float64; the optimizer and its schedule stand after them."""
        group, scheduler = self._group, self._scheduler
        if isinstance(self._optimizer, ClippedAdam):
            rates = group["lr"] * group["lrd"] ** np.arange(1, num_steps + 1)
            group["lr"] = float(rates[-1])
            if scheduler is None:
                return np.asarray(rates)
        if scheduler is None or self.one_by_one:
            return np.full(num_steps, group["lr"], dtype=np.float64)
        if (
            COUNTS.there
            and isinstance(scheduler, LambdaLR)
            and all(isinstance(f, CosineRate) for f in scheduler.lr_lambdas)
        ):
            return self._cosine(scheduler, num_steps)
        rates = np.empty(num_steps)
        for step in range(num_steps):
            rates[step] = group["lr"]
            scheduler.step()
        return rates

    def look(self, loss: float) -> None:
        """Show a schedule that goes by losses the last one."""
        if isinstance(self._scheduler, ReduceLROnPlateau):
            self._scheduler.step(loss)

    def state(self) -> tuple[float, dict[str, Any] | None]:
        """For :meth:`restore`."""
        schedule = None if self._scheduler is None else copy.deepcopy(self._scheduler.state_dict())
        return self._group["lr"], schedule

    def restore(self, state: tuple[float, dict[str, Any] | None]) -> None:
        """Go back to :meth:`state`."""
        self._group["lr"], schedule = state
        if self._scheduler is not None and schedule is not None:
            self._scheduler.load_state_dict(copy.deepcopy(schedule))

    def _cosine(self, scheduler: LambdaLR, num_steps: int) -> np.ndarray:
        """The default schedule without a Python call a step."""
        index = scheduler.optimizer.param_groups.index(self._group)
        rate, base = scheduler.lr_lambdas[index], scheduler.base_lrs[index]
        assert isinstance(rate, CosineRate)
        factors = rate.factors(scheduler.last_epoch + np.arange(num_steps + 1))
        last = index == len(scheduler.lr_lambdas) - 1
        if last:
            scheduler.last_epoch += num_steps
        rates = np.asarray(base * factors, dtype=np.float64)
        rates[0] = self._group["lr"]  # of a schedule that was changed since, which moves on after the step
        self._group["lr"] = float(rates[-1])
        advanced(scheduler, index, self._group["lr"], num_steps if last else 0)
        return rates[:-1]
