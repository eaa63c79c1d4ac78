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
from vipack.engine.optimizers.default_optimizer import CosineRate
from vipack.engine.optimizers.fit_optimizer import Handle

__all__ = ["Rates"]


class Rates:
    """The learning rates of an optimizer's parameter groups, step by step; taking rates moves their schedule on.

    All groups are taken at once, since a schedule moves on with every step for all of them.

    Attributes:
        one_by_one: whether a rate depends on the loss of the step before.
        moving: whether taking rates changes anything.
        handles: parameters of the optimizer.
    """

    def __init__(self, optimizer: Optimizer, scheduler: LRScheduler | ReduceLROnPlateau | None) -> None:
        self._optimizer = optimizer
        self._groups: list[dict[str, Any]] = list(optimizer.param_groups)
        self._scheduler = scheduler
        self.handles: list[Handle] = []
        self.one_by_one = isinstance(scheduler, ReduceLROnPlateau)
        self.moving = scheduler is not None or isinstance(optimizer, ClippedAdam)

    def moves_with(self, stepping: Collection[int]) -> bool:
        """Whether a step of these handles (by ``id``) moves the rates on: a schedule moves on with every step."""
        return self._scheduler is not None or any(id(handle) in stepping for handle in self.handles)

    @property
    def rates(self) -> tuple[float, ...]:
        """The learning rates of the next step, group by group."""
        return tuple(float(group["lr"]) for group in self._groups)

    def take(self, num_steps: int) -> dict[int, np.ndarray]:
        """Rates of the next `num_steps` steps, for each group (by ``id``) ``(K,)`` float64.

        The optimizer and its schedule stand after these steps.
        """
        scheduler = self._scheduler
        if isinstance(self._optimizer, ClippedAdam):
            falling = {}
            for group in self._groups:
                falling[id(group)] = rates = np.asarray(group["lr"] * group["lrd"] ** np.arange(1, num_steps + 1))
                group["lr"] = float(rates[-1])
            if scheduler is None:
                return falling
        if scheduler is None or self.one_by_one:
            return {id(group): np.full(num_steps, group["lr"], dtype=np.float64) for group in self._groups}
        if (
            COUNTS.there
            and isinstance(scheduler, LambdaLR)
            and all(isinstance(f, CosineRate) for f in scheduler.lr_lambdas)
        ):
            return self._cosine(scheduler, num_steps)
        every = np.empty((num_steps, len(self._groups)))
        for step in range(num_steps):
            every[step] = self.rates
            scheduler.step()
        return {id(group): every[:, index] for index, group in enumerate(self._groups)}

    def look(self, loss: float) -> None:
        """Show a schedule that goes by losses the last one."""
        if isinstance(self._scheduler, ReduceLROnPlateau):
            self._scheduler.step(loss)

    def state(self) -> tuple[tuple[float, ...], dict[str, Any] | None]:
        """For :meth:`restore`."""
        schedule = None if self._scheduler is None else copy.deepcopy(self._scheduler.state_dict())
        return self.rates, schedule

    def restore(self, state: tuple[tuple[float, ...], dict[str, Any] | None]) -> None:
        """Go back to :meth:`state`."""
        rates, schedule = state
        for group, rate in zip(self._groups, rates, strict=True):
            group["lr"] = rate
        if self._scheduler is not None and schedule is not None:
            self._scheduler.load_state_dict(copy.deepcopy(schedule))

    def _cosine(self, scheduler: LambdaLR, num_steps: int) -> dict[int, np.ndarray]:
        """The default schedule without a Python call a step."""
        steps = scheduler.last_epoch + np.arange(num_steps + 1)
        scheduler.last_epoch += num_steps
        coming = {}
        for index, group in enumerate(self._groups):
            rate = scheduler.lr_lambdas[index]
            assert isinstance(rate, CosineRate)
            rates = np.asarray(scheduler.base_lrs[index] * rate.factors(steps), dtype=np.float64)
            rates[0] = group["lr"]  # of a schedule that was changed since, which moves on after the step
            group["lr"] = float(rates[-1])
            advanced(scheduler, index, group["lr"], 0 if index else num_steps)
            coming[id(group)] = rates[:-1]
        return coming
