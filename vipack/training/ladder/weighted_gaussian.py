"""A Gaussian with the mean and covariance that the weights of its own draws ask for."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vipack.importance import importance, mean_and_se
from vipack.training.ladder.candidates import Gaussian, scaled_cholesky
from vipack.training.ladder.surface import Surface
from vipack.types import Estimate

__all__ = ["match_moments"]

_ROUNDS = 4
_DRAWS = 1_000  # pairs
_LEAST = 20.0  # effective draws for each dimension, below which a covariance is noise


def match_moments(surface: Surface, gaussian: Gaussian, bound: Estimate) -> tuple[Gaussian, Estimate]:
    """Move a dense Gaussian to the smoothed weighted moments of its draws for as long as its ELBO (nats) rises.

    It takes a few batches of densities and no gradient, and is a step that a badly centred mode needs.

    Source: adaptive importance sampling; Cappé, Guillin, Marin, Robert (2004), with weights smoothed as in
    Vehtari et al. (2024).
    """
    half = torch.randn(_DRAWS, surface.dim, dtype=gaussian.loc.dtype)
    eps = torch.cat([half, -half])
    log_weights = _weighed(surface, gaussian, eps)
    for _ in range(_ROUNDS):
        weights = importance(log_weights)
        if weights.ess < _LEAST * surface.dim:
            break
        # What weights change of the sample's moments, added to the exact ones: even weights change nothing.
        change = torch.from_numpy(np.exp(weights.log_weights)) - 1 / len(eps)
        mean = change @ eps
        second = torch.eye(surface.dim, dtype=eps.dtype) + (eps * change[:, None]).T @ eps
        root = scaled_cholesky(second - mean[:, None] * mean)
        if root is None:
            break
        moved = Gaussian(gaussian.loc + gaussian.factor @ mean, gaussian.factor @ root)
        new_weights = _weighed(surface, moved, eps)
        gain = mean_and_se(new_weights - log_weights)
        if not gain.value > gain.se:
            break
        gaussian, log_weights = moved, new_weights
        bound = _bound(log_weights)
    return gaussian, bound


def _weighed(surface: Surface, gaussian: Gaussian, eps: Tensor) -> Tensor:
    u, log_q = gaussian.at(eps)
    return surface.values(u) - log_q


def _bound(log_weights: Tensor) -> Estimate:
    pairs = 0.5 * (log_weights[: len(log_weights) // 2] + log_weights[len(log_weights) // 2 :])
    return mean_and_se(pairs)
