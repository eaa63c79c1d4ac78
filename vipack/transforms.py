"""What is done to a batch anew at every step, before guide and model see it: binarisation, noise, bytes to numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vipack.errors import DataError, UsageError
from vipack.hints import checked_class

__all__ = ["Binarize", "Noise", "ToFloat", "Transform"]

Transform = Callable[[Tensor], Tensor]
"""What is done to a batch: a function of its tensor ``(rows, ...)`` that gives one of the same rows."""


@checked_class
@dataclass(frozen=True)
class Binarize:
    """Pixels of 0 or 1, drawn with the grey levels in [0, 1] as probabilities: dynamic binarisation.

    Source: Salakhutdinov and Murray (2008); drawn anew at every step as in Burda et al. (2016), arXiv:1509.00519.
    """

    def __call__(self, values: Tensor) -> Tensor:
        """A draw for each pixel."""
        return (torch.rand(values.shape, dtype=values.dtype, device=values.device) < values).to(values.dtype)

    def check(self, name: str, values: Tensor) -> None:
        """
        Raises:
            DataError: `values` are not probabilities.
        """
        if not values.is_floating_point():
            raise DataError(
                f"transform[{name!r}]: Binarize needs grey levels in [0, 1], found {values.dtype}; put "
                "vipack.transforms.ToFloat(1 / 255) before it."
            )
        bad = ~((values >= 0) & (values <= 1))
        if bool(bad.any()):
            first = tuple(bad.nonzero()[0].tolist())
            cure = "divide by 255" if float(values.nan_to_num().max()) > 1 else "replace what is missing"
            raise DataError(
                f"transform[{name!r}]: Binarize needs grey levels in [0, 1], found {float(values[first]):g} at {list(first)} "
                f"({int(bad.sum()):,} such values); {cure}."
            )


@checked_class
@dataclass(frozen=True)
class Noise:
    """Adds draws of ``Normal(0, scale)``."""

    scale: float

    def __post_init__(self) -> None:
        if isinstance(self.scale, bool) or not isinstance(self.scale, int | float) or not 0 < self.scale < math.inf:
            raise UsageError(f"Noise: scale must be a positive number, found {self.scale!r}.")

    def __call__(self, values: Tensor) -> Tensor:
        """A draw for each value."""
        return values + self.scale * torch.randn(values.shape, dtype=values.dtype, device=values.device)

    def check(self, name: str, values: Tensor) -> None:
        """
        Raises:
            DataError: `values` are whole numbers, to which no noise can be added.
        """
        if not values.is_floating_point():
            raise DataError(
                f"transform[{name!r}]: Noise needs floating-point values, found {values.dtype}; put vipack.transforms.ToFloat() before it."
            )


@checked_class
@dataclass(frozen=True)
class ToFloat:
    """Numbers of the fit's floating-point type, times `scale`; ``ToFloat(1 / 255)`` for bytes of images."""

    scale: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.scale, bool) or not isinstance(self.scale, int | float) or not math.isfinite(self.scale):
            raise UsageError(f"ToFloat: scale must be a finite number, found {self.scale!r}.")

    def __call__(self, values: Tensor) -> Tensor:
        """The values as floating-point numbers."""
        return values.to(torch.get_default_dtype()) * self.scale

    def check(self, name: str, values: Tensor) -> None:
        """Any numbers will do."""


KINDS = {kind.__name__: kind for kind in (Binarize, Noise, ToFloat)}
