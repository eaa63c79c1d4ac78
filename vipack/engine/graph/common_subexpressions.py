"""What a graph computes twice, computed once.

torch has such a pass too, ``fx_graph_cse``; it loads Inductor, which takes a second that a short run does not have.
"""

from __future__ import annotations

from typing import Any

from torch import fx

from vipack.compat.pytorch import OpOverload, schema_of
from vipack.engine.graph.nodes import is_random

__all__ = ["without_repeats"]


def without_repeats(graph: fx.Graph) -> None:
    """Let nodes of the same operator on the same arguments be one node, in place.

    Random operators are left as they are, and so is whatever writes to its arguments or returns memory as it finds it.
    """
    seen: dict[Any, fx.Node] = {}
    for node in list(graph.nodes):
        if node.op != "call_function" or not _repeatable(node):
            continue
        key = (node.target, _key(node.args), _key(node.kwargs))
        first = seen.setdefault(key, node)
        if first is not node:
            node.replace_all_uses_with(first)
            graph.erase_node(node)


def _repeatable(node: fx.Node) -> bool:
    if not isinstance(node.target, OpOverload):
        return True  # getitem, and operators of torch's that hold a function
    return not (schema_of(node.target).is_mutable or is_random(node) or "empty" in schema_of(node.target).name)


def _key(value: Any) -> Any:
    """Equal for equal arguments: 1, 1.0 and True are not, nor are 0.0 and -0.0."""
    if isinstance(value, list | tuple):
        return tuple(_key(item) for item in value)
    if isinstance(value, dict):
        return tuple((name, _key(item)) for name, item in sorted(value.items()))
    if isinstance(value, slice):
        return ("slice", _key(value.start), _key(value.stop), _key(value.step))
    return value if isinstance(value, fx.Node) else (type(value), repr(value))
