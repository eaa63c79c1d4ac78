"""Graphs whose inputs are CSR tensors, written anew on the arrays of whole matrices and the numbers of a batch's rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from vipack.compat.aten import SPARSE_ADDMM, TO_COPY, TO_DENSE
from vipack.compat.pytorch import OpOverload, graph_module
from vipack.engine.graph.csr_operators import ROW_OPERATORS
from vipack.engine.graph.csr_products import dense_rows, product, transposed_product

__all__ = ["NotByRows", "by_rows"]

aten = torch.ops.aten


class NotByRows(Exception):
    """There is no operation on rows of a matrix that does what the program does with a CSR tensor; the message says which."""


@dataclass(frozen=True)
class _Matrix:
    """A CSR tensor, or its transpose, as nodes of the new graph.

    Attributes:
        rows: the numbers of its rows in the whole matrix; None where it is the whole.
        width: V, the number of columns.
    """

    crow: fx.Node
    col: fx.Node
    values: fx.Node
    rows: fx.Node | None
    width: int
    transposed: bool = False

    @property
    def arguments(self) -> tuple[fx.Node | None, ...]:
        return self.crow, self.col, self.values, self.rows


@dataclass(frozen=True)
class _Array:
    """One of the arrays of a matrix."""

    matrix: _Matrix
    name: str


def by_rows(module: fx.GraphModule, matrices: Mapping[int, tuple[Tensor, bool]]) -> fx.GraphModule:
    """The same program on the arrays of matrices.

    Args:
        matrices: index of an input -> the CSR matrix that it stands for, and whether the program sees those of its rows whose
            numbers the last input gives. Three inputs take its position: crow, col and values.

    Raises:
        NotByRows: the program does something else with a matrix than multiply it, or hand its arrays to an operator on rows.
    """
    return _Rewriter(module, matrices).module


class _Rewriter:
    def __init__(self, module: fx.GraphModule, matrices: Mapping[int, tuple[Tensor, bool]]) -> None:
        self._graph, self._copies = fx.Graph(), dict[fx.Node, Any]()
        inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
        for index, node in enumerate(inputs):
            if index in matrices:
                self._copies[node] = self._matrix(node, matrices[index][0])
            else:
                self._copies[node] = self._graph.node_copy(node)
        for index, (_, gathered) in matrices.items():
            if gathered:
                node = inputs[index]
                self._copies[node] = replace(self._copies[node], rows=self._copies[inputs[-1]])
        for node in module.graph.nodes:
            if node.op != "placeholder":
                self._copies[node] = self._copied(node)
        self.module = graph_module(module, self._graph)

    def _matrix(self, node: fx.Node, whole: Tensor) -> _Matrix:
        inputs = []
        arrays = {"crow": whole.crow_indices(), "col": whole.col_indices(), "values": whole.values()}
        for name, array in arrays.items():
            inputs.append(self._graph.placeholder(f"{node.name}_{name}"))
            inputs[-1].meta["val"] = array
        crow, col, values = inputs
        return _Matrix(crow, col, values, None, int(node.meta["val"].shape[1]))

    def _copied(self, node: fx.Node) -> Any:
        sparse = self._sparse(node)
        if not sparse:
            return self._graph.node_copy(node, lambda n: self._copies[n])
        if node.target in ROW_OPERATORS:
            return self._row_operator(node)
        first = self._copies[sparse[0]]
        if len(sparse) > 1 or node.op != "call_function":
            raise _refused(node)
        if node.target in _SAME:
            return first
        if isinstance(first, _Array):
            if first.name == "values" and node.target in _OF_VALUES:
                matrix = replace(first.matrix, values=self._pointwise(node, first.matrix))
                return replace(first, matrix=matrix)
            raise _refused(node)
        return self._of_matrix(node, first)

    def _of_matrix(self, node: fx.Node, matrix: _Matrix) -> Any:
        target, args = node.target, node.args
        if _turns(node):
            return replace(matrix, transposed=not matrix.transposed)
        if target in _ARRAYS and not matrix.transposed:
            return _Array(matrix, _ARRAYS[target])
        if target in _OF_VALUES:
            return replace(matrix, values=self._pointwise(node, matrix))
        if target is TO_DENSE:
            result = self._call(node, dense_rows, (*matrix.arguments, matrix.width))
            if not matrix.transposed:
                return result
            result.meta["val"] = torch.empty(*reversed(node.meta["val"].shape), dtype=node.meta["val"].dtype)
            return self._call(node, aten.t.default, (result,))
        if target is aten.mm.default and isinstance(args[1], fx.Node) and args[1] not in self._sparse(node):
            return self._product(node, matrix, args[1])
        if target in _ADDED and node.kwargs in ({}, {"beta": 0}) and args[1] in self._sparse(node):
            added, _, dense = args
            if isinstance(added, fx.Node) and isinstance(dense, fx.Node):
                result = self._product(node, matrix, dense)
                return result if node.kwargs else self._call(node, aten.add.Tensor, (self._copies[added], result))
        raise _refused(node)

    def _sparse(self, node: fx.Node) -> list[fx.Node]:
        """The inputs of a node that are CSR tensors or arrays of them."""
        return [source for source in node.all_input_nodes if isinstance(self._copies[source], _Matrix | _Array)]

    def _product(self, node: fx.Node, matrix: _Matrix, dense: fx.Node) -> fx.Node:
        given = (*matrix.arguments, self._copies[dense])
        if matrix.transposed:
            return self._call(node, transposed_product, (*given, matrix.width))
        return self._call(node, product, given)

    def _row_operator(self, node: fx.Node) -> fx.Node:
        """The operator on the whole matrix; where it gives a number for each row, all of them, which a step need not compute."""
        arrays = [self._copies[a] if isinstance(a, fx.Node) else a for a in node.args[:4]]
        *pieces, rows = arrays
        matrix = pieces[2].matrix if isinstance(pieces[2], _Array) else None
        same = matrix is not None and all(
            isinstance(piece, _Array) and piece.name == name and piece.matrix.crow is matrix.crow
            for piece, name in zip(pieces, ("crow", "col", "values"), strict=True)
        )
        if matrix is None or not same or rows is not None or node.kwargs:
            raise _refused(node)
        rest = fx.map_arg(tuple(node.args[4:]), lambda n: self._copies[n])
        if not ROW_OPERATORS[node.target].rowwise or matrix.rows is None:
            return self._call(node, node.target, (*matrix.arguments, *rest))
        every = self._call(node, node.target, (*matrix.arguments[:3], None))
        number = len(matrix.crow.meta["val"]) - 1
        every.meta["val"] = torch.empty(number, dtype=node.meta["val"].dtype)
        return self._call(node, aten.index_select.default, (every, 0, matrix.rows))

    def _pointwise(self, node: fx.Node, matrix: _Matrix) -> fx.Node:
        """An operation on the stored values, of the whole matrix."""
        if any(isinstance(other, fx.Node) for other in node.args[1:]) or set(node.kwargs) - {"dtype"}:
            raise _refused(node)
        target: Any = node.target
        values = self._graph.call_function(target, (matrix.values, *node.args[1:]), dict(node.kwargs))
        values.meta["val"] = torch.empty(len(matrix.values.meta["val"]), dtype=node.meta["val"].dtype)
        return values

    def _call(self, node: fx.Node, target: Any, args: tuple[Any, ...]) -> fx.Node:
        new = self._graph.call_function(target, args)
        new.meta = dict(node.meta)
        return new


def _turns(node: fx.Node) -> bool:
    """Whether a node is the transpose of its input, a matrix."""
    if node.target is aten.transpose.int:
        return {int(dim) % 2 for dim in node.args[1:]} == {0, 1}  # type: ignore[arg-type]
    if node.target is aten.permute.default:
        return [int(dim) % 2 for dim in node.args[1]] == [1, 0]  # type: ignore[union-attr,arg-type]
    return node.target is aten.t.default


def _refused(node: fx.Node) -> NotByRows:
    return NotByRows(
        f"the program applies {_name(node)} to it; native steps know x @ w, x.t() @ w, x.to_dense() and BagOfWords"
    )


def _name(node: fx.Node) -> str:
    target = node.target
    return (
        str(target).removesuffix(".default")
        if isinstance(target, OpOverload)
        else getattr(target, "__name__", str(target))
    )


_SAME = {aten.clone.default, aten.detach.default, aten.alias.default}
_ARRAYS = {aten.crow_indices.default: "crow", aten.col_indices.default: "col", aten.values.default: "values"}
_ADDED = {aten.addmm.default, SPARSE_ADDMM}
# Of which that of 0 is 0, so that they leave what is stored where it is.
_OF_VALUES = {
    aten.log1p.default, aten.expm1.default, aten.sqrt.default, aten.neg.default, aten.abs.default, aten.sign.default,
    aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar, TO_COPY,
}  # fmt: skip
