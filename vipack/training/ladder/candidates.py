"""Gaussians met along paths of ascent, and which of them is closest to the posterior."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vipack.importance import mean_and_se
from vipack.program.evaluation.ascent import Path, inverse_hessian_times
from vipack.training.ladder.surface import Surface
from vipack.types import Estimate

__all__ = ["Gaussian", "best_on_paths", "scaled_cholesky"]

_PER_PATH = 12  # points of each path that are looked at
_FINALISTS = 4  # that get an exact Hessian
_FIRST_DRAWS, _LAST_DRAWS = 16, 200
_RANGE = 1e-10  # the least ratio of a covariance's eigenvalues
_STEPS = {torch.float64: 1e-4, torch.float32: 1e-2}  # of differences of gradients, in sds, by the type of the model


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution of ``u``: ``loc + factor @ eps``.

    Attributes:
        loc: ``(D,)``.
        factor: ``(D, D)``, lower triangular, or ``(D,)`` for independent coordinates.
    """

    loc: Tensor
    factor: Tensor

    def at(self, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Points ``(S, D)`` of standard normal ``(S, D)``, and their log densities ``(S,)``."""
        if self.factor.dim() == 1:
            moved, log_det = eps * self.factor, self.factor.abs().log().sum()
        else:
            moved, log_det = eps @ self.factor.T, self.factor.diagonal().abs().log().sum()
        log_q = -0.5 * (eps**2).sum(-1) - 0.5 * eps.shape[-1] * math.log(2 * math.pi) - log_det
        return self.loc + moved, log_q


def best_on_paths(surface: Surface, paths: Sequence[Path], *, memory: int, dense: bool) -> tuple[Gaussian, Estimate]:
    """The Gaussian with the highest ELBO (nats) by common draws, which is seldom the one at the last point of a path.

    Every path offers Gaussians at a dozen of its points, with the inverse Hessian that L-BFGS had learned there, centred
    at the point or a Newton step from it. The best few are tried with exact Hessians too.

    Args:
        dense: full covariances; else diagonal ones.

    Source: Zhang, Carpenter, Gelman, Vehtari (2022), JMLR 23(306), which has the inverse Hessian of L-BFGS alone.
    """
    ranked: list[tuple[float, Path, int, Gaussian]] = []
    eps = torch.randn(_FIRST_DRAWS, surface.dim, dtype=paths[0].points[0].dtype)
    offers = [(p, k, g) for p in paths for k in _chosen(p) for g in _learned(p, k, memory, dense)]
    for (path, k, gaussian), value in zip(offers, _bounds(surface, [g for *_, g in offers], eps), strict=True):
        ranked.append((_surely(value), path, k, gaussian))
    ranked.sort(key=lambda item: item[0], reverse=True)
    finalists = [gaussian for *_, gaussian in ranked[:_FINALISTS]]
    if dense:
        for candidate in _distinct([(path, k) for _, path, k, _ in ranked], _FINALISTS):
            finalists += _exact(surface, *candidate)
    eps = torch.randn(_LAST_DRAWS // 2, surface.dim, dtype=eps.dtype)
    values = _bounds(surface, finalists, torch.cat([eps, -eps]))
    folded = 0.5 * (values[:, : len(eps)] + values[:, len(eps) :])
    best = max(range(len(finalists)), key=lambda candidate: _surely(folded[candidate]))
    return finalists[best], mean_and_se(folded[best])


def _surely(values: Tensor) -> float:
    """A mean less its standard error: of many noisy bounds the highest would be the luckiest."""
    bound = mean_and_se(values)
    lower = bound.value - bound.se
    return lower if math.isfinite(lower) else -math.inf


def _bounds(surface: Surface, gaussians: Sequence[Gaussian], eps: Tensor) -> Tensor:
    """log p - log q of each at common draws: ``(G, S)``."""
    at_draws = [gaussian.at(eps) for gaussian in gaussians]
    values = surface.values(torch.cat([u for u, _ in at_draws])).view(len(gaussians), len(eps))
    return values - torch.stack([log_q for _, log_q in at_draws])


def _chosen(path: Path) -> list[int]:
    """Points of a path, the first ones that moved and the last included, evenly by number."""
    count = len(path.points)
    if count == 1:
        return [0]
    return sorted({1 + round(i * (count - 2) / max(1, _PER_PATH - 1)) for i in range(_PER_PATH)})


def _learned(path: Path, at: int, memory: int, dense: bool) -> list[Gaussian]:
    x, gradient = path.points[at], path.gradients[at]
    if dense:
        covariance = inverse_hessian_times(path, at, torch.eye(len(x), dtype=x.dtype), memory)
        factor = scaled_cholesky(covariance)
    else:
        factor = path.diagonals[path.num_pairs[at]].sqrt()
        covariance = factor**2
    if factor is None:
        return []
    return _centred(x, covariance, gradient, factor)


def _exact(surface: Surface, path: Path, at: int) -> list[Gaussian]:
    """With the Hessian by differences of gradients, taken along the axes of the learned covariance's scale."""
    x = path.points[at]
    scale = path.diagonals[path.num_pairs[at]].sqrt()
    step = _STEPS[surface.joint.dtype] * scale
    _, forth = surface.gradients(x + torch.diag(step))
    _, back = surface.gradients(x - torch.diag(step))
    hessian = -(forth - back) / (2 * step[:, None]) * scale[:, None] * scale  # in units of the scales
    if not torch.isfinite(hessian).all():
        return []
    values, vectors = torch.linalg.eigh(0.5 * (hessian + hessian.T))
    # A direction in which the surface bends upwards gets the width that its bend would have, downwards.
    size = values.abs().clamp(min=_RANGE * float(values.abs().max()))
    covariance = scale[:, None] * ((vectors / size) @ vectors.T) * scale
    factor = scaled_cholesky(covariance)
    return [] if factor is None else _centred(x, covariance, path.gradients[at], factor)


def _centred(x: Tensor, covariance: Tensor, gradient: Tensor, factor: Tensor) -> list[Gaussian]:
    shift = covariance @ gradient if covariance.dim() == 2 else covariance * gradient
    return [Gaussian(loc, factor) for loc in (x, x + shift) if torch.isfinite(loc).all()]


def scaled_cholesky(covariance: Tensor) -> Tensor | None:
    """The Cholesky factor of a covariance, taken after scaling to unit variances; None where there is none."""
    scale = covariance.diagonal().clamp(min=1e-300).sqrt()
    factor, failed = torch.linalg.cholesky_ex(covariance / scale[:, None] / scale)
    factor = scale[:, None] * factor
    return None if int(failed) or not torch.isfinite(factor).all() else factor


def _distinct(points: Sequence[tuple[Path, int]], count: int) -> list[tuple[Path, int]]:
    seen: dict[tuple[int, int], tuple[Path, int]] = {}
    for path, at in points:
        seen.setdefault((id(path), at), (path, at))
    return list(seen.values())[:count]
