"""Shares of topics whose logits are normal."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["mean_shares", "share_correlations"]

_PAIRS = 32
_DRAWS = 64


def mean_shares(loc: Tensor, scale: Tensor) -> np.ndarray:
    """E[softmax(logits)] ``(D, K)`` by 64 antithetic normals, the same for each document."""
    half = torch.randn(_PAIRS, loc.shape[1], generator=torch.Generator().manual_seed(0), dtype=loc.dtype)
    total = torch.zeros_like(loc)
    for normal in torch.cat([half, -half]):
        total += (loc + normal * scale).softmax(-1)
    return np.asarray(total / (2 * _PAIRS))


def share_correlations(loc: Tensor, scale: Tensor) -> np.ndarray:
    """``(K, K)``: correlations over documents of the softmax of normal logits ``(D, K)``, a mean over draws of them."""
    generator, total = torch.Generator().manual_seed(0), torch.zeros(loc.shape[1], loc.shape[1], dtype=torch.float64)
    for _ in range(_DRAWS):
        shares = (loc + scale * torch.randn(loc.shape, generator=generator, dtype=loc.dtype)).softmax(-1)
        total += torch.corrcoef(shares.T)
    return np.asarray(total / _DRAWS)
