"""What the rules share: operands in a wanted type, and one kernel over broadcast operands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from vipack.engine.interpreter.instructions import Writer
from vipack.engine.interpreter.layout import NotUnderstood, Value, broadcast, loop
from vipack.engine.native.dtypes import SUFFIXES

__all__ = [
    "Rule",
    "argument",
    "cast",
    "copy_into",
    "elementwise",
    "fill",
    "given",
    "into",
    "operand",
    "pointwise",
    "tag",
]

Rule = Callable[[Writer, fx.Node], Any]


def into(write: Callable[..., None], *arguments: Any, **options: Any) -> Rule:
    """A rule whose result is one tensor, which ``write(writer, node, out, *arguments, **options)`` fills."""

    def rule(writer: Writer, node: fx.Node) -> Value:
        out = writer.like(node)
        write(writer, node, out, *arguments, **options)
        return out

    return rule


def pointwise(write: Callable[..., None], *arguments: Any, **options: Any) -> Rule:
    """Likewise for functions of one entry at a time: where all operands repeat themselves along a dimension, it is computed once."""

    def rule(writer: Writer, node: fx.Node) -> Value:
        out = writer.like(node)
        wide = {source: broadcast(writer.value(source), out.size) for source in node.all_input_nodes}
        repeated = [d for d, n in enumerate(out.size) if n > 1 and all(v.stride[d] == 0 for v in wide.values())]
        if not repeated:
            write(writer, node, out, *arguments, **options)
            return out
        once = tuple(1 if d in repeated else n for d, n in enumerate(out.size))
        narrow = writer.new(once, out.dtype)
        writer.substitutes = {source: replace(value, size=once) for source, value in wide.items()}
        try:
            write(writer, node, narrow, *arguments, **options)
        finally:
            writer.substitutes = {}
        stride = tuple(0 if d in repeated else s for d, s in enumerate(narrow.stride))
        return replace(narrow, size=out.size, stride=stride)

    return rule


def tag(dtype: torch.dtype) -> str:
    """Suffix of the kernels for a type."""
    if dtype not in SUFFIXES:
        raise NotUnderstood(f"type {dtype}")
    return SUFFIXES[dtype]


def elementwise(
    writer: Writer, kernel: str, out: Value, operands: Sequence[Value], scalars: Sequence[float] = ()
) -> None:
    """One kernel over broadcast operands."""
    if out.numel == 0:
        return
    wide = [broadcast(v, out.size) for v in operands]
    size, strides = loop(out.size, [out.stride, *(v.stride for v in wide)])
    writer.add(kernel, out, operands, size, strides, scalars, row_dim=0)


def copy_into(writer: Writer, target: Value, source: Value) -> None:
    """Copy, with a change of type where there is one."""
    elementwise(writer, f"copy_{tag(source.dtype)}_{tag(target.dtype)}", target, [source])


def cast(writer: Writer, value: Value, dtype: torch.dtype) -> Value:
    """`value` in another type."""
    if value.dtype == dtype:
        return value
    real = [d for d, s in enumerate(value.stride) if s != 0 or value.size[d] == 1]
    narrow = replace(value, size=tuple(value.size[d] for d in real), stride=tuple(value.stride[d] for d in real))
    result = writer.new(narrow.size, dtype)
    copy_into(writer, result, narrow)
    stride = [0] * len(value.size)
    for d, s in zip(real, result.stride, strict=True):
        stride[d] = s
    return replace(result, size=value.size, stride=tuple(stride))


def operand(writer: Writer, argument: Any, dtype: torch.dtype) -> Value:
    """An argument, tensor or number, as a value of a type."""
    if isinstance(argument, fx.Node):
        return cast(writer, writer.value(argument), dtype)
    if isinstance(argument, bool | int | float):
        return writer.number(argument, dtype)
    raise NotUnderstood(f"argument {argument!r}")


def given(node: fx.Node) -> tuple[Any, ...]:
    """A node's positional arguments; numbers and lists among them are what the operator's schema says."""
    return node.args


def argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    """One of a node's arguments, by position or by name."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def fill(writer: Writer, out: Value, number: float = 0) -> None:
    """Fill with a number."""
    whole = writer.number(number, out.dtype)
    elementwise(writer, f"copy_{tag(out.dtype)}_{tag(out.dtype)}", out, [whole])
