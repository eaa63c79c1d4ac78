"""What Pyro would raise for in a step, as part of the step's graph.

A graph cannot raise where a value is outside of a site's support, a scale is negative or a matrix has no Cholesky factor. It
computes whether all is well, as one more result.
"""

from __future__ import annotations

import contextlib
import linecache
import math
import operator
import re
import sys
from collections.abc import Iterator
from typing import Any

import pyro
import torch
from torch import Tensor, fx

from vipack.compat.aten import LINALG_CHECK_ERRORS, SOFTMAX, UNSAFE_VIEW
from vipack.compat.patching import patched
from vipack.compat.pytorch import validation_noted
from vipack.engine.graph.nodes import ancestors, is_random, output_of

__all__ = ["LITERAL", "collected_checks", "keep_open_checks"]

aten = torch.ops.aten

LITERAL = (aten.lift_fresh_copy.default, aten.lift_fresh.default)  # of what `torch.tensor(0.5)` makes anew in every run
_VALIDATING = ("torch.distributions", "pyro.distributions", "pyro.poutine")
_RAISES_UNLESS_ALL = re.compile(r"\bif\b.*\bnot\b.*\.all\(\)")


@contextlib.contextmanager
def collected_checks() -> Iterator[list[Tensor]]:
    """Inside the block, validation of distributions and handlers raises nothing: what must be true goes to a list."""
    checks: list[Tensor] = []
    truth: Any = torch.Tensor.__bool__

    def note(valid: Tensor) -> bool:
        checks.append(valid)
        return True

    def note_or_ask(value: Tensor) -> bool:
        """Some distributions write ``if not valid.all(): raise`` themselves."""
        frame = sys._getframe(1)
        validating = str(frame.f_globals.get("__name__")).startswith(_VALIDATING)
        if validating and _RAISES_UNLESS_ALL.search(linecache.getline(frame.f_code.co_filename, frame.f_lineno)):
            return note(value)
        if value.dtype is not torch.bool and value.numel() == 1:
            value = value != 0  # the program asks for no more
        return bool(truth(value))

    with (
        patched(torch.Tensor, __bool__=note_or_ask),
        validation_noted(note),
        pyro.settings.context(validate_infer=False),
    ):
        yield checks


def keep_open_checks(module: fx.GraphModule, num_checks: int, first_array: int | None = None) -> int:
    """Let the last results of a graph be truth values, each of which says that Pyro would not raise somewhere; in place.

    Checks that cannot fail are left out, and so is NaN, which the loss shows. NaN among data is looked for where steps may not
    be taken back: it depends on nothing that a step changes, so that only other data are looked at again.

    Args:
        num_checks: how many of the last results are checks. Those of matrix factors are nodes of their own in the graph.
        first_array: index among the inputs of the first of the data; None leaves NaN among them to the loss.

    Returns:
        How many there are.
    """
    graph = module.graph
    output = output_of(graph)
    results = list(output.args[0])
    results, checks = results[: len(results) - num_checks], results[len(results) - num_checks :]
    factors = [node for node in graph.nodes if node.target is LINALG_CHECK_ERRORS]
    proof = _Proof(module, first_array)
    open_checks = list(dict.fromkeys(check for check in checks if not proof.holds(check)))
    with graph.inserting_before(output):
        terms = [_node(graph, aten.all.default, (check,)) for check in open_checks]
        for factor in factors:
            terms.append(_node(graph, aten.all.default, (_node(graph, aten.eq.Scalar, (factor.args[0], 0)),)))
    for factor in factors:
        graph.erase_node(factor)
    output.args = ([*results, *terms],)
    return len(terms)


def _node(graph: fx.Graph, target: Any, arguments: tuple[Any, ...]) -> fx.Node:
    node = graph.call_function(target, arguments)
    first = arguments[0].meta["val"]
    shape = tuple(first.shape) if target is aten.eq.Scalar else ()
    node.meta["val"] = torch.zeros(shape, dtype=torch.bool, device=first.device)
    return node


