"""The optimizer of a fit that was given none: Adam, at one rate for the weights of networks and another for all else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

__all__ = ["FINAL_RATE", "LEARNING_RATE", "NETWORK_RATE", "CosineRate", "DefaultOptimizer"]

LEARNING_RATE = 0.02  # see docs/fitting.md for how it was chosen
NETWORK_RATE = 0.002  # of the weights of networks; see docs/decisions/022-rates-of-networks.md
FINAL_RATE = 0.01  # of the learning rate, at the last step


class CosineRate:
    """A learning-rate factor: 1 until `start`, then down a half cosine to 0.01 over `length` steps.

    An object rather than a function, so that LambdaLR saves it with its state.
    """

    def __init__(self, start: int, length: int | None) -> None:
        self.start = start
        self.length = length

    def __call__(self, step: int) -> float:
        """The factor at `step`."""
        return float(self.factors(np.asarray([step]))[0])

    def factors(self, steps: np.ndarray) -> np.ndarray:
        """The factor at each of `steps`."""
        if self.length is None:
            return np.ones(len(steps))
        done = np.clip((steps - self.start) / max(1, self.length), 0.0, 1.0)
        return np.asarray(FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + np.cos(np.pi * done)))


@dataclass(frozen=True)
class DefaultOptimizer:
    """Makes Adam with a rate that decays along a half cosine to a hundredth of it at the last of `num_steps`.

    The optimizer has two parameter groups, the second of which holds the weights of networks and may be empty. With no
    known end the rates stay constant until :meth:`FitOptimizer.cool` is called.

    Attributes:
        rate: of all parameters but the weights of networks, whose rate stands to 0.002 as this one to 0.02.
        network_weights: gives the parameters that are weights of networks.
    """

    num_steps: int | None
    rate: float = LEARNING_RATE
    network_weights: Callable[[], Collection[Tensor]] = tuple

    def __call__(self, params: Iterable[Tensor]) -> tuple[Optimizer, LambdaLR]:
        """The optimizer of these parameters, and its schedule."""
        others, weights = self._split(params)
        rates = (self.rate, self.rate * (NETWORK_RATE / LEARNING_RATE))
        groups = [{"params": some, "lr": rate} for some, rate in zip((others, weights), rates, strict=True)]
        optimizer = torch.optim.Adam(groups, lr=self.rate, betas=(0.9, 0.99))
        return optimizer, LambdaLR(optimizer, [CosineRate(0, self.num_steps) for _ in groups])

    def extend(self, optimizer: Optimizer, new: Sequence[Tensor]) -> None:
        """Take parameters up that the program has declared since."""
        for group, some in zip(optimizer.param_groups, self._split(new), strict=True):
            group["params"].extend(some)

    def at_one_rate(
        self, optimizer: Optimizer, every: Sequence[Tensor], state: dict[str, Any], schedule: dict[str, Any]
    ) -> None:
        """Where a state to be loaded has all parameters in one group, as earlier versions had, let `optimizer` have them so.

        Args:
            every: all parameters, in order of declaration.
            state, schedule: what :meth:`TorchOptimizer.state` gave; a second group is added where there is none.
        """
        saved, (first, second) = state["param_groups"], optimizer.param_groups
        if len(saved) == 1:
            saved.append({**saved[0], "params": [], "lr": second["lr"], "initial_lr": second["initial_lr"]})
            schedule["base_lrs"].append(second["initial_lr"])
            schedule["lr_lambdas"].append(dict(schedule["lr_lambdas"][0]))
        if not saved[1]["params"]:
            first["params"], second["params"] = list(every), []

    def _split(self, params: Iterable[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        weights = {id(weight) for weight in self.network_weights()}
        of_kinds: tuple[list[Tensor], list[Tensor]] = ([], [])
        for parameter in params:
            of_kinds[id(parameter) in weights].append(parameter)
        return of_kinds
