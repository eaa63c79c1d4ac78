"""Draws of words from topics, token by token."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["draw_counts"]

_AT_ONCE = 1 << 20  # numbers of an intermediate result


def draw_counts(theta: Tensor, beta: Tensor, total_count: Tensor, sample_shape: torch.Size) -> tuple[Tensor, Tensor]:
    """The document, over the flat shape ``sample_shape + batch_shape``, and the word of each token.

    Args:
        theta: ``(*batch_shape, K)``.
        beta: ``(..., K, V)``.
        total_count: ``batch_shape``.
    """
    batch, number, width = theta.shape[:-1], theta.shape[-1], beta.shape[-1]
    totals = total_count.expand(sample_shape + batch).reshape(-1).long()
    document = torch.repeat_interleave(torch.arange(len(totals), device=theta.device), totals)
    own = document % max(1, batch.numel())  # among the rows of theta
    shares = theta.reshape(-1, number).double().cumsum(-1)
    size = max(1, _AT_ONCE // number)
    topic = torch.cat([_from_cumulative(shares[piece]) for piece in own.split(size)])
    topics = torch.arange(beta.shape[:-2].numel(), device=beta.device).view(*beta.shape[:-2], 1)
    which = topics.expand(batch).reshape(-1) if batch else topics.reshape(-1)  # of beta's repetitions
    kind = which[own] * number + topic
    words = beta.reshape(-1, width)
    word = torch.empty_like(document)
    for each in range(len(words)):
        chosen = (kind == each).nonzero()[:, 0]
        if len(chosen):
            word[chosen] = _from_cumulative(words[each].double().cumsum(-1), len(chosen))
    return document, word


def _from_cumulative(cumulative: Tensor, number: int | None = None) -> Tensor:
    """A category for each row of cumulative probabilities, or `number` of one row."""
    last = cumulative[..., -1:]
    if number is None:
        at = torch.rand(last.shape, dtype=torch.float64, device=last.device) * last
        drawn = torch.searchsorted(cumulative, at, right=True)[..., 0]
    else:
        drawn = torch.searchsorted(
            cumulative, torch.rand(number, dtype=torch.float64, device=last.device) * last, right=True
        )
    return drawn.clamp_(max=cumulative.shape[-1] - 1)
