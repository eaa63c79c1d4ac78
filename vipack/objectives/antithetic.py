"""Draws in pairs whose noise is mirrored, so that the odd part of an estimate cancels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    TransformedDistribution,
)

from vipack.errors import GuideError

__all__ = ["mirrored"]


def mirrored(distribution: Any, number: int) -> Tensor:
    """`number` draws ``(S, D)``, the second half made of minus the noise of the first; S is even.

    Raises:
        GuideError: the distribution is not made from symmetric noise.
    """
    if isinstance(distribution, TransformedDistribution):
        draws = mirrored(distribution.base_dist, number)
        for transform in distribution.transforms:
            draws = transform(draws)
        return draws
    base = distribution
    while isinstance(base, Independent):
        base = base.base_dist
    if not isinstance(base, Normal | MultivariateNormal | LowRankMultivariateNormal):
        raise GuideError(
            f"antithetic=True: the guide draws from {type(base).__name__}, whose noise has no mirror image that is known; "
            "leave antithetic out."
        )
    half: Tensor = distribution.rsample((number // 2,))
    return torch.cat([half, 2 * base.mean - half])
