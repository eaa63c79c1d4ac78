"""Which parameters belong to single rows, so that the process that has a row need tell nobody of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vipack.engine.optimizers.fit_optimizer import FitOptimizer
from vipack.errors import UsageError
from vipack.program import Program, seeded
from vipack.training.data import Rows

__all__ = ["check_optimizer", "parameters_of_rows"]


def parameters_of_rows(program: Program, loss: Any, rows: Rows, batch_size: int, seed: int) -> dict[str, int]:
    """Parameter -> its dimension of all N rows, where a step moves nothing but the rows of its batch.

    That is seen in the gradients of two batches. What is in doubt is not among them: adding it up over all processes costs time
    only.
    """
    num_rows = rows.num_rows or 0
    candidates = {
        name: tuple(value.shape).index(num_rows)
        for name, value in program.parameters.unconstrained.items()
        if num_rows > 1 and num_rows in value.shape and value.requires_grad
    }
    if not candidates:
        return {}
    size = max(1, min(batch_size, num_rows // 2))
    before = program.parameters.state()
    order = torch.randperm(num_rows, generator=torch.Generator().manual_seed(seed))
    for indices in (order[:size], order[-size:]):
        gradients = _gradients(program, loss, rows, indices, seed)
        candidates = {n: d for n, d in candidates.items() if _moves_only(gradients.get(n), d, indices)}
    program.parameters.load_state(before)
    return candidates


def check_optimizer(of_rows: dict[str, int], optimizer: FitOptimizer, program: Program) -> None:
    """
    Raises:
        UsageError: an update looks at all rows of a parameter at once, as clipping its norm does.
    """
    tensors = [program.parameters.unconstrained[name] for name in of_rows]
    for name, handle in zip(of_rows, optimizer.handles(tensors) or (), strict=False):
        if handle.clip[0] is not None:
            raise UsageError(
                f"distributed: the optimizer clips the norm of the gradient of parameter {name!r}, whose rows lie with different "
                "processes; clip its values (clip_value) instead."
            )


def _gradients(program: Program, loss: Any, rows: Rows, indices: Tensor, seed: int) -> dict[str, Tensor]:
    call = rows.rows(indices)
    with seeded(seed), program.bound(call):
        loss.loss_and_grads(program.model, program.guide, *call.args, **call.kwargs)
    every = {name: v.grad.clone() for name, v in program.parameters.unconstrained.items() if v.grad is not None}
    for value in program.parameters.tensors():
        value.grad = None
    return every


def _moves_only(gradient: Tensor | None, dim: int, indices: Tensor) -> bool:
    """Whether the gradient is nothing outside of some rows, and something in each of them."""
    if gradient is None:
        return False
    moved = gradient.movedim(dim, 0).reshape(gradient.shape[dim], -1).ne(0).any(1)
    inside = torch.zeros_like(moved)
    inside[indices] = True
    return bool((moved == inside).all())
