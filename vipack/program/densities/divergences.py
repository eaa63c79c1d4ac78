"""The divergence of one distribution from another, element by element where it is known."""

from __future__ import annotations

from typing import Any

from pyro.distributions.torch_distribution import ExpandedDistribution, MaskedDistribution
from torch import Tensor
from torch.distributions import Independent, kl_divergence

__all__ = ["elementwise_divergence"]


def elementwise_divergence(q: Any, p: Any) -> Tensor | None:
    """KL(q || p) in nats of each element of batch and event, where torch knows it; None elsewhere."""
    shape = q.batch_shape + q.event_shape
    q, p = _plain(q), _plain(p)
    try:
        divergence: Tensor = kl_divergence(q, p)
    except NotImplementedError:
        return None
    return None if q.event_shape or p.event_shape else divergence.expand(shape)


def _plain(distribution: Any) -> Any:
    """Without what declares batch or event dimensions."""
    while isinstance(distribution, Independent | ExpandedDistribution | MaskedDistribution):
        distribution = distribution.base_dist
    return distribution
