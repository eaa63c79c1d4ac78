"""The log likelihood of rows of counts under mixtures of topics and its gradients: in C++, or by plain torch."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vipack.engine.graph.csr_operators import entry_rows, selected
from vipack.sparse.library import library

__all__ = ["CsrRows", "add_gradients", "add_log_likelihood"]

_AT_ONCE = 1 << 20  # numbers of an intermediate result


@dataclass(frozen=True, eq=False)
class CsrRows:
    """Rows of a CSR matrix.

    Attributes:
        rows: ``(B,)``, which rows; None for all in order.
    """

    crow: Tensor
    col: Tensor
    values: Tensor
    rows: Tensor | None

    @classmethod
    def of(cls, crow: Tensor, col: Tensor, values: Tensor, rows: Tensor | None) -> CsrRows:
        """Contiguous."""
        order = None if rows is None else rows.long().contiguous()
        return cls(crow.contiguous(), col.contiguous(), values.contiguous(), order)

    def compiled(self, theta: Tensor) -> ctypes.CDLL | None:
        """The functions of passes.cpp for these types and this number of topics."""
        on_cpu = theta.device.type == "cpu" and self.values.dtype == theta.dtype and self.crow.dtype == self.col.dtype
        return library(theta.shape[-1], theta.dtype, self.col.dtype) if on_cpu else None

    def arguments(self, theta: Tensor, beta: Tensor) -> list[Any]:
        """The first arguments of the functions of passes.cpp."""
        arrays = (self.crow, self.col, self.values, theta, beta)
        rows = None if self.rows is None else _address(self.rows)
        return [ctypes.c_int64(0), ctypes.c_int64(len(theta)), rows, *map(_address, arrays)]


def add_log_likelihood(matrix: CsrRows, theta: Tensor, beta: Tensor, result: Tensor) -> None:
    """Add ``sum_w x_dw log(theta_d . beta_w)`` of each row to `result` ``(B,)``, which is contiguous and zero.

    Args:
        theta: ``(B, K)``.
        beta: ``(V, K)``; a word's numbers side by side.
    """
    theta, beta = theta.contiguous(), beta.contiguous()
    functions = matrix.compiled(theta)
    if functions is not None:
        functions.vipack_log_likelihood(*matrix.arguments(theta, beta), _address(result))
        return
    row, col, values = _entries(matrix)
    for piece in _pieces(len(col), theta.shape[1]):
        probs = _probabilities(theta, row[piece], beta, col[piece])
        result.index_add_(0, row[piece], torch.xlogy(values[piece], probs))


def add_gradients(
    matrix: CsrRows, theta: Tensor, beta: Tensor, weights: Tensor, to_theta: Tensor, to_beta: Tensor
) -> None:
    """Add the gradients of the rows' log likelihoods times `weights` ``(B,)`` to those of theta and beta, which are zero."""
    theta, beta, weights = theta.contiguous(), beta.contiguous(), weights.contiguous()
    functions = matrix.compiled(theta)
    if functions is not None:
        targets = map(_address, (weights, to_theta, to_beta))
        functions.vipack_gradients(*matrix.arguments(theta, beta), *targets)
        return
    row, col, values = _entries(matrix)
    for piece in _pieces(len(col), theta.shape[1]):
        own_row, own_col, counts = row[piece], col[piece], values[piece]
        ratio = weights[own_row] * counts / _probabilities(theta, own_row, beta, own_col)
        ratio = torch.where(counts == 0, 0.0, ratio)[:, None]
        to_theta.index_add_(0, own_row, ratio * beta.index_select(0, own_col))
        to_beta.index_add_(0, own_col, ratio * theta.index_select(0, own_row))


def _entries(matrix: CsrRows) -> tuple[Tensor, Tensor, Tensor]:
    """Row, column and value of each stored value."""
    crow, col, values = selected(matrix.crow, matrix.col, matrix.values, matrix.rows)
    return entry_rows(crow), col, values


def _pieces(number: int, width: int) -> Iterator[slice]:
    """Stored values in pieces, of whose intermediate results none is large."""
    size = max(1, _AT_ONCE // max(1, width))
    return (slice(first, first + size) for first in range(0, number, size))


def _probabilities(theta: Tensor, row: Tensor, beta: Tensor, col: Tensor) -> Tensor:
    return (theta.index_select(0, row) * beta.index_select(0, col)).sum(-1)


def _address(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())
