"""Mixtures and log probabilities that a model infers by itself, as it hands them in to be scored."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import logsumexp

from vipack.datasets import Corpus
from vipack.errors import DataError, ShapeError
from vipack.export.groups import dense
from vipack.topics.judging.topic_words import Array

__all__ = ["checked_log_probability", "checked_theta"]

_TOLERANCE = 1e-3


def checked_theta(theta: Any, num_topics: int, scored: np.ndarray, titles: tuple[str, ...]) -> Array:
    """Nonnegative weights of topics as rows that sum to 1; equal shares for documents that are not scored.

    Raises:
        ShapeError: another shape.
        DataError: NaN, infinite or negative weights, or none, in a document that is scored.
    """
    weights = dense(theta)
    if weights.shape != (len(scored), num_topics):
        raise ShapeError(
            f"theta: found shape {weights.shape}, expected ({len(scored)}, {num_topics}): a row for each document, empty ones as well, a "
            "column for each topic."
        )
    weights = np.where(scored[:, None], weights.astype(np.float64), 1.0)
    totals = weights.sum(1)
    bad = ~np.isfinite(totals) | (weights < 0).any(1) | (totals <= 0)
    if bad.any():
        first = int(np.argmax(bad))
        raise DataError(
            f"theta: {int(bad.sum()):,} documents whose weights are negative, not finite or all zero, the first {titles[first]!r}: "
            f"{weights[first][:5]}; expected shares of topics."
        )
    return np.asarray(weights / totals[:, None])


def checked_log_probability(log_probability: Any, held_out: Corpus) -> Array:
    """log p of each entry of the held-out counts, ``(nnz,)``.

    Raises:
        ShapeError: neither ``(nnz,)`` nor ``(D, V)``.
        DataError: not finite, or no log probabilities: the words of a document have more than 1 together.
    """
    values, counts = dense(log_probability).astype(np.float64), held_out.counts
    rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    if values.shape == counts.shape:
        totals = logsumexp(values, axis=1)[np.diff(counts.indptr) > 0]
        if (np.abs(totals) > _TOLERANCE).any():
            worst = totals[np.argmax(np.abs(totals))]
            raise DataError(
                f"log_probability: exp of a row sums to {np.exp(worst):.3g}, expected 1; pass log_softmax of logits."
            )
        values = values[rows, counts.indices]
    elif values.shape != (counts.nnz,):
        raise ShapeError(
            f"log_probability: found shape {values.shape}, expected {counts.shape}, a word a column, or ({counts.nnz},), one for each entry "
            "of the held-out half's CSR counts."
        )
    if not np.isfinite(values).all():
        first = int(np.argmin(np.isfinite(values)))
        raise DataError(
            f"log_probability: {values[first]} for the word {held_out.vocabulary[counts.indices[first]]!r} in {held_out.titles[rows[first]]!r}; "
            "a word that occurs needs a probability above 0."
        )
    sums = np.bincount(rows, weights=np.exp(np.minimum(values, 50.0)), minlength=counts.shape[0])
    if sums.max() > 1 + _TOLERANCE:
        first = int(np.argmax(sums))
        raise DataError(
            f"log_probability: the different words of {held_out.titles[first]!r} have a probability of {sums[first]:.3g} together, at most 1 "
            "can be; pass log probabilities, normalised over the vocabulary."
        )
    return np.asarray(values)
