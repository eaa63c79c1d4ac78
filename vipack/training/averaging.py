"""The mean of a run's later iterates, which is closer to the optimum than any of them."""

from __future__ import annotations

from torch import Tensor

from vipack.program import Parameters
from vipack.training.callbacks import Progress

__all__ = ["Average"]


class Average:
    """A callback that adds up unconstrained parameters after step `start`; to be called every few steps.

    Attributes:
        period: steps between the iterates that count, since neighbours are alike.

    Source: Polyak, Juditsky (1992); for variational inference, Dhaka et al. (2020), arXiv:2009.00666.
    """

    period = 10

    def __init__(self, start: int) -> None:
        self._start = start
        self._count = 0
        self._mean: dict[str, Tensor] = {}

    def __call__(self, progress: Progress) -> None:
        """Take the parameters as they stand into the mean."""
        if progress.step <= self._start:
            return
        self._count += 1
        for name, value in progress._parameters.unconstrained.items():
            current = value.detach()
            if name not in self._mean:
                self._mean[name] = current.clone()
            else:
                self._mean[name] += (current - self._mean[name]) / self._count

    def install(self, parameters: Parameters) -> bool:
        """Write the mean into `parameters`; False if there is none yet."""
        for name, value in self._mean.items():
            parameters.unconstrained[name].data.copy_(value)
        return self._count > 0
