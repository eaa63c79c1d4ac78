"""Questions about the nodes of a captured graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from vipack.compat.pytorch import OpOverload

__all__ = ["ancestors", "first_call", "is_random", "output_of"]

aten = torch.ops.aten

# Composite or without a tag in some versions of torch, though random.
_ALSO_RANDOM = {aten.randperm.default, aten.multinomial.default, aten.normal_functional.default}


def is_random(node: fx.Node) -> bool:
    """Whether a node draws from a generator."""
    target = node.target
    if not isinstance(target, OpOverload):
        return False
    return torch.Tag.nondeterministic_seeded in target.tags or target in _ALSO_RANDOM


def ancestors(node: fx.Node) -> set[fx.Node]:
    """The nodes that `node` is computed from, itself included."""
    seen: set[fx.Node] = set()
    pending = [node]
    while pending:
        current = pending.pop()
        if current not in seen:
            seen.add(current)
            pending += current.all_input_nodes
    return seen


def first_call(graph: fx.Graph) -> fx.Node:
    """The first node after the inputs."""
    node: fx.Node = next(node for node in graph.nodes if node.op != "placeholder")
    return node


def output_of(graph: fx.Graph) -> Any:
    """The node whose first argument is the list of results."""
    return next(iter(reversed(graph.nodes)))
