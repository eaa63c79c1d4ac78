"""Loops over time: the program holds the body's operations once and repeats them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from vipack.engine.interpreter.instructions import Operation, Writer
from vipack.engine.interpreter.layout import Value
from vipack.engine.interpreter.rules.operands import Rule, copy_into, elementwise, fill, given, tag
from vipack.program import body_of

__all__ = ["SCANS"]


def _scan(writer: Writer, node: fx.Node) -> tuple[Value, ...]:
    carry, xs, constants, key = _arguments(writer, node)
    body = body_of(key)
    state = [_copy(writer, value) for value in carry]
    ys = [writer.new((body.length, *shape.size), shape.dtype) for shape in body.outputs]
    carries = [writer.new((body.length, *value.size), value.dtype) for value in state]
    wholes = [_whole(writer, x) for x in xs]
    start = len(writer.program.operations)
    for target, value in zip(carries, state, strict=True):
        _store(writer, target, value)
    entries = [_load(writer, whole) for whole in wholes]
    outputs = writer.inline(body.forward, [*state, *entries, *constants])
    for target, value in zip(ys, outputs[len(state) :], strict=True):
        _store(writer, target, value)
    for target, value in zip(state, outputs, strict=False):
        copy_into(writer, target, value)
    _repeat(writer, start, body.length, backwards=False)
    return (*state, *ys, *carries)


def _scan_backward(writer: Writer, node: fx.Node) -> tuple[Value, ...]:
    carries, xs, constants, grad_carry, grad_ys, key = _arguments(writer, node)
    body = body_of(key)
    state = [_copy(writer, value) for value in grad_carry]
    of_xs = [writer.new(value.size, value.dtype) for value in xs]
    totals = [writer.new(value.size, value.dtype) for value in constants]
    for total in totals:
        fill(writer, total)
    wholes = [[_whole(writer, value) for value in values] for values in (carries, xs, grad_ys)]
    start = len(writer.program.operations)
    before, entries, of_ys = ([_load(writer, whole) for whole in values] for values in wholes)
    outputs = writer.inline(body.backward, [*before, *entries, *constants, *state, *of_ys])
    count, width = len(state), len(state) + len(xs)
    for target, value in zip(of_xs, outputs[count:width], strict=True):
        _store(writer, target, value)
    for total, value in zip(totals, outputs[width:], strict=True):
        if total.dtype.is_floating_point:
            elementwise(writer, f"plus_{tag(total.dtype)}", total, [total, value])
    for target, value in zip(state, outputs, strict=False):
        copy_into(writer, target, value)
    _repeat(writer, start, body.length, backwards=True)
    return (*state, *of_xs, *totals)


def _arguments(writer: Writer, node: fx.Node) -> list[Any]:
    *lists, key = given(node)
    return [*([writer.value(item) for item in values] for values in lists), key]


def _copy(writer: Writer, value: Value) -> Value:
    copy = writer.new(value.size, value.dtype)
    copy_into(writer, copy, value)
    return copy


def _whole(writer: Writer, value: Value) -> Value:
    return value if value.is_contiguous() else _copy(writer, value)


def _load(writer: Writer, whole: Value) -> Value:
    """One entry of `whole`, another in each turn."""
    entry = writer.new(whole.size[1:], whole.dtype)
    size = entry.numel * entry.dtype.itemsize
    writer.add("load", entry, [whole], (), (), extra=(size, size))
    return entry


def _store(writer: Writer, whole: Value, entry: Value) -> None:
    entry = _whole(writer, entry)
    size = entry.numel * entry.dtype.itemsize
    writer.add("store", whole, [entry], (), (), extra=(size, size))


def _repeat(writer: Writer, start: int, length: int, *, backwards: bool) -> None:
    """Let everything from line `start` on be run `length` times."""
    lines: Sequence[Operation] = writer.program.operations[start:]
    head = Operation("repeat", None, (), (), (), extra=(len(lines), length, int(backwards)))
    writer.program.operations.insert(start, head)


# The operators exist where vipack.program.scan has been imported.
SCANS: dict[Any, Rule] = {torch.ops.vipack.scan.default: _scan, torch.ops.vipack.scan_backward.default: _scan_backward}
