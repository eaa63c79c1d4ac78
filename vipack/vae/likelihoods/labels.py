"""The likelihood of labels: each element one of several classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import pyro.distributions as dist
import torch
from torch import Tensor

from vipack.errors import UsageError
from vipack.hints import checked_class
from vipack.vae.likelihoods.likelihood import Likelihood, shape_of

__all__ = ["Categorical"]


@checked_class
@final
class Categorical(Likelihood):
    """Elements that are whole numbers from 0 to `num_classes` - 1, by logits.

    The encoder reads indicators, a class a channel: ``(D * num_classes,)``, or ``(C * num_classes, H, W)`` of an image.
    """

    def __init__(self, shape: int | Sequence[int], num_classes: int) -> None:
        sizes = shape_of("Categorical", shape)
        if num_classes < 2:
            raise UsageError(f"Categorical: num_classes must be at least 2, found {num_classes}.")
        super().__init__(sizes, (num_classes, *sizes), (sizes[0] * num_classes, *sizes[1:]))
        self.num_classes = num_classes

    def forward(self, parameters: Tensor, x: Tensor | None = None) -> Any:
        """See :class:`Likelihood`."""
        logits = parameters.movedim(-1 - len(self.shape), -1)
        return dist.Categorical(logits=logits).to_event(len(self.shape))

    def features(self, x: Tensor) -> Tensor:
        """One indicator a class."""
        return self._indicators(x).flatten(1, 2)

    def problem(self, x: Tensor) -> str:
        """See :class:`Likelihood`."""
        wrong = ~((x >= 0) & (x < self.num_classes) & (x == x.round()))
        if not bool(wrong.any()):
            return ""
        return (
            f"Categorical takes whole numbers from 0 to {self.num_classes - 1}, found {x[wrong].flatten()[:3].tolist()}; count "
            "classes from 0, or make num_classes larger."
        )

    def initialize(self, x: Tensor) -> Tensor:
        """Log frequencies of the classes of each element, each class counted once more than there is."""
        counts = self._indicators(x).sum(0) + 1
        return (counts / counts.sum(0)).log()

    def _indicators(self, x: Tensor) -> Tensor:
        """``(N, num_classes, *shape)``."""
        classes = torch.arange(self.num_classes, device=x.device, dtype=x.dtype)
        return (x[:, None] == classes.reshape(-1, *[1] * len(self.shape))).to(x.dtype)
