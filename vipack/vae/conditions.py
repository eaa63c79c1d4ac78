"""What a conditional VAE is given beside the data: labels or covariates, fed to encoder and decoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import pyro
import torch
from torch import Tensor

from vipack.errors import DataError, ShapeError, UsageError
from vipack.hints import checked_class

__all__ = ["Condition", "Covariates", "Labels", "PartialLabels"]


class Condition(ABC):
    """Turns the argument ``y`` of model and guide into numbers ``(N, num_features)``.

    Attributes:
        default: the value of each observation where there is no `y`; None where there must be one.
    """

    num_features: int
    default: int | None = None

    @final
    def encode(self, y: Tensor | None, like: Tensor) -> Tensor:
        """
        Args:
            like: the data, ``(N, ...)``.

        Raises:
            DataError: there is no `y`, or, where Pyro validates distributions, it has values that cannot be used; elsewhere
                these become NaN.
            ShapeError: `y` is not of N observations, or of another number of columns.
        """
        if y is None and self.default is not None:
            y = torch.full((len(like),), self.default, device=like.device)
        if not isinstance(y, Tensor):
            kind = "none" if y is None else type(y).__name__
            raise DataError(
                f"y: this VAE is conditional on {self}; expected a tensor with {self._shape(len(like))}, found {kind}."
            )
        if tuple(y.shape) not in self._shapes(len(like)):
            raise ShapeError(
                f"y: expected {self} of shape {self._shape(len(like))}, one for each of the {len(like)} observations of x, found "
                f"{tuple(y.shape)}."
            )
        if pyro.settings.get("validate_distributions_pyro"):
            self.check(y)
        return self._encode(y, like)

    @final
    def check(self, y: Tensor) -> None:
        """
        Raises:
            DataError: a value cannot be used.
        """
        problem = self.problem(y)
        if problem:
            raise DataError(f"y: {problem}")

    @abstractmethod
    def problem(self, y: Tensor) -> str:
        """What is wrong with the values of y; empty where nothing is."""

    @abstractmethod
    def _shapes(self, count: int) -> list[tuple[int, ...]]: ...

    @abstractmethod
    def _encode(self, y: Tensor, like: Tensor) -> Tensor: ...

    def _shape(self, count: int) -> str:
        return " or ".join(map(str, self._shapes(count)))


@checked_class
@final
class Labels(Condition):
    """Whole numbers from 0 to `num_classes` - 1, fed as one indicator a class.

    Args:
        num_classes: one number for labels ``(N,)``; several for as many columns of labels ``(N, K)``.
    """

    def __init__(self, *num_classes: int) -> None:
        if not num_classes or any(count < 2 for count in num_classes):
            raise UsageError(f"Labels: each number of classes must be at least 2, found {num_classes}.")
        self.num_classes = num_classes
        self.num_features = sum(num_classes)

    def problem(self, y: Tensor) -> str:
        """See :class:`Condition`."""
        for column, count in zip(y.reshape(len(y), -1).unbind(-1), self.num_classes, strict=True):
            wrong = column[~((column >= 0) & (column < count) & (column == column.round()))]
            if len(wrong):
                return f"expected {self}, found {wrong[:3].tolist()}; count classes from 0."
        return ""

    def __repr__(self) -> str:
        return f"Labels({', '.join(map(str, self.num_classes))})"

    def __str__(self) -> str:
        ranges = ", ".join(f"0 to {count - 1}" for count in self.num_classes)
        return f"labels from {ranges}"

    def _shapes(self, count: int) -> list[tuple[int, ...]]:
        return [(count,)] if len(self.num_classes) == 1 else [(count, len(self.num_classes))]

    def _encode(self, y: Tensor, like: Tensor) -> Tensor:
        encoded = []
        for column, count in zip(y.reshape(len(like), -1).unbind(-1), self.num_classes, strict=True):
            indicators = (column[:, None] == torch.arange(count, device=y.device)).to(like.dtype)
            # One that is no class becomes NaN, which no step takes; to look at the values would hold up every step.
            encoded.append(indicators / indicators.sum(-1, keepdim=True))
        return torch.cat(encoded, -1)


@final
class PartialLabels(Condition):
    """Labels ``(N,)`` of one kind, -1 where one is missing: an indicator for each class, all of them 0 where it is."""

    default = -1

    def __init__(self, num_classes: int) -> None:
        self.num_features = num_classes

    def problem(self, y: Tensor) -> str:
        wrong = y[~((y >= -1) & (y < self.num_features) & (y == y.round()))]
        return f"expected {self}, found {wrong[:3].tolist()}; count classes from 0." if len(wrong) else ""

    def __repr__(self) -> str:
        return f"PartialLabels({self.num_features})"

    def __str__(self) -> str:
        return f"labels from 0 to {self.num_features - 1}, or -1 where missing"

    def _shapes(self, count: int) -> list[tuple[int, ...]]:
        return [(count,)]

    def _encode(self, y: Tensor, like: Tensor) -> Tensor:
        y = y[:, None]
        indicators = (y == torch.arange(self.num_features, device=y.device)).to(like.dtype)
        known = indicators.sum(-1, keepdim=True)
        # As for Labels: NaN for one that is neither a class nor missing.
        return torch.where(y == -1, indicators, indicators / known)


@checked_class
@final
class Covariates(Condition):
    """Numbers, fed as they are: about standardised, please.

    Args:
        num_columns: K, of a matrix ``(N, K)``; with one column ``(N,)`` will do.
    """

    def __init__(self, num_columns: int) -> None:
        if num_columns < 1:
            raise UsageError(f"Covariates: num_columns must be at least 1, found {num_columns}.")
        self.num_features = num_columns

    def problem(self, y: Tensor) -> str:
        """See :class:`Condition`."""
        count = int((~torch.isfinite(y)).sum())
        return f"expected finite {self}, found {count} NaN or infinite value(s)." if count else ""

    def __repr__(self) -> str:
        return f"Covariates({self.num_features})"

    def __str__(self) -> str:
        return f"{self.num_features} column(s) of covariates"

    def _shapes(self, count: int) -> list[tuple[int, ...]]:
        return [(count, self.num_features), *([(count,)] if self.num_features == 1 else [])]

    def _encode(self, y: Tensor, like: Tensor) -> Tensor:
        return y.reshape(len(like), self.num_features).to(like.dtype)
