"""Conjugate gradients for several right-hand sides, which notice where the matrix is not positive definite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Solution", "solve"]

Product = Callable[[Tensor], Tensor]  # (G, P) -> (G, P), the matrix times each


@dataclass(frozen=True)
class Solution:
    """Solutions of H x = b.

    Attributes:
        x: ``(G, P)``.
        residuals: ``|b - H x| / |b|`` in the norm of the preconditioner ``(G,)``, computed anew at the end.
        iterations: products with H that were made of each ``(G,)``.
        flat: ``(G,)``, whether the matrix came to a direction of no curvature, so that there is no solution.
        curvature: the smallest p'Hp / p'Mp of each one's directions p ``(G,)``.
        direction: that of the smallest of all ``(P,)``.
    """

    x: Tensor
    residuals: Tensor
    iterations: Tensor
    flat: Tensor
    curvature: Tensor
    direction: Tensor


def solve(
    product: Product, b: Tensor, norms: Tensor, *, tolerance: float, max_iterations: int, rounding: float
) -> Solution:
    """
    Args:
        b: ``(G, P)``, float64.
        norms: the preconditioner M, a diagonal ``(P,)``.
        tolerance: of the residuals.
        rounding: of products, relative to M; a curvature below it counts as none, and ends the iterations of its column.

    Source: Hestenes and Stiefel (1952); Nocedal and Wright (2006), algorithms 5.3 and 7.1.
    """
    x, r = torch.zeros_like(b), b.clone()
    z = r / norms
    p = z.clone()
    rz = (r * z).sum(1)
    start = rz.clone()
    active = start > 0
    iterations = torch.zeros(len(b), dtype=torch.int64)
    flat = torch.zeros(len(b), dtype=torch.bool)
    curvature, direction = torch.full_like(start, torch.inf), torch.zeros_like(norms)
    for _ in range(max_iterations):
        chosen = active.nonzero()[:, 0]
        if not len(chosen):
            break
        hp = product(p[chosen])
        iterations[chosen] += 1
        bends = (p[chosen] * hp).sum(1) / (p[chosen].square() * norms).sum(1)
        lowest = int(bends.argmin())
        if float(bends[lowest]) < float(curvature.min()):
            direction = p[chosen[lowest]].clone()
        curvature[chosen] = torch.minimum(curvature[chosen], bends)
        straight = ~(bends > rounding)
        active[chosen[straight]], flat[chosen[straight]] = False, True
        chosen, hp = chosen[~straight], hp[~straight]
        step = rz[chosen] / (p[chosen] * hp).sum(1)
        x[chosen] += step[:, None] * p[chosen]
        r[chosen] -= step[:, None] * hp
        z[chosen] = r[chosen] / norms
        fresh = (r[chosen] * z[chosen]).sum(1)
        p[chosen] = z[chosen] + (fresh / rz[chosen])[:, None] * p[chosen]
        rz[chosen] = fresh
        active[chosen] = fresh > tolerance**2 * start[chosen]
    rest = b - product(x)
    residuals = ((rest.square() / norms).sum(1) / start.clamp(min=torch.finfo(b.dtype).tiny)).sqrt()
    return Solution(x, torch.where(start > 0, residuals, 0.0), iterations, flat, curvature, direction)
