"""Shares of topics whose logits are normal."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["mean_shares"]

_PAIRS = 32


def mean_shares(loc: Tensor, scale: Tensor) -> np.ndarray:
    """E[softmax(logits)] ``(D, K)`` by 64 antithetic normals, the same for each document."""
    half = torch.randn(_PAIRS, loc.shape[1], generator=torch.Generator().manual_seed(0), dtype=loc.dtype)
    total = torch.zeros_like(loc)
    for normal in torch.cat([half, -half]):
        total += (loc + normal * scale).softmax(-1)
    return np.asarray(total / (2 * _PAIRS))
