"""Tensors put together from pieces, or with pieces set."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import fx

from vipack.engine.interpreter.instructions import Writer
from vipack.engine.interpreter.layout import Value
from vipack.engine.interpreter.rules.operands import Rule, argument, copy_into, fill, given, into

__all__ = ["PIECES"]

aten = torch.ops.aten


def _concatenate(writer: Writer, node: fx.Node, out: Value) -> None:
    dim = int(argument(node, 1, "dim", 0))
    start = 0
    for piece in given(node)[0]:
        value = writer.value(piece)
        if len(value.size) != len(out.size):  # the empty tensor that torch lets pass
            continue
        length = value.size[dim]
        copy_into(writer, out.slice(dim, start, length), value)
        start += length


def _stack(writer: Writer, node: fx.Node, out: Value) -> None:
    dim = int(argument(node, 1, "dim", 0))
    for index, piece in enumerate(given(node)[0]):
        copy_into(writer, out.select(dim, index), writer.value(piece))


def _select_backward(writer: Writer, node: fx.Node, out: Value) -> None:
    grad, _, dim, index = given(node)
    fill(writer, out)
    position = int(index) % out.size[int(dim)]
    copy_into(writer, out.select(int(dim), position), writer.value(grad))


def _range(size: int, start: Any, end: Any, step: Any) -> tuple[int, int, int]:
    start, end, step = slice(start, end, step).indices(size)
    return start, max(0, -(-(end - start) // step)), step


def _slice_backward(writer: Writer, node: fx.Node, out: Value) -> None:
    grad, _, dim, start, end, step = given(node)
    fill(writer, out)
    d = int(dim)
    copy_into(writer, out.slice(d, *_range(out.size[d], start, end, step)), writer.value(grad))


def _slice_scatter(writer: Writer, node: fx.Node, out: Value) -> None:
    dim = int(argument(node, 2, "dim", 0))
    bounds = [argument(node, 3, "start", None), argument(node, 4, "end", None), argument(node, 5, "step", 1)]
    copy_into(writer, out, writer.value(node.args[0]))
    copy_into(writer, out.slice(dim, *_range(out.size[dim], *bounds)), writer.value(node.args[1]))


def _select_scatter(writer: Writer, node: fx.Node, out: Value) -> None:
    dim, index = int(given(node)[2]), int(given(node)[3])
    copy_into(writer, out, writer.value(node.args[0]))
    copy_into(writer, out.select(dim, index % out.size[dim]), writer.value(node.args[1]))


def _diagonal(value: Value, offset: int, first: int, second: int) -> Value:
    first, second = first % len(value.size), second % len(value.size)
    rows, columns = value.size[first], value.size[second]
    length = min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns)
    start = offset * value.stride[second] if offset >= 0 else -offset * value.stride[first]
    rest = [d for d in range(len(value.size)) if d not in (first, second)]
    return replace(
        value,
        size=(*(value.size[d] for d in rest), max(length, 0)),
        stride=(*(value.stride[d] for d in rest), value.stride[first] + value.stride[second]),
        offset=value.offset + start,
    )


def _diagonal_backward(writer: Writer, node: fx.Node, out: Value) -> None:
    grad, _, offset, first, second = given(node)
    fill(writer, out)
    copy_into(writer, _diagonal(out, offset, first, second), writer.value(grad))


def _diagonal_scatter(writer: Writer, node: fx.Node, out: Value) -> None:
    arguments = [int(argument(node, 2 + i, n, d)) for i, (n, d) in enumerate([("offset", 0), ("dim1", 0), ("dim2", 1)])]
    copy_into(writer, out, writer.value(node.args[0]))
    copy_into(writer, _diagonal(out, *arguments), writer.value(node.args[1]))


def _diagonal_embedding(writer: Writer, node: fx.Node, out: Value) -> None:
    arguments = [
        int(argument(node, 1 + i, n, d)) for i, (n, d) in enumerate([("offset", 0), ("dim1", -2), ("dim2", -1)])
    ]
    fill(writer, out)
    copy_into(writer, _diagonal(out, *arguments), writer.value(node.args[0]))


def _pad(writer: Writer, node: fx.Node, out: Value) -> None:
    value = writer.value(node.args[0])
    widths: Any = node.args[1]
    fill(writer, out, float(argument(node, 2, "value", 0)))
    inside = out
    for i in range(len(widths) // 2):
        before, after = widths[2 * i], widths[2 * i + 1]
        dim = len(out.size) - 1 - i
        length = value.size[dim] + min(before, 0) + min(after, 0)  # negative widths cut off
        value = value.slice(dim, max(-before, 0), length)
        inside = inside.slice(dim, max(before, 0), length)
    copy_into(writer, inside, value)


def _flip(writer: Writer, node: fx.Node, out: Value) -> None:
    value = writer.value(node.args[0])
    size, stride, offset = value.size, list(value.stride), value.offset
    for d in given(node)[1]:
        offset += (size[d] - 1) * stride[d]
        stride[d] = -stride[d]
    copy_into(writer, out, replace(value, stride=tuple(stride), offset=offset))


PIECES: dict[Any, Rule] = {
    aten.cat.default: into(_concatenate),
    aten.stack.default: into(_stack),
    aten.select_backward.default: into(_select_backward),
    aten.slice_backward.default: into(_slice_backward),
    aten.slice_scatter.default: into(_slice_scatter),
    aten.select_scatter.default: into(_select_scatter),
    aten.diagonal_backward.default: into(_diagonal_backward),
    aten.diagonal_scatter.default: into(_diagonal_scatter),
    aten.diag_embed.default: into(_diagonal_embedding),
    aten.constant_pad_nd.default: into(_pad),
    aten.flip.default: into(_flip),
}  # fmt: skip
