"""Mixtures of topics for documents at fixed topics, by EM over the words that occur, and the log probability of words under them."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vipack.datasets import Corpus
from vipack.errors import UsageError
from vipack.export.groups import dense
from vipack.topics.judging.topic_words import Array
from vipack.training.arrays import csr_tensor

__all__ = [
    "ALPHAS",
    "LEAST",
    "choose_alpha",
    "document_sums",
    "floored",
    "fold_in",
    "smoothing_of",
    "word_log_probabilities",
]

LEAST = 1e-12  # probability of a word in a topic
ALPHAS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_START = 4  # where the choice of alpha begins
_CHOICE_STEPS = 30
_BLOCK = 20_000  # documents at once


def fold_in(topics: Array, counts: Any, alpha: float | Array, steps: int = 60) -> Array:
    """The mixture of topics of each document, by EM from equal shares.

    Each step adds `alpha` to the expected tokens of each topic, so that a document without tokens gets alpha's own shares.

    Args:
        topics: ``(K, V)``, rows that sum to 1.
        counts: ``(D, V)`` CSR.
        alpha: one number, or one for each topic ``(K,)``.

    Returns:
        ``(D, K)``, rows that sum to 1.
    """
    words = torch.from_numpy(np.ascontiguousarray(topics.T))
    smoothing = torch.from_numpy(np.broadcast_to(np.asarray(alpha, np.float64), len(topics)).copy())
    blocks = [
        _folded(words, counts[start : start + _BLOCK], smoothing, steps) for start in range(0, counts.shape[0], _BLOCK)
    ]
    return np.concatenate(blocks)


def _folded(words: Tensor, counts: Any, smoothing: Tensor, steps: int) -> Array:
    pattern, values = _csr(counts)
    theta = torch.full((counts.shape[0], len(smoothing)), 1 / len(smoothing), dtype=torch.float64, device="cpu")
    for _ in range(steps):
        shares = pattern.clone()
        shares.values().copy_(values / _products(pattern, theta, words))
        theta = smoothing + theta * (shares @ words)
        theta /= theta.sum(1, keepdim=True)
    return theta.numpy()


def _csr(counts: Any) -> tuple[Tensor, Tensor]:
    """`counts` in float64 and their values, on the CPU whatever ``torch.set_default_device`` says."""
    counts = counts.astype(np.float64)
    with torch.device("cpu"):
        return csr_tensor(counts), torch.from_numpy(counts.data)


def _products(pattern: Tensor, theta: Tensor, words: Tensor) -> Tensor:
    """p(word | document) where `pattern` has an entry, ``(nnz,)``; never all of ``(D, V)``."""
    products: Tensor = torch.sparse.sampled_addmm(pattern, theta, words.T, beta=0.0)
    return products.values()


def word_log_probabilities(topics: Array, theta: Array, counts: Any) -> Array:
    """log p of each entry of `counts` under its document's mixture, ``(nnz,)`` in nats, in the order of the CSR matrix."""
    words, log_p = torch.from_numpy(np.ascontiguousarray(topics.T)), []
    for start in range(0, counts.shape[0], _BLOCK):
        block = slice(start, start + _BLOCK)
        pattern, _ = _csr(counts[block])
        log_p.append(_products(pattern, torch.from_numpy(np.ascontiguousarray(theta[block])), words).log())
    return torch.cat(log_p).numpy()


def document_sums(values: Array, counts: Any) -> Array:
    """The sum of count times value over each document's words, ``(D,)``."""
    rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    return np.bincount(rows, weights=counts.data * values, minlength=counts.shape[0]).astype(np.float64)


def choose_alpha(topics: Array, observed: Corpus, seed: int) -> float:
    """The symmetric alpha whose mixtures of one half of `observed` give the other half the highest probability.

    The search starts at 0.1 and goes up or down the grid of `ALPHAS` for as long as that gains.
    """
    first, second = observed.halve(seed=seed)

    @functools.cache
    def score(index: int) -> float:
        theta = fold_in(topics, first.counts, ALPHAS[index], _CHOICE_STEPS)
        return float(second.counts.data @ word_log_probabilities(topics, theta, second.counts))

    best = _START
    for direction in (-1, 1):
        while 0 <= best + direction < len(ALPHAS) and score(best + direction) > score(best):
            best += direction
    return ALPHAS[best]


def smoothing_of(alpha: Any, num_topics: int) -> float | Array:
    """`alpha` as given by a user.

    Raises:
        UsageError: neither one positive number nor one for each topic.
    """
    values = dense(alpha)
    if values.dtype.kind not in "iuf" or values.shape not in ((), (num_topics,)):
        raise UsageError(
            f"alpha: expected one positive number or one for each of {num_topics} topics, found {alpha!r}."
        )
    if not np.isfinite(values).all() or (values <= 0).any():
        raise UsageError(f"alpha: expected positive numbers, found {float(values.min()):g}.")
    return float(values) if not values.shape else values.astype(np.float64)


def floored(topics: Array) -> Array:
    """Topics that give each word a probability of at least about `LEAST`, so that logs are finite."""
    raised = np.maximum(topics, LEAST)
    return np.asarray(raised / raised.sum(1, keepdims=True))
