"""Sums and their like."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from vipack.compat.aten import LOG_SOFTMAX, LOG_SOFTMAX_BACKWARD, SOFTMAX, SOFTMAX_BACKWARD
from vipack.engine.interpreter.instructions import Writer
from vipack.engine.interpreter.layout import NotUnderstood, Value, broadcast, loop
from vipack.engine.interpreter.rules.operands import Rule, argument, cast, into, tag

__all__ = ["REDUCTIONS"]

aten = torch.ops.aten
_FLOATING = (torch.float32, torch.float64)
_COUNTABLE = (*_FLOATING, torch.int64)


def _dims(value: Value, dims: Any) -> list[int]:
    if dims is None or dims == []:
        return list(range(len(value.size)))
    return [d % max(1, len(value.size)) for d in ([dims] if isinstance(dims, int) else dims)]


def _reduce(
    writer: Writer, kernel: str, out: Value, value: Value, dims: Sequence[int], scalars: Sequence[float] = (),
    others: Sequence[Value] = (), *, whole: bool = False,
) -> None:  # fmt: skip
    """A kernel that keeps some dimensions and reduces others; with `whole` its output has all of them."""
    if value.numel == 0:
        raise NotUnderstood("nothing to reduce")
    dims = list(dims) if value.size else []
    rest = [d for d in range(len(value.size)) if d not in dims]
    if whole:
        out_rest = [out.stride[d] for d in rest]
        out_dims = [out.stride[d] for d in dims]
    else:
        strides = list(out.stride)
        if len(out.size) == len(value.size):  # keepdim
            strides = [strides[d] for d in rest]
        out_rest, out_dims = strides, [0] * len(dims)

    def loop_over(which: Sequence[int], own: Sequence[int]) -> tuple[list[int], list[list[int]]]:
        inputs = [[v.stride[d] for d in which] for v in (value, *others)]
        size, steps = loop([value.size[d] for d in which], [*inputs, own], most=2)
        return [1] * (2 - len(size)) + size, [[0] * (2 - len(s)) + s for s in steps]

    kept_size, kept_steps = loop_over(rest, out_rest)
    sizes, steps = loop_over(dims, out_dims)
    joined = [[*k, *r] for k, r in zip(kept_steps, steps, strict=True)]
    row_dim = 1 if kept_size[0] == 1 else 0
    writer.add(
        kernel, out, [value, *others], [*kept_size, *sizes], [joined[-1], *joined[:-1]], scalars, row_dim=row_dim
    )


def _sum(writer: Writer, node: fx.Node, out: Value) -> None:
    value = writer.value(node.args[0])
    if value.dtype in (torch.bool, torch.int64) and out.dtype == torch.int64:
        _reduce(writer, f"sum_{tag(value.dtype)}", out, value, _dims(value, argument(node, 1, "dim", None)))
        return
    if not out.dtype.is_floating_point:
        raise NotUnderstood("sum")
    _reduce(
        writer,
        f"sum_{tag(out.dtype)}",
        out,
        cast(writer, value, out.dtype),
        _dims(value, argument(node, 1, "dim", None)),
        [1.0],
    )


def _mean(writer: Writer, node: fx.Node, out: Value) -> None:
    value = writer.value(node.args[0])
    if not out.dtype.is_floating_point:
        raise NotUnderstood("mean")
    dims = _dims(value, argument(node, 1, "dim", None))
    number = math.prod(value.size[d] for d in dims) if value.size else 1
    _reduce(writer, f"sum_{tag(out.dtype)}", out, cast(writer, value, out.dtype), dims, [1 / number])


def _reduction(writer: Writer, node: fx.Node, out: Value, kernel: str, *, dims: bool = True) -> None:
    value = writer.value(node.args[0])
    if out.dtype != value.dtype:
        raise NotUnderstood(kernel)
    wanted = argument(node, 1, "dim", None) if dims else None
    _reduce(writer, f"{kernel}_{tag(value.dtype)}", out, value, _dims(value, wanted))


def _max_along(writer: Writer, node: fx.Node) -> tuple[Value, Value]:
    examples, value = node.meta["val"], writer.value(node.args[0])
    most, indices = (writer.new(e.shape, e.dtype, e.stride()) for e in examples)
    if value.dtype not in _COUNTABLE:
        raise NotUnderstood("max")
    dims = _dims(value, node.args[1])
    _reduce(writer, f"amax_{tag(value.dtype)}", most, value, dims)
    _reduce(writer, f"argmax_{tag(value.dtype)}", indices, value, dims)
    return most, indices


def _truth(writer: Writer, node: fx.Node, out: Value, kernel: str, *, dims: bool) -> None:
    value = cast(writer, writer.value(node.args[0]), torch.bool)
    wanted = argument(node, 1, "dim", None) if dims else None
    _reduce(writer, f"{kernel}_bool", out, value, _dims(value, wanted))


def _along(writer: Writer, node: fx.Node, out: Value, kernel: str) -> None:
    """Kernels whose output is as large as their input."""

    if out.dtype not in (_COUNTABLE if kernel.startswith("cum") else _FLOATING):
        raise NotUnderstood(kernel)
    value = cast(writer, writer.value(node.args[0]), out.dtype)
    _reduce(writer, f"{kernel}_{tag(out.dtype)}", out, value, _dims(value, node.args[1]), whole=True)


def _softmax_backward(writer: Writer, node: fx.Node, out: Value, kernel: str) -> None:
    grad, output = (writer.value(a) for a in node.args[:2])
    grad = broadcast(grad, output.size)
    if len({out.dtype, grad.dtype, output.dtype}) > 1:
        raise NotUnderstood(kernel)
    dims = _dims(grad, node.args[2])
    _reduce(writer, f"{kernel}_{tag(out.dtype)}", out, grad, dims, others=[output], whole=True)


REDUCTIONS: dict[Any, Rule] = {
    aten.sum.default: into(_sum),
    aten.sum.dim_IntList: into(_sum),
    aten.mean.default: into(_mean),
    aten.mean.dim: into(_mean),
    aten.amax.default: into(_reduction, "amax"),
    aten.amin.default: into(_reduction, "amin"),
    aten.max.default: into(_reduction, "amax", dims=False),
    aten.min.default: into(_reduction, "amin", dims=False),
    aten.max.dim: _max_along,
    aten.prod.default: into(_reduction, "prod", dims=False),
    aten.prod.dim_int: into(_reduction, "prod"),
    aten.logsumexp.default: into(_reduction, "logsumexp"),
    aten.all.default: into(_truth, "all", dims=False),
    aten.any.default: into(_truth, "any", dims=False),
    aten.all.dim: into(_truth, "all", dims=True),
    aten.any.dim: into(_truth, "any", dims=True),
    aten.cumsum.default: into(_along, "cumsum"),
    aten.cumprod.default: into(_along, "cumprod"),
    SOFTMAX: into(_along, "softmax"),
    LOG_SOFTMAX: into(_along, "log_softmax"),
    SOFTMAX_BACKWARD: into(_softmax_backward, "softmax_backward"),
    LOG_SOFTMAX_BACKWARD: into(_softmax_backward, "log_softmax_backward"),
}  # fmt: skip
