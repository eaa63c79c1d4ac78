"""Element by element."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from vipack.compat.aten import TO_COPY, UNSAFE_VIEW
from vipack.engine.interpreter.instructions import Writer
from vipack.engine.interpreter.layout import NotUnderstood, Value, broadcast
from vipack.engine.interpreter.rules.operands import (
    Rule,
    argument,
    copy_into,
    elementwise,
    given,
    into,
    operand,
    pointwise,
    tag,
)

__all__ = ["ELEMENTWISE"]

aten = torch.ops.aten
_ORDER = (torch.bool, torch.int32, torch.int64, torch.float32, torch.float64)


def _common(writer: Writer, arguments: Sequence[Any]) -> torch.dtype:
    """The type in which tensors and numbers are compared."""
    tensors = [writer.value(a).dtype for a in arguments if isinstance(a, fx.Node)]
    floats = [a for a in arguments if isinstance(a, float)]
    common = max(tensors, key=_ORDER.index)
    return torch.float32 if floats and not common.is_floating_point else common


def _unary(writer: Writer, node: fx.Node, out: Value, kernel: str, *, integers: bool = False) -> None:
    if not out.dtype.is_floating_point and (out.dtype != torch.int64 or not integers):
        raise NotUnderstood(kernel)
    elementwise(writer, f"{kernel}_{tag(out.dtype)}", out, [operand(writer, node.args[0], out.dtype)])


def _scalars(
    writer: Writer, node: fx.Node, out: Value, kernel: str, *scalars: tuple[int, str, float], operands: int = 1
) -> None:
    """A floating-point kernel with numbers among its arguments."""

    numbers = [argument(node, *scalar) for scalar in scalars]
    if not out.dtype.is_floating_point or any(isinstance(n, fx.Node) for n in numbers):
        raise NotUnderstood(kernel)
    values = [operand(writer, a, out.dtype) for a in node.args[:operands]]
    elementwise(writer, f"{kernel}_{tag(out.dtype)}", out, values, [float(n) for n in numbers])


def _binary(
    writer: Writer, node: fx.Node, out: Value, kernel: str, *, alpha: bool = False, integers: bool = True
) -> None:
    if out.dtype not in (torch.float32, torch.float64) and not (integers and out.dtype == torch.int64):
        raise NotUnderstood(kernel)
    a, b = (operand(writer, v, out.dtype) for v in node.args[:2])
    factor = float(argument(node, 2, "alpha", 1)) if alpha else 1.0
    name = "plus" if kernel == "add" and factor == 1 else kernel
    elementwise(writer, f"{name}_{tag(out.dtype)}", out, [a, b], [factor] if alpha else [])


def _compare(writer: Writer, node: fx.Node, out: Value, kernel: str) -> None:
    common = _common(writer, node.args)
    elementwise(writer, f"{kernel}_{tag(common)}", out, [operand(writer, v, common) for v in node.args])


def _predicate(writer: Writer, node: fx.Node, out: Value, kernel: str) -> None:
    value = writer.value(node.args[0])
    if kernel != "logical_not" and not value.dtype.is_floating_point:
        raise NotUnderstood(kernel)
    elementwise(writer, f"{kernel}_{tag(value.dtype)}", out, [value])


def _bits(writer: Writer, node: fx.Node, out: Value, kernel: str) -> None:
    """Bitwise operators, which on truth values are logical ones."""

    if out.dtype != torch.bool:
        raise NotUnderstood(kernel)
    elementwise(writer, f"{kernel}_bool", out, [operand(writer, v, torch.bool) for v in node.args])


def _power(writer: Writer, node: fx.Node, out: Value) -> None:
    if not out.dtype.is_floating_point:
        raise NotUnderstood("pow")
    base, exponent = given(node)
    x, t = operand(writer, base, out.dtype), tag(out.dtype)
    if exponent == 2:
        elementwise(writer, f"mul_{t}", out, [x, x])
    elif exponent == 1:
        copy_into(writer, out, x)
    elif exponent in (0.5, -0.5, -1):
        kernel = {0.5: "sqrt", -0.5: "rsqrt", -1: "reciprocal"}[exponent]
        elementwise(writer, f"{kernel}_{t}", out, [x])
    elif exponent == 3:
        square = writer.new(out.size, out.dtype)
        elementwise(writer, f"mul_{t}", square, [x, x])
        elementwise(writer, f"mul_{t}", out, [square, x])
    else:
        elementwise(writer, f"pow_{t}", out, [x, operand(writer, exponent, out.dtype)])


def _ternary(writer: Writer, node: fx.Node, out: Value, kernel: str, *, value: bool) -> None:
    if not out.dtype.is_floating_point:
        raise NotUnderstood(kernel)
    values = [operand(writer, v, out.dtype) for v in node.args[:3]]
    scalars = [float(argument(node, 3, "value", 1))] if value else []
    elementwise(writer, f"{kernel}_{tag(out.dtype)}", out, values, scalars)


def _where(writer: Writer, node: fx.Node, out: Value, *order: int) -> None:
    """`order` of the condition and the values where it is true and false among the arguments."""
    condition, a, b = (node.args[i] for i in order)
    values = [operand(writer, condition, torch.bool), *(operand(writer, v, out.dtype) for v in (a, b))]
    elementwise(writer, f"where_{tag(out.dtype)}", out, values)


def _clamp(writer: Writer, node: fx.Node, out: Value, *positions: int | None) -> None:
    """`positions` of the lower and the upper bound among the arguments."""

    low, high = (i and argument(node, i, name, None) for i, name in zip(positions, ("min", "max"), strict=True))
    if not out.dtype.is_floating_point or isinstance(low, fx.Node) or isinstance(high, fx.Node):
        raise NotUnderstood("clamp")
    kernel = "clamp" if low is not None and high is not None else "clamp_min" if high is None else "clamp_max"
    scalars = [0.0 if bound is None else float(bound) for bound in (low, high)]
    elementwise(writer, f"{kernel}_{tag(out.dtype)}", out, [operand(writer, node.args[0], out.dtype)], scalars)


def _copied(writer: Writer, node: fx.Node) -> Value:
    out = writer.like(node)
    source = writer.value(node.args[0])
    if source.size != out.size:  # a reshape that must copy
        flat = writer.new(source.size, out.dtype)
        copy_into(writer, flat, source)
        return replace(flat, size=out.size, stride=out.stride)
    copy_into(writer, out, source)
    return out


def _filled(writer: Writer, node: fx.Node, out: Value) -> None:
    copy_into(writer, out, broadcast(writer.value(node.args[1]), out.size))


def _log_sigmoid(writer: Writer, node: fx.Node) -> tuple[Value, Value]:
    example, buffer = node.meta["val"]
    out = writer.new(example.shape, example.dtype)
    elementwise(writer, f"log_sigmoid_{tag(out.dtype)}", out, [writer.value(node.args[0])])
    rest = writer.new(buffer.shape, buffer.dtype)
    if rest.numel:  # what torch's own backward pass reads
        elementwise(writer, f"abs_{tag(out.dtype)}", rest, [writer.value(node.args[0])])
        elementwise(writer, f"neg_{tag(out.dtype)}", rest, [rest])
        elementwise(writer, f"exp_{tag(out.dtype)}", rest, [rest])
    return out, rest


def _log_sigmoid_backward(writer: Writer, node: fx.Node, out: Value) -> None:
    elementwise(writer, f"log_sigmoid_backward_{tag(out.dtype)}", out, [writer.value(a) for a in node.args[:2]])


def _cross_entropy(writer: Writer, node: fx.Node, out: Value) -> None:
    """Without weights or a sum, which torch's own operator does."""
    if (
        not out.dtype.is_floating_point
        or any(argument(node, i, name, None) is not None for i, name in ((2, "weight"), (3, "pos_weight")))
        or argument(node, 4, "reduction", 1)
    ):
        raise NotUnderstood("cross entropy")
    values = [operand(writer, a, out.dtype) for a in node.args[:2]]
    elementwise(writer, f"cross_entropy_{tag(out.dtype)}", out, values)


