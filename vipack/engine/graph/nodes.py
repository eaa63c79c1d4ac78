"""Questions about the nodes of a captured graph."""

from __future__ import annotations

import torch
from torch import fx

from vipack.compat.pytorch import OpOverload

__all__ = ["ancestors", "is_random"]

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
    found: set[fx.Node] = set()
    pending = [node]
    while pending:
        current = pending.pop()
        if current not in found:
            found.add(current)
            pending += current.all_input_nodes
    return found
