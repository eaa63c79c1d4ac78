"""Rows by number: gathers and scatters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from vipack.compat.aten import UNSAFE_INDEX, UNSAFE_INDEX_PUT
from vipack.engine.interpreter.instructions import Writer
from vipack.engine.interpreter.layout import NotUnderstood, Value, broadcast, loop
from vipack.engine.interpreter.rules.operands import Rule, argument, copy_into, given, into, operand, tag

__all__ = ["INDICES"]

aten = torch.ops.aten


def _without(value: Value, dim: int, size: Sequence[int]) -> Value:
    """`value` with one dimension stood still, as wide as the loop."""
    stride = list(value.stride)
    stride[dim] = 0
    return replace(value, stride=tuple(stride), size=tuple(size))


def _gather(writer: Writer, node: fx.Node, out: Value) -> None:
    value, dim, index = writer.value(node.args[0]), int(given(node)[1]), writer.value(node.args[2])
    dim %= max(1, len(value.size))
    if not value.size:
        raise NotUnderstood("gather")
    still = _without(value, dim, index.size)
    _numbered(writer, "gather", out, still, [index], [(value.stride[dim], value.size[dim])], index.size)


def _numbered(
    writer: Writer,
    kernel: str,
    out: Value,
    value: Value,
    indices: Sequence[Value],
    steps: Sequence[tuple[int, int]],
    size: Sequence[int],
) -> None:
    """As kernels.cpp says; `steps` are stride and length of the numbered dimension of each index."""
    if any(v.dtype != torch.int64 for v in indices) or not 1 <= len(indices) <= 2:
        raise NotUnderstood("indices")
    if math.prod(size) == 0:
        return
    wide = [broadcast(v, size).stride for v in indices]
    loops, strides = loop(size, [out.stride, value.stride, *wide])
    pad = 2 - len(indices)
    extra = [*(s for s, _ in steps), *[0] * pad, *(n for _, n in steps), *[1] * pad]
    writer.add(f"{kernel}_{tag(out.dtype)}", out, [value, *indices], loops, strides, extra=extra)


def _scatter(writer: Writer, node: fx.Node, out: Value, kernel: str) -> None:
    base, dim, index = writer.value(node.args[0]), int(given(node)[1]), writer.value(node.args[2])
    if not base.size or (kernel == "scatter_add" and out.dtype in (torch.bool, torch.int32)):
        raise NotUnderstood(kernel)
    dim %= len(base.size)
    source = operand(writer, node.args[3], out.dtype)
    source = broadcast(source, index.size) if not source.size else replace(source, size=index.size)
    copy_into(writer, out, base)
    still = _without(out, dim, index.size)
    _numbered(writer, kernel, still, source, [index], [(out.stride[dim], out.size[dim])], index.size)


def _index_select(writer: Writer, node: fx.Node, out: Value) -> None:
    value, index = writer.value(node.args[0]), writer.value(node.args[2])
    if len(index.size) != 1 or not value.size:
        raise NotUnderstood("index_select")
    dim = int(given(node)[1]) % len(value.size)
    still, along = _without(value, dim, out.size), _along(index, dim, out.size)
    _numbered(writer, "gather", out, still, [along], [(value.stride[dim], value.size[dim])], out.size)


def _along(index: Value, dim: int, size: Sequence[int]) -> Value:
    """Indices ``(n,)`` as wide as a loop over `size`, in which they number one dimension."""
    return replace(index, size=tuple(size), stride=tuple(index.stride[0] if d == dim else 0 for d in range(len(size))))


def _advanced(
    writer: Writer, value: Value, indices: Any
) -> tuple[Value, list[Value], list[tuple[int, int]], tuple[int, ...]]:
    """``value[i, j]`` with tensors for neighbouring dimensions: the loop over the result."""
    dims = [d for d, index in enumerate(indices) if index is not None]
    values = [writer.value(indices[d]) for d in dims]
    if not dims or dims != list(range(dims[0], dims[-1] + 1)) or any(v.dtype != torch.int64 for v in values):
        raise NotUnderstood("indices")
    shape = tuple(torch.broadcast_shapes(*(v.size for v in values)))
    before, after = value.size[: dims[0]], value.size[dims[-1] + 1 :]
    size = (*before, *shape, *after)
    still = replace(
        value, size=size, stride=(*value.stride[: dims[0]], *[0] * len(shape), *value.stride[dims[-1] + 1 :])
    )
    shaped = []
    for v in values:
        wide = broadcast(v, shape)
        shaped.append(replace(wide, size=size, stride=(*[0] * len(before), *wide.stride, *[0] * len(after))))
    return still, shaped, [(value.stride[d], value.size[d]) for d in dims], size


def _index_tensor(writer: Writer, node: fx.Node, out: Value) -> None:
    still, indices, steps, size = _advanced(writer, writer.value(node.args[0]), node.args[1])
    if size != out.size:
        raise NotUnderstood("index")
    _numbered(writer, "gather", out, still, indices, steps, size)


def _index_put(writer: Writer, node: fx.Node, out: Value) -> None:
    adds = bool(argument(node, 3, "accumulate", False))
    if adds and out.dtype in (torch.bool, torch.int32):
        raise NotUnderstood("index_put")
    still, indices, steps, size = _advanced(writer, out, node.args[1])
    source = broadcast(operand(writer, node.args[2], out.dtype), size)
    copy_into(writer, out, writer.value(node.args[0]))
    _numbered(writer, "scatter_add" if adds else "scatter", still, source, indices, steps, size)


def _index_add(writer: Writer, node: fx.Node, out: Value) -> None:
    index = writer.value(node.args[2])
    source = writer.value(node.args[3])
    if len(index.size) != 1 or not out.size or node.kwargs.get("alpha", 1) != 1 or not out.dtype.is_floating_point:
        raise NotUnderstood("index_add")
    dim = int(given(node)[1]) % len(out.size)
    copy_into(writer, out, writer.value(node.args[0]))
    still, along = _without(out, dim, source.size), _along(index, dim, source.size)
    _numbered(writer, "scatter_add", still, source, [along], [(out.stride[dim], out.size[dim])], source.size)


INDICES: dict[Any, Rule] = {
    aten.gather.default: into(_gather),
    aten.scatter.src: into(_scatter, "scatter"),
    aten.scatter.value: into(_scatter, "scatter"),
    aten.scatter_add.default: into(_scatter, "scatter_add"),
    aten.index_select.default: into(_index_select),
    aten.index.Tensor: into(_index_tensor),
    aten.index_put.default: into(_index_put),
    UNSAFE_INDEX_PUT: into(_index_put),
    UNSAFE_INDEX: into(_index_tensor),
    aten.index_add.default: into(_index_add),
}  # fmt: skip
