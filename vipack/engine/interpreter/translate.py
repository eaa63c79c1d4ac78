"""From a step's graph to a program: views cost nothing, what depends on no input is worked out beforehand."""

from __future__ import annotations

import operator
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from vipack.compat.aten import LINALG_CHECK_ERRORS, RESHAPE_ALIAS, UNSAFE_VIEW
from vipack.compat.pytorch import OpOverload, schema_of, storage_address
from vipack.engine.graph.nodes import is_random, output_of
from vipack.engine.interpreter.blocks import join_into_blocks
from vipack.engine.interpreter.instructions import Program, Writer
from vipack.engine.interpreter.layout import NotUnderstood, Value, contiguous
from vipack.engine.interpreter.rules.operands import copy_into, given
from vipack.engine.interpreter.rules.table import RULES
from vipack.engine.interpreter.spare_copies import drop_copies
from vipack.engine.native.operations import Base

__all__ = ["translate"]

aten = torch.ops.aten
_MOST_FOLDED = 1_000_000  # elements of a constant


def translate(module: fx.GraphModule, kernels: Collection[str]) -> Program:
    """The program of a step's graph, whose nodes carry examples of their values in ``meta["val"]``.

    Args:
        kernels: names of those that there are; torch's library does the rest.

    Raises:
        NotUnderstood: the graph holds something that neither a kernel nor torch's library can be called for.
    """
    writer = Writer(_inline, kernels)
    for index, node in enumerate(n for n in module.graph.nodes if n.op == "placeholder"):
        example = node.meta["val"]
        base = Base("input", index)
        writer.values[node] = Value(base, example.dtype, tuple(example.shape), contiguous(example.shape))
    for node in module.graph.nodes:
        if node.op == "call_function":
            _translate(writer, node)
        elif node.op == "output":
            (loss,) = node.args[0]
            writer.program.loss = writer.value(loss)
    drop_copies(writer.program)
    join_into_blocks(writer.program)
    return writer.program


def _inline(writer: Writer, module: fx.GraphModule, inputs: Sequence[Value]) -> list[Value]:
    """Write the graph on these values; its results."""
    given = iter(inputs)
    for node in module.graph.nodes:
        if node.op == "placeholder":
            writer.values[node] = next(given)
        elif node.op == "get_attr":
            writer.folded[node] = getattr(module, str(node.target))
        elif node.op == "call_function":
            _translate(writer, node)
    return [writer.value(result) for result in output_of(module.graph).args[0]]


def _translate(writer: Writer, node: fx.Node) -> None:
    if _fold(writer, node):
        return
    if node.target is operator.getitem:
        writer.values[node] = writer.values[given(node)[0]][given(node)[1]]
        return
    if node.target is aten.copy_.default:
        target, source = (writer.value(a) for a in node.args)
        copy_into(writer, target, source)
        writer.values[node] = target
        return
    if node.target in _VIEWS and _view(writer, node):
        return
    if node.target is LINALG_CHECK_ERRORS and writer.value(node.args[0]) in writer.unfailing:
        return
    rule = RULES.get(node.target)
    if rule is not None:
        before = len(writer.program.operations)
        try:
            value = rule(writer, node)
            if all(line.kernel in writer.kernels for line in writer.program.operations[before:]):
                writer.values[node] = value
                return
        except NotUnderstood:
            pass
        del writer.program.operations[before:]
    _library(writer, node)


def _fold(writer: Writer, node: fx.Node) -> bool:
    if node.target in _OF_A_SHAPE:
        example = node.meta["val"]
        fill = _OF_A_SHAPE[node.target]
        number = given(node)[fill] if isinstance(fill, int) else fill
        if example.numel() > _MOST_FOLDED or isinstance(number, fx.Node):
            return False
        writer.folded[node] = torch.full(tuple(example.shape), float(number), dtype=example.dtype)
        return True
    if is_random(node) or not all(source in writer.folded for source in node.all_input_nodes):
        return False
    if not isinstance(node.target, OpOverload) and node.target is not operator.getitem:
        return False
    example = node.meta.get("val")
    if isinstance(example, Tensor) and example.numel() > _MOST_FOLDED:
        return False
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: writer.folded[n])
    function: Any = node.target
    writer.folded[node] = function(*args, **kwargs)
    return True


# Operators that only ask for their input's shape -> what they fill it with, or the position of that among the arguments.
_OF_A_SHAPE: dict[Any, float | int] = {
    aten.zeros_like.default: 0.0, aten.ones_like.default: 1.0, aten.empty_like.default: 0.0, aten.full_like.default: 1,
    aten.new_zeros.default: 0.0, aten.new_ones.default: 1.0, aten.new_empty.default: 0.0, aten.new_full.default: 2,
    aten.new_empty_strided.default: 0.0,
}  # fmt: skip

# Operators whose results lie in their input's memory.
_VIEWS = {
    aten.view.default, UNSAFE_VIEW, aten.reshape.default, RESHAPE_ALIAS, aten.expand.default,
    aten.permute.default, aten.transpose.int, aten.t.default, aten.select.int, aten.slice.Tensor, aten.unsqueeze.default,
    aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.alias.default, aten.detach.default,
    aten.diagonal.default, aten.split.Tensor, aten.split_with_sizes.default, aten.unbind.int,
    aten.lift_fresh.default, aten.unfold.default,
}  # fmt: skip


def _view(writer: Writer, node: fx.Node) -> bool:
    source = writer.value(node.args[0])
    # What the operator makes of a tensor that is laid out like this and has no memory.
    there = torch.empty_strided(source.size, source.stride, dtype=source.dtype, device="meta")
    function: Any = node.target
    try:
        result = function(there, *node.args[1:], **node.kwargs)
    except RuntimeError:  # strides that no view has: torch copies there
        return False
    results = result if isinstance(result, list | tuple) else (result,)
    if any(storage_address(each) != storage_address(there) for each in results):
        return False
    values = tuple(
        Value(source.base, source.dtype, tuple(each.shape), each.stride(), source.offset + int(each.storage_offset()))
        for each in results
    )
    writer.values[node] = values if isinstance(result, list | tuple) else values[0]
    return True


def _library(writer: Writer, node: fx.Node) -> None:
    """Leave a node to torch."""
    if not isinstance(node.target, OpOverload) or schema_of(node.target).is_mutable:
        raise NotUnderstood(f"{node.target}")
    example = node.meta.get("val", ())
    examples = list(example) if isinstance(example, list | tuple) else [example]
    if not all(e is None or isinstance(e, Tensor) for e in examples):
        raise NotUnderstood(f"{node.target} gives {type(example).__name__}")

    def resolve(argument: Any) -> Any:
        if isinstance(argument, fx.Node):
            return writer.value(argument)
        if isinstance(argument, list | tuple):
            return [resolve(item) for item in argument]
        return argument

    results = tuple(None if e is None else writer.new(e.shape, e.dtype, e.stride()) for e in examples)
    writer.call(node, resolve, results)
    writer.values[node] = results if isinstance(example, list | tuple) else results[0]
