"""What captured programs do with CSR matrices, as operators on rows of them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from vipack.engine.graph.compiled_functions import functions_of
from vipack.engine.graph.csr_operators import entry_rows, num_rows, row_operator, selected

__all__ = ["dense_rows", "product", "transposed_product"]

SOURCE = "vipack/engine/graph/csr_products.cpp"


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
    result = dense.new_zeros(num_rows(crow, rows), dense.shape[1])
    if _native("vipack_csr_product", (crow, col, values, rows), dense, result):
        return result
    crow, col, values = selected(crow, col, values, rows)
    return result.index_add_(0, entry_rows(crow), values[:, None] * dense.index_select(0, col))


def _transposed_shape(
    crow: Tensor, col: Tensor, values: Tensor, rows: Tensor | None, dense: Tensor, columns: int
) -> Tensor:
    return dense.new_empty(columns, dense.shape[1])


@row_operator("csr_transposed_mm", "Tensor dense, int columns", "Tensor", _transposed_shape, _with_columns_apart)
def transposed_product(
    crow: Tensor, col: Tensor, values: Tensor, rows: Tensor | None, dense: Tensor, columns: int
) -> Tensor:
    """The transpose of the rows, of `columns` V, times `dense` ``(B, O)``: ``(V, O)``."""
    result = dense.new_zeros(columns, dense.shape[1])
    if _native("vipack_csr_transposed", (crow, col, values, rows), dense, result):
        return result
    crow, col, values = selected(crow, col, values, rows)
    return result.index_add_(0, col, values[:, None] * dense.index_select(0, entry_rows(crow)))


def _native(name: str, matrix: Sequence[Tensor | None], dense: Tensor, result: Tensor) -> bool:
    """Add a product to `result` by a function of csr_products.cpp, if there is one for these tensors."""
    crow, col, values, rows = (None if each is None else each.contiguous() for each in matrix)
    assert crow is not None
    assert col is not None
    assert values is not None
    types = {dense.dtype, values.dtype}, {crow.dtype, col.dtype}
    if dense.device.type != "cpu" or any(len(each) > 1 for each in types):
        return False
    functions = functions_of(SOURCE, dense.dtype, col.dtype)
    if functions is None:
        return False
    order, dense = None if rows is None else rows.long(), dense.contiguous()
    addresses = [
        None if each is None else ctypes.c_void_p(each.data_ptr()) for each in (order, crow, col, values, dense)
    ]
    height, width = ctypes.c_int64(num_rows(crow, rows)), ctypes.c_int64(dense.shape[1])
    functions[name](height, *addresses, width, ctypes.c_void_p(result.data_ptr()))
    return True


def _dense_shape(crow: Tensor, col: Tensor, values: Tensor, rows: Tensor | None, columns: int) -> Tensor:
    return values.new_empty(num_rows(crow, rows), columns)


@row_operator("csr_to_dense", "int columns", "Tensor", _dense_shape)
def dense_rows(crow: Tensor, col: Tensor, values: Tensor, rows: Tensor | None, columns: int) -> Tensor:
    """The rows as a dense tensor ``(B, V)``."""
    crow, col, values = selected(crow, col, values, rows)
    result = values.new_zeros(num_rows(crow, None), columns)
    return result.index_put_((entry_rows(crow), col), values, accumulate=True)