def _squared(writer: Writer, node: fx.Node, out: Value) -> None:
    value = operand(writer, node.args[0], out.dtype)
    elementwise(writer, f"mul_{tag(out.dtype)}", out, [value, value])


ELEMENTWISE: dict[Any, Rule] = {
    **{getattr(aten, name).default: pointwise(_unary, name) for name in (
        "neg", "exp", "log", "log1p", "expm1", "sqrt", "rsqrt", "reciprocal", "tanh", "sigmoid", "sin", "cos", "erf",
        "lgamma", "abs", "sign", "tan", "atan", "asin", "acos", "sinh", "cosh", "erfc", "log2", "log10", "exp2",
        "digamma", "floor", "ceil", "trunc", "round", "silu")},
    **{getattr(getattr(aten, name), overload): pointwise(_compare, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")
       for overload in ("Tensor", "Scalar")},
    aten.sgn.default: pointwise(_unary, "sign"),
    aten.relu.default: pointwise(_unary, "relu", integers=True),
    aten.logical_and.default: pointwise(_compare, "and"),
    aten.logical_or.default: pointwise(_compare, "or"),
    aten.logical_xor.default: pointwise(_compare, "xor"),
    aten.bitwise_and.Tensor: pointwise(_bits, "and"),
    aten.bitwise_or.Tensor: pointwise(_bits, "or"),
    aten.bitwise_xor.Tensor: pointwise(_bits, "xor"),
    aten.logical_not.default: pointwise(_predicate, "logical_not"),
    aten.isnan.default: pointwise(_predicate, "isnan"),
    aten.isinf.default: pointwise(_predicate, "isinf"),
    aten.add.Tensor: pointwise(_binary, "add", alpha=True),
    aten.add.Scalar: pointwise(_binary, "add", alpha=True),
    aten.sub.Tensor: pointwise(_binary, "sub", alpha=True),
    aten.sub.Scalar: pointwise(_binary, "sub", alpha=True),
    aten.rsub.Scalar: pointwise(_binary, "rsub", alpha=True),
    aten.rsub.Tensor: pointwise(_binary, "rsub", alpha=True),
    aten.mul.Tensor: pointwise(_binary, "mul"),
    aten.mul.Scalar: pointwise(_binary, "mul"),
    aten.div.Tensor: pointwise(_binary, "div", integers=False),
    aten.div.Scalar: pointwise(_binary, "div", integers=False),
    aten.xlogy.Tensor: pointwise(_binary, "xlogy", integers=False),
    aten.xlogy.Scalar_Other: pointwise(_binary, "xlogy", integers=False),
    aten.xlogy.Scalar_Self: pointwise(_binary, "xlogy", integers=False),
    aten.bitwise_not.default: pointwise(_bits, "logical_not"),
    aten.atan2.default: pointwise(_binary, "atan2", integers=False),
    aten.maximum.default: pointwise(_binary, "maximum"),
    aten.minimum.default: pointwise(_binary, "minimum"),
    aten.clamp_min.Tensor: pointwise(_binary, "maximum"),
    aten.clamp_max.Tensor: pointwise(_binary, "minimum"),
    aten.pow.Tensor_Scalar: pointwise(_power),
    aten.pow.Tensor_Tensor: pointwise(_power),
    aten.pow.Scalar: pointwise(_power),
    aten.square.default: pointwise(_squared),
    aten.where.self: pointwise(_where, 0, 1, 2),
    aten.masked_fill.Scalar: pointwise(_where, 1, 2, 0),
    aten.masked_fill.Tensor: pointwise(_where, 1, 2, 0),
    aten.addcmul.default: pointwise(_ternary, "addcmul", value=True),
    aten.addcdiv.default: pointwise(_ternary, "addcdiv", value=True),
    aten.lerp.Tensor: pointwise(_ternary, "lerp", value=False),
    aten.lerp.Scalar: pointwise(_ternary, "lerp", value=False),
    aten.clamp.default: pointwise(_clamp, 1, 2),
    aten.clamp_min.default: pointwise(_scalars, "clamp_min", (1, "min", 0.0)),
    aten.clamp_max.default: pointwise(_clamp, None, 1),
    aten.softplus.default: pointwise(_scalars, "softplus", (1, "beta", 1.0), (2, "threshold", 20.0)),
    aten.softplus_backward.default: pointwise(_scalars, "softplus_backward", (2, "beta", 1.0), (3, "threshold", 20.0), operands=2),
    aten.leaky_relu.default: pointwise(_scalars, "leaky_relu", (1, "negative_slope", 0.01)),
    aten.threshold_backward.default: pointwise(_scalars, "threshold_backward", (2, "threshold", 0.0), operands=2),
    aten.tanh_backward.default: pointwise(_binary, "tanh_backward", integers=False),
    aten.sigmoid_backward.default: pointwise(_binary, "sigmoid_backward", integers=False),
    aten.binary_cross_entropy_with_logits.default: pointwise(_cross_entropy),
    aten.log_sigmoid_forward.default: _log_sigmoid,
    aten.log_sigmoid_backward.default: pointwise(_log_sigmoid_backward),
    aten.clone.default: _copied,
    aten.copy.default: into(_filled),
    TO_COPY: _copied,
    aten.contiguous.default: _copied,
    aten.lift_fresh_copy.default: _copied,
    aten.view.default: _copied,
    UNSAFE_VIEW: _copied,
    aten.reshape.default: _copied,
}  # fmt: skip
