"""What a step computes from its data alone, and so need not compute at every step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from vipack.compat.aten import SLOGDET_NAME
from vipack.compat.pytorch import graph_module, schema_of
from vipack.engine.graph.csr_operators import ROW_OPERATORS
from vipack.engine.graph.nodes import ancestors, first_call, is_random, output_of

__all__ = ["Invariants", "split_steady_checks", "split_steady_results"]

aten = torch.ops.aten

_SMALL = 32_768  # numbers that are read again from a cache nearby
_LARGEST = 1 << 22  # numbers; larger results would take memory that the user does not expect
_FILLED = {"full", "zeros", "ones", "scalar_tensor"}
_DEAR = {
    "acos", "amax", "amin", "asin", "atan", "bmm", "cos", "cosh", "cumprod", "cumsum", "digamma", "erf", "erfc", "erfinv",
    "exp", "expm1", "gather", "index", "index_select", "lgamma", "log", "log10", "log1p", "log2", "logit", "logsumexp",
    "mean", "mm", "mv", "polygamma", "pow", "prod", "sigmoid", "sin", "sinh", "softplus", "special_i0", "sum", "tan",
    "tanh", "xlogy", "linalg_cholesky_ex", "linalg_inv_ex", "linalg_solve_triangular", SLOGDET_NAME,
}  # fmt: skip


class Invariants:
    """What is computed of steady inputs before a step; calling it gives that, from the arrays of the data.

    Args:
        program: gives the step's new inputs from the steady ones; None where there are none.
        checks: gives truth values likewise.
        constants: the program's own.
        steady: for each array, whether all steps see the same.

    Attributes:
        valid: whether all checks were true when it was last called.
        needed: for each constant and array, whether something depends on it.
    """

    def __init__(
        self,
        program: fx.GraphModule | None,
        checks: fx.GraphModule | None,
        constants: tuple[Tensor, ...],
        steady: Sequence[bool],
    ) -> None:
        self._program, self._checks, self._constants, self._steady = program, checks, constants, steady
        self.valid = True
        used = [_used(module) for module in (program, checks) if module is not None]
        given = iter([any(each) for each in zip(*used, strict=True)])
        self.needed = tuple(same and next(given) for same in (*(True for _ in constants), *steady))

    def __call__(self, arrays: Sequence[Tensor]) -> Sequence[Tensor]:
        """The step's new inputs."""
        given = (*self._constants, *(array for array, same in zip(arrays, self._steady, strict=True) if same))
        with torch.no_grad():
            if self._checks is not None:
                self.valid = all(bool(check) for check in self._checks(*given))
            values: Sequence[Tensor] = () if self._program is None else self._program(*given)
        return values


def _used(program: fx.GraphModule) -> list[bool]:
    return [bool(node.users) for node in program.graph.nodes if node.op == "placeholder"]


def split_steady_checks(module: fx.GraphModule, steady: Sequence[bool], first: int) -> fx.GraphModule | None:
    """Take those checks from a graph's last results that depend on steady inputs alone, in place.

    Args:
        first: index of the first check among the results.

    Returns:
        The graph that gives them from the steady inputs, in order; None where there are none.
    """
    graph = module.graph
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    given = [node for node, known in zip(placeholders, steady, strict=True) if known]
    others = set(placeholders) - set(given)
    output = output_of(graph)
    results, checks = list(output.args[0][:first]), list(output.args[0][first:])
    before = [c for c in checks if others.isdisjoint(ancestors(c)) and not any(map(is_random, ancestors(c)))]
    if not before:
        return None
    module_before = _graph_of(before, given)
    output.args = ([*results, *(check for check in checks if check not in before)],)
    graph.eliminate_dead_code()
    module.recompile()
    return module_before


def split_steady_results(module: fx.GraphModule, steady: Sequence[bool], num_inputs: int) -> fx.GraphModule | None:
    """Let results that depend on steady inputs alone be inputs themselves, in place.

    Cheap ones stay, unless they are small: to read many numbers takes as long as to add two.

    Args:
        module: a pure graph.
        steady: for each of its inputs, whether it is the same at every step.
        num_inputs: how many inputs come before the new ones.

    Returns:
        The graph that gives the new inputs from the steady ones, in order; None where there are none.
    """
    graph = module.graph
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    given = [node for node, known in zip(placeholders, steady, strict=True) if known]
    depends, dear, numbers = set(given), set[fx.Node](), set[fx.Node]()
    for node in graph.nodes:
        inputs = node.all_input_nodes
        if node.op != "call_function" or is_random(node):
            continue
        # Zeros in the shape of a latent wait for the latent, though they are the same at every step.
        if not all(source in depends or source in numbers for source in inputs):
            continue
        if _is_number(node):
            numbers.add(node)
        elif depends.intersection(inputs):
            depends.add(node)
            if _name(node) in _DEAR or node.target in ROW_OPERATORS or dear.intersection(inputs):
                dear.add(node)
    results: list[fx.Node] = []
    staying = {node for node in graph.nodes if node not in depends}
    for node in reversed([node for node in graph.nodes if node in depends and node.op == "call_function"]):
        if staying.intersection(node.users):
            if _worth(node, node in dear):
                results.append(node)
            else:
                staying.add(node)
    if not results:
        return None
    results.reverse()
    before = _graph_of(results, given)
    first_after = placeholders[num_inputs] if num_inputs < len(placeholders) else None
    for index, node in enumerate(results):
        with graph.inserting_before(first_after or first_call(graph)):
            new = graph.placeholder(f"invariant_{index}")
        new.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(new)
    graph.eliminate_dead_code()
    module.recompile()
    return before


def _worth(node: fx.Node, dear: bool) -> bool:
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or _is_view(node):
        return False
    size = math.prod(value.shape)
    return size <= _LARGEST and (dear or size <= _SMALL)


def _is_view(node: fx.Node) -> bool:
    schema = schema_of(node.target)
    return schema is None or any(result.alias_info is not None for result in schema.returns)


def _is_number(node: fx.Node) -> bool:
    """Whether a node holds the same number everywhere: of its inputs, only the shape matters."""
    name = _name(node)
    return name in _FILLED or name.endswith("_like") or name.startswith("new_")


def _name(node: fx.Node) -> str:
    schema = schema_of(node.target)
    return "" if schema is None else str(schema.name).split("::")[1]


def _graph_of(wanted: Sequence[fx.Node], given: Sequence[fx.Node]) -> fx.GraphModule:
    needed = set().union(*map(ancestors, wanted))
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {node: graph.placeholder(node.name) for node in given}
    for node in wanted[0].graph.nodes:
        if node in needed and node not in copies:
            copies[node] = graph.node_copy(node, lambda n: copies[n])
    graph.output([copies[node] for node in wanted])
    module: Any = graph_module({}, graph)
    return module  # type: ignore[no-any-return]
