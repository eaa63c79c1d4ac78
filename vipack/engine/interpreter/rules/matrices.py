"""Products, factors and triangular systems of small matrices; large ones are left to torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import fx

from vipack.engine.interpreter.instructions import Writer
from vipack.engine.interpreter.layout import NotUnderstood, Value, broadcast, loop
from vipack.engine.interpreter.rules.operands import Rule, argument, fill, into, tag

__all__ = ["MATRICES"]

aten = torch.ops.aten
_LARGE = 60_000  # multiplications from which a matrix product is left to the library


def _batched(value: Value) -> tuple[int, tuple[int, int, int]]:
    """Number of matrices, and the strides from one to the next, along rows and along columns."""
    lead, strides = loop(value.size[:-2], [value.stride[:-2]], most=1)
    return lead[0], (strides[0][0], value.stride[-2], value.stride[-1])


def _matmul(
    writer: Writer, out: Value, a: Value, b: Value, added: Value | None = None, beta: float = 0.0, alpha: float = 1.0
) -> None:
    if out.numel == 0 or not out.dtype.is_floating_point or {a.dtype, b.dtype} != {out.dtype}:
        raise NotUnderstood("matmul")
    (batch, sa), (_, sb), (_, sc) = _batched(a), _batched(b), _batched(out)
    rows, inner, columns = a.size[-2], a.size[-1], b.size[-1]
    if batch * rows * inner * columns > _LARGE:
        raise NotUnderstood("a large product")
    values, strides = [a, b], [sc, sa, sb]
    if added is not None:
        values.append(added)
        strides.append(_batched(broadcast(added, out.size))[1])
    name = f"matmul_{tag(out.dtype)}"
    writer.add(name, out, values, [batch, rows, columns, inner], strides, [beta, alpha])


def _mm(writer: Writer, node: fx.Node, out: Value) -> None:
    _matmul(writer, out, writer.value(node.args[0]), writer.value(node.args[1]))


def _addmm(writer: Writer, node: fx.Node, out: Value) -> None:
    added, a, b = (writer.value(v) for v in node.args[:3])
    beta, alpha = (float(argument(node, 3, name, 1)) for name in ("beta", "alpha"))
    _matmul(writer, out, a, b, added if beta else None, beta, alpha)


def _column(value: Value) -> Value:
    return replace(value, size=(*value.size, 1), stride=(*value.stride, 1))


def _row(value: Value) -> Value:
    return replace(value, size=(1, *value.size), stride=(0, *value.stride))


def _mv(writer: Writer, node: fx.Node, out: Value) -> None:
    _matmul(writer, _column(out), writer.value(node.args[0]), _column(writer.value(node.args[1])))


def _dot(writer: Writer, node: fx.Node, out: Value) -> None:
    single = replace(out, size=(1, 1), stride=(1, 1))
    _matmul(writer, single, _row(writer.value(node.args[0])), _column(writer.value(node.args[1])))


def _solve(writer: Writer, node: fx.Node, out: Value) -> None:
    a, b = (writer.value(v) for v in node.args[:2])
    options = node.kwargs
    left, upper = bool(options.get("left", True)), bool(options["upper"])
    if a.size[:-2] != b.size[:-2] or a.numel * b.size[-1 if left else -2] > _LARGE:
        raise NotUnderstood("solve")
    (batch, sa), (_, sb), (_, sx) = _batched(a), _batched(b), _batched(out)
    rows, columns = b.size[-2:]
    if not left:  # x a = b is a' x' = b'
        sa, sb, sx = ((lead, column, row) for lead, row, column in (sa, sb, sx))
        rows, columns, upper = columns, rows, not upper
    extra = [int(upper), int(bool(options.get("unitriangular", False)))]
    writer.add(f"solve_triangular_{tag(out.dtype)}", out, [a, b], [batch, rows, columns], [sx, sa, sb], extra=extra)


def _cholesky(writer: Writer, node: fx.Node) -> tuple[Value, Value]:
    examples = node.meta["val"]
    factor = writer.new(examples[0].shape, examples[0].dtype, examples[0].stride())
    info = writer.new(examples[1].shape, examples[1].dtype)
    value = writer.value(node.args[0])
    if argument(node, 1, "upper", False) or value.numel * value.size[-1] > _LARGE:
        raise NotUnderstood("cholesky")
    (batch, sa), (_, sl) = _batched(value), _batched(factor)
    writer.add(f"cholesky_{tag(factor.dtype)}", factor, [value], [batch, value.size[-1]], [sl, sa])
    fill(writer, info)
    writer.unfailing.add(info)
    return factor, info


def _triangle(writer: Writer, node: fx.Node, out: Value, upper: bool) -> None:
    value = writer.value(node.args[0])
    (batch, so), (_, si) = _batched(out), _batched(value)
    extra = [int(argument(node, 1, "diagonal", 0)), int(upper)]
    writer.add(f"triangle_{tag(out.dtype)}", out, [value], [batch, *value.size[-2:]], [so, si], extra=extra)


MATRICES: dict[Any, Rule] = {
    aten.mm.default: into(_mm),
    aten.bmm.default: into(_mm),
    aten.addmm.default: into(_addmm),
    aten.baddbmm.default: into(_addmm),
    aten.mv.default: into(_mv),
    aten.dot.default: into(_dot),
    aten.linalg_solve_triangular.default: into(_solve),
    aten.linalg_cholesky_ex.default: _cholesky,
    aten.tril.default: into(_triangle, upper=False),
    aten.triu.default: into(_triangle, upper=True),
}  # fmt: skip
