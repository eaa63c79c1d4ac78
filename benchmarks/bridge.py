"""Log evidence from draws of the posterior itself, by bridge sampling: independent of any fit."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vipack.types import Estimate

__all__ = ["bridge"]

NUM_PROPOSALS = 4_000  # for each half of the draws


def bridge(log_density: Callable[[Tensor], Tensor], u: Tensor, seed: int = 0) -> Estimate:
    """Log integral of exp(`log_density`), in nats.

    A normal is fitted to one half of the draws and bridged to the other half, then the other way round. The two
    estimates are averaged; the standard error is that of one, since they share the draws.

    Args:
        log_density: ``(N, D)`` -> ``(N,)``, unnormalized.
        u: independent draws of the density ``(S, D)``, float64.
    Source: Meng and Wong (1996); the standard error is eq. 13 of Fruehwirth-Schnatter (2004).
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = u[torch.randperm(len(u), generator=generator)]
    first, second = shuffled[: len(u) // 2], shuffled[len(u) // 2 :]
    values = [_half(log_density, *halves, generator) for halves in ((first, second), (second, first))]
    return Estimate(sum(v for v, _ in values) / 2, max(se for _, se in values))


def _half(
    log_density: Callable[[Tensor], Tensor], fitted: Tensor, kept: Tensor, generator: torch.Generator
) -> tuple[float, float]:
    """The estimate and its standard error from the draws `kept`, with a normal that was fitted to others."""
    dim = fitted.shape[1]
    normal = torch.distributions.MultivariateNormal(fitted.mean(0), torch.cov(fitted.T).reshape(dim, dim))
    noise = torch.randn(NUM_PROPOSALS, dim, dtype=fitted.dtype, generator=generator)
    proposed = normal.loc + noise @ normal.scale_tril.T
    at_draws = log_density(kept) - normal.log_prob(kept)  # log weights
    at_proposals = log_density(proposed) - normal.log_prob(proposed)
    log_share = math.log(len(kept) / (len(kept) + NUM_PROPOSALS)), math.log(NUM_PROPOSALS / (len(kept) + NUM_PROPOSALS))
    log_z = float(at_draws.median())
    for _ in range(1_000):
        above = at_proposals - _log_sum(at_proposals + log_share[0], log_z + log_share[1])
        below = -_log_sum(at_draws + log_share[0], log_z + log_share[1])
        last, log_z = log_z, float(above.logsumexp(0) - below.logsumexp(0)) + math.log(len(kept) / NUM_PROPOSALS)
        if abs(log_z - last) < 1e-10:
            break
    return log_z, math.sqrt(_relative_variance(above) + _relative_variance(below))


def _log_sum(values: Tensor, constant: float) -> Tensor:
    return torch.logaddexp(values, torch.tensor(constant, dtype=values.dtype))


def _relative_variance(log_values: Tensor) -> float:
    """Of the mean of exp(`log_values`)."""
    values = (log_values - log_values.max()).exp()
    return float(values.var() / values.mean() ** 2 / len(values))
