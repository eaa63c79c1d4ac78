"""Where counts and probabilities lie, asked of dense and of sparse tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from vipack.compat.pytorch import csr_arrays
from vipack.errors import ShapeError, SupportError
from vipack.sparse.operators import are_counts

__all__ = ["Counts", "Probabilities", "check_counts", "outside"]

_SUM = 1e-4  # by which float32 sums of a hundred thousand probabilities may miss 1


class Counts(constraints.independent):
    """Rows of whole numbers from 0 on, ``(..., V)``; dense or CSR."""

    def __init__(self) -> None:
        super().__init__(constraints.nonnegative_integer, 1)  # type: ignore[no-untyped-call]

    def check(self, value: Tensor) -> Any:
        """Whether each row is inside."""
        if value.layout == torch.strided:
            return super().check(value)  # type: ignore[no-untyped-call]
        return are_counts(*csr_arrays(value), None)


class Probabilities(constraints.Constraint):
    """Nonnegative rows ``(..., V)`` of sum 1, up to rounding.

    Args:
        event_dim: 2 for several rows at once.
    """

    def __init__(self, event_dim: int) -> None:
        self.event_dim = event_dim

    def check(self, value: Tensor) -> Any:
        """Whether each row, or each set of rows, is inside."""
        inside = (value >= 0).all(-1) & ((value.sum(-1) - 1).abs() < _SUM)
        return inside if self.event_dim == 1 else inside.all(-1)

    def __repr__(self) -> str:
        return "probabilities (nonnegative rows with sum 1)"


def check_counts(name: str, value: Tensor, num_words: int, theta: Tensor) -> None:
    """
    Raises:
        ShapeError: counts have another number of words than a distribution `name`, or of documents.
    """
    if value.dim() == 0 or value.shape[-1] != num_words:
        raise ShapeError(
            f"{name}: the counts have shape {tuple(value.shape)}, expected (..., D, {num_words}): a column for each of the "
            f"{num_words} words (V)."
        )
    batch = value.shape[:-1]
    try:
        torch.broadcast_shapes(batch, theta.shape[:-1])
    except RuntimeError as error:
        raise ShapeError(
            f"{name}: counts of {tuple(batch)} documents and theta of shape {tuple(theta.shape)}; a row of theta belongs to each document."
        ) from error


def outside(name: str, value: Tensor) -> SupportError:
    """The error of counts that are none."""
    entries = value if value.layout == torch.strided else value.values()
    wrong = entries[~constraints.nonnegative_integer.check(entries)]
    return SupportError(
        f"{name}: {len(wrong)} of the counts, such as {wrong[0].item():g}, are negative or no whole numbers; the value "
        "must hold how often each word was counted."
    )
