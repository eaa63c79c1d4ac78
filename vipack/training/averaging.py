"""The mean of a run's later iterates, which is closer to the optimum than any of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vipack.program import Parameters
from vipack.training.callbacks import Progress

__all__ = ["Average"]


class Average:
    """A callback that takes the unconstrained parameters after step `start` into a mean; for ``Every(Average.period, ...)``.

    Stochastic steps wander about the optimum; the mean of where they were is nearer to it by a factor that grows with the
    root of their number.

    Attributes:
        period: steps between the iterates that count, since neighbours are alike.

    Source: Polyak, Juditsky (1992); for variational inference, Dhaka et al. (2020), arXiv:2009.00666.
    """

    period = 10

    def __init__(self, start: int) -> None:
        self.start = start
        self._count = 0
        self._mean: dict[str, Tensor] = {}

    def __call__(self, progress: Progress) -> None:
        """Take the parameters as they stand into the mean."""
        if progress.step <= self.start:
            return
        self._count += 1
        for name, value in progress._fit_parameters.unconstrained.items():
            current = value.detach()
            if name in self._mean:
                self._mean[name] += (current - self._mean[name]) / self._count
            else:
                self._mean[name] = current.clone()

    def install(self, parameters: Parameters) -> bool:
        """Write the mean into `parameters`; False if there is none yet."""
        for name, value in self._mean.items():
            parameters.unconstrained[name].data.copy_(value)
        return self._count > 0

    def of(self, name: str) -> list[Tensor]:
        """The mean of one parameter, if there is one yet."""
        return [self._mean[name]] if name in self._mean else []

    def state(self) -> dict[str, Any]:
        """Plain tensors and numbers."""
        mean = {name: value.clone() for name, value in self._mean.items()}
        return {"start": self.start, "count": self._count, "mean": mean}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Average:
        """The inverse of :meth:`state`."""
        average = cls(state["start"])
        average._count, average._mean = state["count"], dict(state["mean"])
        return average
