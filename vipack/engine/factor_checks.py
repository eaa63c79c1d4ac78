"""Factors that failed are told by the loss, where asking after each of them would have a GPU wait for the host."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

__all__ = ["told_by_the_loss"]

aten = torch.ops.aten


def told_by_the_loss(module: fx.GraphModule) -> fx.GraphModule:
    """Let the loss, a graph's first output, be NaN where a matrix had no factor, in place of raising at that point.

    A loss that is not finite is taken back and the step repeated eagerly, which raises as Pyro does and names the site.
    """
    graph = module.graph
    checks = [node for node in graph.nodes if node.target is aten._linalg_check_errors.default]
    if not checks:
        return module
    output: Any = next(iter(reversed(graph.nodes)))
    loss, *others = output.args[0]
    told = loss
    with graph.inserting_before(output):
        for check in checks:
            failed = graph.call_function(aten.any.default, (graph.call_function(aten.ne.Scalar, (check.args[0], 0)),))
            told = graph.call_function(aten.masked_fill.Scalar, (told, failed, float("nan")))
            told.meta.update(loss.meta)
    for check in checks:
        graph.erase_node(check)
    output.args = ([told, *others],)
    module.recompile()
    return module
