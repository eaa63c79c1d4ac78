"""Operators on rows of a CSR matrix, whose inputs have the same shapes whichever rows they are asked for.

A minibatch of a sparse matrix is a CSR tensor with as many stored values as its rows happen to have, so no graph of fixed shapes
takes it. These operators take the whole matrix and the numbers of the rows instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from vipack.compat.pytorch import OpOverload

__all__ = [
    "OPERATOR_MODULES",
    "ROW_OPERATORS",
    "RowOperator",
    "entry_rows",
    "modules_of",
    "num_rows",
    "row_operator",
    "selected",
]

_MATRIX = "Tensor crow, Tensor col, Tensor values, Tensor? rows"


@dataclass(frozen=True)
class RowOperator:
    """An operator ``(crow, col, values, rows, ...)``; `rows` None for all of them in order.

    Attributes:
        module: which defines it, to be imported where a graph is read.
        rowwise: whether it takes nothing else, and gives one number a row.
    """

    module: str
    rowwise: bool


ROW_OPERATORS: dict[Any, RowOperator] = {}
OPERATOR_MODULES: dict[
    Any, str
] = {}  # of all operators of our own that native code calls: the module that defines each


def row_operator(
    name: str, more: str, results: str, shaped: Callable[..., Any], vectorized: Callable[[Any], Any] | None = None
) -> Callable[[Callable[..., Any]], OpOverload]:
    """Define an operator of torch's by a function of CSR arrays and rows; native tiers take minibatches through it.

    It has no gradient, and under vmap all repetitions see the same matrix.

    Args:
        more: what it takes beside the matrix and the rows, in torch's schema language.
        results: what it gives.
        shaped: gives tensors of the shapes of its results.
        vectorized: of the operator, gives its rule for vmap; None where it takes nothing else.
    """

    def define(function: Callable[..., Any]) -> OpOverload:
        qualified = f"vipack::{name}"
        torch.library.define(qualified, f"({', '.join(filter(None, (_MATRIX, more)))}) -> {results}")
        torch.library.impl(qualified, "CompositeExplicitAutograd", function)
        torch.library.register_fake(qualified, shaped)
        operator = getattr(torch.ops.vipack, name).default
        if vectorized is not None:
            torch.library.register_vmap(qualified, vectorized(operator))
        ROW_OPERATORS[operator] = RowOperator(function.__module__, not more)
        OPERATOR_MODULES[operator] = function.__module__
        return operator

    return define


def modules_of(module: fx.GraphModule) -> tuple[str, ...]:
    """The modules that define operators of a graph."""
    known = (OPERATOR_MODULES.get(node.target) for node in module.graph.nodes)
    return tuple(sorted({name for name in known if name is not None}))


def selected(crow: Tensor, col: Tensor, values: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The CSR arrays of the rows `rows` ``(B,)`` of a matrix, in their order."""
    if rows is None:
        return crow, col, values
    starts = crow[rows]
    lengths = crow[rows + 1] - starts
    ends = lengths.cumsum(0)
    shift = torch.repeat_interleave(starts - ends + lengths, lengths)
    entries = torch.arange(len(shift), device=crow.device) + shift
    return torch.cat([ends.new_zeros(1), ends]), col[entries], values[entries]


def entry_rows(crow: Tensor) -> Tensor:
    """The row that each stored value stands in."""
    lengths = crow[1:] - crow[:-1]
    return torch.repeat_interleave(torch.arange(len(lengths), device=crow.device), lengths)


def num_rows(crow: Tensor, rows: Tensor | None) -> int:
    """B, of the rows asked for."""
    return crow.shape[0] - 1 if rows is None else rows.shape[0]
