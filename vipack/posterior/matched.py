"""Student's t distributions with the mean and covariance of draws, one for each observation: a proposal learned on the way."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Chi2

__all__ = ["MatchedT"]

_DEGREES = 8.0  # of freedom: tails heavier than a normal's, and in 50 dimensions still about as wide
_FLOOR = 1e-6  # of a variance, as a share of the mean one


class MatchedT:
    """A multivariate t of latents for each of B observations.

    Covariances are moved towards their diagonals by ``D / (ESS + D)``, since those of few draws in many dimensions are singular.

    Args:
        draws: ``(S, B, D)``.
        weights: ``(S, B)``, normalised; equal ones by default.
    """

    def __init__(self, draws: Tensor, weights: Tensor | None = None) -> None:
        values, size = draws.double(), draws.shape[-1]
        if weights is None:
            weights = torch.full_like(values[..., 0], 1 / len(draws))
        ess = (1 / weights.square().sum(0))[:, None]  # (B, 1)
        self.mean = (weights[..., None] * values).sum(0)
        centered = (values - self.mean).movedim(0, 1)  # (B, S, D)
        covariance = centered.mT @ (weights.T[..., None] * centered)
        variances = covariance.diagonal(dim1=-2, dim2=-1)
        floor = _FLOOR * variances.mean(-1, keepdim=True).clamp(min=_FLOOR)
        share = size / (ess + size)
        covariance = (1 - share[..., None]) * covariance + torch.diag_embed(share * variances + floor)
        self.root = torch.linalg.cholesky(covariance)
        self._dtype = draws.dtype

    def draw(self, count: int) -> Tensor:
        """``(count, B, D)``."""
        normal = torch.randn(count, *self.mean.shape, dtype=torch.float64, device=self.mean.device)
        ratio = Chi2(torch.full_like(normal[..., 0], _DEGREES)).sample() / _DEGREES
        drawn: Tensor = self.mean + (self.root @ normal[..., None])[..., 0] / ratio.sqrt()[..., None]
        return drawn.to(self._dtype)

    def log_prob(self, z: Tensor) -> Tensor:
        """log density ``(S, B)`` of ``(S, B, D)``, in nats."""
        size = z.shape[-1]
        off = (z.double() - self.mean).movedim(0, -1)  # (B, D, S)
        distance = torch.linalg.solve_triangular(self.root, off, upper=False).square().sum(1).T
        log_det = self.root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        constant = (
            math.lgamma((_DEGREES + size) / 2) - math.lgamma(_DEGREES / 2) - size / 2 * math.log(_DEGREES * math.pi)
        )
        density: Tensor = constant - log_det - (_DEGREES + size) / 2 * (distance / _DEGREES).log1p()
        return density
