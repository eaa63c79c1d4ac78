"""A graph of ATen operations as plain values, for another process and for a cache key.

A pickled GraphModule is traced again where it is read, which turns its constants into tensors of the module.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from vipack.compat.pytorch import OpOverload

__all__ = ["GraphText"]


@dataclass(frozen=True)
class _Reference:
    name: str


@dataclass(frozen=True)
class GraphText:
    """Nodes in order: name, kind, target, arguments."""

    nodes: tuple[tuple[str, str, str, Any, Any], ...]

    @classmethod
    def of(cls, module: fx.GraphModule) -> GraphText:
        """The text of a graph that holds no tensors."""
        names = {node: f"n{i}" for i, node in enumerate(module.graph.nodes)}

        def reference(node: fx.Node) -> Any:
            return _Reference(names[node])

        def plain(value: Any) -> Any:
            return fx.map_arg(value, reference)

        return cls(
            tuple(
                (names[node], node.op, _target(node), plain(node.args), plain(node.kwargs))
                for node in module.graph.nodes
            )
        )

    def module(self) -> fx.GraphModule:
        """The graph again."""
        graph = fx.Graph()
        nodes: dict[str, fx.Node] = {}
        for name, kind, target, arguments, keywords in self.nodes:
            args, kwargs = _filled(arguments, nodes), _filled(keywords, nodes)
            if kind == "placeholder":
                nodes[name] = graph.placeholder(name)
            elif kind == "output":
                nodes[name] = graph.output(args[0])
            else:
                nodes[name] = graph.call_function(_function(target), tuple(args), dict(kwargs))
        return fx.GraphModule({}, graph)

    def __str__(self) -> str:
        return "\n".join(map(repr, self.nodes))


def _filled(value: Any, nodes: dict[str, fx.Node]) -> Any:
    if isinstance(value, _Reference):
        return nodes[value.name]
    if isinstance(value, tuple | list):  # of fx's own kinds, too
        return [_filled(item, nodes) for item in value]
    if isinstance(value, dict):
        return {key: _filled(item, nodes) for key, item in value.items()}
    return value


def _target(node: fx.Node) -> str:
    if node.op != "call_function":
        return str(node.target)
    if node.target is operator.getitem:
        return "operator.getitem"
    if isinstance(node.target, OpOverload):
        return str(node.target)
    raise ValueError(f"{node.target} is not an operation of torch.ops")


def _function(name: str) -> Any:
    if name == "operator.getitem":
        return operator.getitem
    namespace, operation, overload = name.split(".")
    return getattr(getattr(getattr(torch.ops, namespace), operation), overload)
