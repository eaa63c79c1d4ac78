"""The log likelihood of sparse counts under log-linear probabilities of words, as operators with gradients on rows of a CSR matrix."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from vipack.engine.graph.csr_operators import row_operator
from vipack.engine.graph.csr_products import product, transposed_product
from vipack.sparse.operators import differentiable, gradient_shapes, leading_shape, pairs, result_shape, vectorized

__all__ = ["log_linear_likelihood"]

_AT_ONCE = 1 << 19  # logits in memory at once: a second-level cache holds them


def log_linear_likelihood(
    crow: Tensor, col: Tensor, values: Tensor, rows: Tensor | None, theta: Tensor, weights: Tensor
) -> Tensor:
    """``sum_w x_dw log softmax(theta_d @ weights)_w`` of rows of counts; with gradients of theta and weights.

    Args:
        crow, col, values: a CSR matrix ``(N, V)``.
        rows: ``(B,)`` of it; None for all N.
        theta: ``(..., B, K)``.
        weights: ``(..., K, V)``.

    Returns:
        ``(..., B)`` in nats.
    """
    words = weights.mT.contiguous()  # of which a word's numbers lie side by side
    result: Tensor = _LogLikelihood.apply(crow, col, values, rows, theta, words)
    return result


@row_operator("log_linear_bag", "Tensor theta, Tensor words", "Tensor", result_shape, vectorized)
def _likelihood(crow: Tensor, col: Tensor, values: Tensor, rows: Tensor | None, theta: Tensor, words: Tensor) -> Tensor:
    """See :func:`log_linear_likelihood`."""
    totals = _totals(crow, col, values, rows, words)
    result = theta.new_empty((*leading_shape(theta, words), theta.shape[-2]))
    for (shares, own), into in zip(pairs(theta, words), result.view(-1, result.shape[-1]), strict=True):
        torch.sum(shares * product(crow, col, values, rows, own), -1, out=into)
        for piece in _pieces(len(shares), len(own)):
            into[piece] -= totals[piece] * (shares[piece] @ own.T).logsumexp(-1)
    return result


@row_operator(
    "log_linear_bag_backward",
    "Tensor theta, Tensor words, Tensor gradient",
    "(Tensor, Tensor)",
    gradient_shapes,
    vectorized,
)
def _gradients(
    crow: Tensor, col: Tensor, values: Tensor, rows: Tensor | None, theta: Tensor, words: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of theta and words, from that of the result."""
    totals, lead = _totals(crow, col, values, rows, words), leading_shape(theta, words)
    of_theta = theta.new_empty((*lead, *theta.shape[-2:]))
    of_words = words.new_empty((*lead, *words.shape[-2:]))
    targets = zip(
        pairs(theta, words),
        of_theta.view(-1, *of_theta.shape[-2:]),
        of_words.view(-1, *of_words.shape[-2:]),
        gradient.reshape(-1, gradient.shape[-1]),
        strict=True,
    )
    for (shares, own), to_theta, to_words, scale in targets:
        to_theta.copy_(product(crow, col, values, rows, own)).mul_(scale[:, None])
        to_words.copy_(transposed_product(crow, col, values, rows, scale[:, None] * shares, len(own)))
        for piece in _pieces(len(shares), len(own)):
            expected = (shares[piece] @ own.T).softmax(-1).mul_((scale[piece] * totals[piece])[:, None])
            to_theta[piece] -= expected @ own
            to_words.addmm_(expected.T, shares[piece], alpha=-1)
    return of_theta.sum_to_size(theta.shape), of_words.sum_to_size(words.shape)


_LogLikelihood = differentiable(_likelihood, _gradients)


def _totals(crow: Tensor, col: Tensor, values: Tensor, rows: Tensor | None, words: Tensor) -> Tensor:
    """Counts of each row added up, ``(B,)``."""
    totals: Tensor = product(crow, col, values, rows, values.new_ones(words.shape[-2], 1))
    return totals[:, 0]


def _pieces(number: int, width: int) -> Iterator[slice]:
    """Rows in pieces, of whose logits none has many."""
    size = max(1, _AT_ONCE // max(1, width))
    return (slice(first, first + size) for first in range(0, number, size))