class _Proof:
    """What is known of a graph's values whatever its inputs are, but for NaN and for numbers that overflow."""

    def __init__(self, module: fx.GraphModule, first_array: int | None = None) -> None:
        self._module = module
        inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
        self._data = set() if first_array is None else set(inputs[first_array:])
        self._known: dict[fx.Node, tuple[float, float, bool]] = {}

    def holds(self, node: Any) -> bool:
        """Whether a truth value is true everywhere."""
        if not isinstance(node, fx.Node):
            return node is True
        target, inputs = node.target, node.args
        if target in _KEEPING:
            return self.holds(inputs[0])
        if target in (aten.bitwise_and.Tensor, aten.logical_and.default):
            return self.holds(inputs[0]) and self.holds(inputs[1])
        if target is aten.eq.Tensor:
            return inputs[0] is inputs[1] and not self._is_data(inputs[0])  # that it is no NaN
        if target in _COMPARISONS:
            return self._compared(_COMPARISONS[target], inputs[0], inputs[1])
        return bool(target in _CONSTANTS and _constant(node) == 1)

    def _is_data(self, node: Any) -> bool:
        """Whether a value is computed from data, and from nothing that a step changes or draws."""
        sources = ancestors(node) if self._data and isinstance(node, fx.Node) else set()
        inputs = {each for each in sources if each.op == "placeholder"}
        return bool(inputs) and inputs <= self._data and not any(map(is_random, sources))

    def _compared(self, sign: str, one: Any, other: Any) -> bool:
        if not isinstance(other, fx.Node | int | float):
            return False
        (low, high, inside), (other_low, other_high, other_inside) = self._bounds(one), self._bounds(other)
        if sign in ("<", "<="):
            low, high, other_low, other_high = other_low, other_high, low, high
        if low > other_high:
            return True
        return low == other_high and math.isfinite(low) and ("=" in sign or inside or other_inside)

    def _bounds(self, node: Any) -> tuple[float, float, bool]:
        """The lowest and the highest value, and whether neither is reached."""
        if isinstance(node, bool | int | float):
            return float(node), float(node), False
        if not isinstance(node, fx.Node):
            return _ANY
        if node not in self._known:
            self._known[node] = _ANY
            self._known[node] = self._find_bounds(node)
        return self._known[node]

    def _find_bounds(self, node: fx.Node) -> tuple[float, float, bool]:
        target, inputs = node.target, node.args
        if target in _KEEPING:
            return self._bounds(inputs[0])
        if target in LITERAL:
            return self._bounds_of_literal(inputs[0])
        if target in _RANGES:
            return _RANGES[target]
        if target in _CONSTANTS:
            value = _constant(node)
            return _ANY if value is None else (value, value, False)
        if target in (aten.add.Tensor, aten.add.Scalar, aten.mul.Tensor, aten.mul.Scalar) and len(inputs) == 2:
            (low, _, inside), (other_low, _, other_inside) = self._bounds(inputs[0]), self._bounds(inputs[1])
            if low >= 0 and other_low >= 0:
                adds = target in (aten.add.Tensor, aten.add.Scalar)
                strict = (inside or other_inside) if adds else (low > 0 or inside) and (other_low > 0 or other_inside)
                return (low + other_low if adds else low * other_low), math.inf, strict
        if target in (aten.clamp.default, aten.clamp_min.default):
            below, above, inside = self._bounds(inputs[0])
            least, most = (inputs[i] if len(inputs) > i else None for i in (1, 2))
            if isinstance(least, int | float) and least >= below:
                below, inside = float(least), False
            if isinstance(most, int | float) and most <= above:
                above, inside = float(most), False
            return below, above, inside
        return _ANY

    def _bounds_of_literal(self, node: Any) -> tuple[float, float, bool]:
        value = operator.attrgetter(str(node.target))(self._module) if node.op == "get_attr" else None
        if not isinstance(value, Tensor) or not value.numel() or value.is_complex():
            return _ANY
        return float(value.min()), float(value.max()), False


def _constant(node: fx.Node) -> float | None:
    full = node.target in (aten.full.default, aten.full_like.default)
    value: Any = node.args[1] if full else _FILLS.get(node.target)
    return float(value) if isinstance(value, bool | int | float) else None


_ANY = (-math.inf, math.inf, True)
_POSITIVE, _FRACTION, _NOT_NEGATIVE = (0.0, math.inf, True), (0.0, 1.0, True), (0.0, math.inf, False)
_KEEPING = {
    aten.view.default, aten.reshape.default, aten.expand.default, aten.unsqueeze.default, aten.squeeze.dim, aten.select.int,
    aten.slice.Tensor, aten.permute.default, aten.transpose.int, aten.t.default, aten.clone.default, aten.detach.default,
    aten.alias.default, aten.contiguous.default, aten.index.Tensor, aten.index_select.default, aten.diagonal.default,
    aten.all.dim, aten.all.default, UNSAFE_VIEW, aten.squeeze.default, aten.mT.default, aten.amin.default,
    aten.amax.default,
}  # fmt: skip
_RANGES = {
    aten.exp.default: _POSITIVE,
    aten.softplus.default: _POSITIVE,
    aten.sigmoid.default: _FRACTION,
    SOFTMAX: _FRACTION,
    aten.relu.default: _NOT_NEGATIVE,
    aten.abs.default: _NOT_NEGATIVE,
    aten.sqrt.default: _NOT_NEGATIVE,
    aten.rsqrt.default: _POSITIVE,
    aten.rand.default: _NOT_NEGATIVE,
}
_FILLS: dict[Any, float] = {
    aten.zeros.default: 0.0,
    aten.ones.default: 1.0,
    aten.zeros_like.default: 0.0,
    aten.ones_like.default: 1.0,
}
_CONSTANTS = {aten.full.default, aten.full_like.default, *_FILLS}
_COMPARISONS = {
    aten.gt.Scalar: ">", aten.gt.Tensor: ">", aten.ge.Scalar: ">=", aten.ge.Tensor: ">=", aten.lt.Scalar: "<",
    aten.lt.Tensor: "<", aten.le.Scalar: "<=", aten.le.Tensor: "<=",
}  # fmt: skip
