"""What captured programs do with CSR matrices, as operators on rows of them."""

from __future__ import annotations

import warnings
from typing import Any

import scipy.sparse
import torch
from torch import Tensor

from vipack.engine.graph.csr_operators import entry_rows, num_rows, row_operator, selected

__all__ = ["dense_rows", "product", "transposed_product"]


def _with_columns_apart(operator: Any) -> Any:
    def rule(info: Any, in_dims: Any, *inputs: Any) -> Any:
        """Columns of all repetitions side by side."""
        if any(dim is not None for dim in in_dims[:4]):
            raise NotImplementedError("vmap over a sparse matrix: every repetition must see the same")
        dense = inputs[4].movedim(in_dims[4], 1)
        result = operator(*inputs[:4], dense.reshape(len(dense), -1), *inputs[5:])
        return result.view(-1, *dense.shape[1:]).movedim(1, 0).contiguous(), 0

    return rule


def _product_shape(crow: Tensor, col: Tensor, values: Tensor, rows: Tensor | None, dense: Tensor) -> Tensor:
    return dense.new_empty(num_rows(crow, rows), dense.shape[1])


@row_operator("csr_mm", "Tensor dense", "Tensor", _product_shape, _with_columns_apart)
def product(crow: Tensor, col: Tensor, values: Tensor, rows: Tensor | None, dense: Tensor) -> Tensor:
    """The rows times `dense` ``(V, O)``: ``(B, O)``."""
    crow, col, values = selected(crow, col, values, rows)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        matrix = torch.sparse_csr_tensor(crow, col, values, (num_rows(crow, None), len(dense)), check_invariants=False)
    return matrix @ dense


def _transposed_shape(
    crow: Tensor, col: Tensor, values: Tensor, rows: Tensor | None, dense: Tensor, columns: int
) -> Tensor:
    return dense.new_empty(columns, dense.shape[1])


@row_operator("csr_transposed_mm", "Tensor dense, int columns", "Tensor", _transposed_shape, _with_columns_apart)
def transposed_product(
    crow: Tensor, col: Tensor, values: Tensor, rows: Tensor | None, dense: Tensor, columns: int
) -> Tensor:
    """The transpose of the rows, of `columns` V, times `dense` ``(B, O)``: ``(V, O)``."""
    crow, col, values = selected(crow, col, values, rows)
    if dense.device.type == "cpu":  # where torch's own products with a transpose take twenty times as long
        matrix = scipy.sparse.csc_array(
            (values.numpy(), col.numpy(), crow.numpy()), shape=(columns, num_rows(crow, None))
        )
        return torch.from_numpy(matrix @ dense.numpy())
    return dense.new_zeros(columns, dense.shape[1]).index_add_(0, col, values[:, None] * dense[entry_rows(crow)])


def _dense_shape(crow: Tensor, col: Tensor, values: Tensor, rows: Tensor | None, columns: int) -> Tensor:
    return values.new_empty(num_rows(crow, rows), columns)


@row_operator("csr_to_dense", "int columns", "Tensor", _dense_shape)
def dense_rows(crow: Tensor, col: Tensor, values: Tensor, rows: Tensor | None, columns: int) -> Tensor:
    """The rows as a dense tensor ``(B, V)``."""
    crow, col, values = selected(crow, col, values, rows)
    result = values.new_zeros(num_rows(crow, None), columns)
    return result.index_put_((entry_rows(crow), col), values, accumulate=True)
