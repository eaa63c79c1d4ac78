"""Random draws in a captured graph, and which of them can be made before the step.

A draw whose inputs are constants (a standard normal, the batch that a plate draws, a mask of dropout) is lifted out and becomes an input of
the step. Lifted draws are made in the order in which the program makes them, by the same operations from the same
generator, so every tier sees what ``pyro.infer.SVI`` would have seen. A draw whose distribution depends on parameters or
data (a Gamma guide's) stays in the graph, and so does whatever comes after it, to keep the order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from vipack.compat.pytorch import graph_module
from vipack.engine.capture.capture import Graph
from vipack.engine.graph.nodes import ancestors, first_call, is_random

__all__ = ["Draw", "LiftedGraph", "copy_graph", "lift_draws"]

aten = torch.ops.aten
_UNFILLED = {aten.empty_like.default, aten.new_empty.default}


@dataclass(frozen=True)
class Draw:
    """One lifted draw: a small graph without inputs that makes it.

    Attributes:
        standard_normal: whether it is ``size`` standard normals, which faster tiers make themselves.
    """

    module: fx.GraphModule
    shape: tuple[int, ...]
    dtype: torch.dtype
    standard_normal: bool

    def __call__(self) -> Tensor:
        """Make the draw from the ambient generator."""
        value: Tensor = self.module()
        return value


@dataclass(frozen=True)
class LiftedGraph:
    """A graph with its liftable draws as leading inputs: ``module(*draws, *inputs of the graph)``.

    Attributes:
        random_inside: operations that still draw inside the graph.
    """

    module: fx.GraphModule
    draws: tuple[Draw, ...]
    random_inside: tuple[str, ...]

    def together(self) -> LiftedGraph:
        """All draws as one vector, where all are standard normals of one type: many numbers are drawn faster than few.

        Not the numbers that Pyro would draw, unless there is one draw only.
        """
        kinds = {(draw.dtype, draw.standard_normal) for draw in self.draws}
        if len(self.draws) < 2 or len(kinds) > 1 or not self.draws[0].standard_normal:
            return self
        sizes = [math.prod(draw.shape) for draw in self.draws]
        module = _copied(self.module)
        nodes = module.graph
        placeholders = [node for node in nodes.nodes if node.op == "placeholder"][: len(sizes)]
        with nodes.inserting_before(placeholders[0]):
            whole = nodes.placeholder("draws")
        with nodes.inserting_before(first_call(nodes)):
            for draw, size, start, old in zip(self.draws, sizes, _starts(sizes), placeholders, strict=True):
                piece = nodes.call_function(aten.slice.Tensor, (whole, 0, start, start + size))
                new = nodes.call_function(aten.reshape.default, (piece, list(draw.shape)))
                old.replace_all_uses_with(new)
        dtype, device = self.draws[0].dtype, placeholders[0].meta["val"].device
        for old in placeholders:
            nodes.erase_node(old)
        module.recompile()
        alone = fx.Graph()
        alone.output(alone.call_function(aten.randn.default, ([sum(sizes)],), {"dtype": dtype, "device": device}))
        return LiftedGraph(module, (Draw(graph_module({}, alone), (sum(sizes),), dtype, True),), self.random_inside)


def lift_draws(graph: Graph) -> LiftedGraph:
    """Take the draws that depend on nothing out of a captured graph."""
    module = _copied(graph.module)
    nodes = module.graph
    _free_of_shapes(nodes)
    free: set[fx.Node] = set()  # depend on no input
    random: list[fx.Node] = []
    for node in nodes.nodes:
        if node.op not in ("call_function", "get_attr"):
            continue
        if all(source in free for source in node.all_input_nodes):
            free.add(node)
        if is_random(node):
            random.append(node)
    lifted = random
    if not free.issuperset(random) or any(len(_random_ancestors(node)) > 1 for node in random):
        # Standard normals can be made at every step, right before what is still random in the graph; other draws are
        # made for many steps ahead, which would change the order.
        lifted = list(itertools.takewhile(lambda node: node in free and _is_standard_normal(node), random))
    draws = [(node, _draw_of(module, node)) for node in lifted]
    staying = [str(node.target) for node in random[len(lifted) :]]
    first = next(iter(nodes.nodes))
    for index, (node, draw) in enumerate(draws):
        with nodes.inserting_before(first):
            placeholder = nodes.placeholder(f"draw_{index}")
        placeholder.meta["val"] = node.meta.get("val")
        placeholder.meta["draw"] = draw
        node.replace_all_uses_with(placeholder)
        nodes.erase_node(node)
    nodes.eliminate_dead_code()
    module.recompile()
    return LiftedGraph(module, tuple(draw for _, draw in draws), tuple(staying))


def _free_of_shapes(nodes: fx.Graph) -> None:
    """Let memory that is still to be filled, as for a mask of dropout, depend on no tensor of the same shape."""
    for node in list(nodes.nodes):
        value = node.meta.get("val")
        if node.target in _UNFILLED and isinstance(value, Tensor) and value.is_contiguous():
            node.target, node.args = aten.empty.memory_format, (list(value.shape),)
            node.kwargs = {"dtype": value.dtype, "device": value.device}


def _starts(sizes: Sequence[int]) -> list[int]:
    return [0, *itertools.accumulate(sizes)][:-1]


def _draw_of(module: fx.GraphModule, node: fx.Node) -> Draw:
    """The nodes that make `node`, as a graph of its own."""
    wanted = ancestors(node)
    small = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for source in module.graph.nodes:
        if source in wanted:
            copies[source] = small.node_copy(source, lambda n: copies[n])
    small.output(copies[node])
    value = node.meta["val"]
    return Draw(graph_module(module, small), tuple(value.shape), value.dtype, _is_standard_normal(node))


def _is_standard_normal(node: fx.Node) -> bool:
    if node.meta["val"].dtype not in (torch.float32, torch.float64):
        return False
    if node.target is aten.randn.default:
        return True
    if node.target is not aten.normal_.default:
        return False
    mean, std = _argument(node, 1, "mean", 0.0), _argument(node, 2, "std", 1.0)
    return mean == 0.0 and std == 1.0 and node.args[0].target is aten.empty.memory_format  # type: ignore[union-attr]


def _argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _random_ancestors(node: fx.Node) -> list[fx.Node]:
    return [source for source in ancestors(node) if is_random(source)]


def _copied(module: fx.GraphModule) -> fx.GraphModule:
    """A copy of the graph that shares its constants."""
    return graph_module(module, copy_graph(module.graph))


def copy_graph(graph: fx.Graph) -> fx.Graph:
    """The same nodes, apart."""
    new = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    output = new.graph_copy(graph, copies)
    new.output(output)
    return new
