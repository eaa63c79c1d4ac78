"""Topics and shares of documents as arrays that agree with their corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vipack.datasets import Corpus
from vipack.errors import ShapeError, UsageError
from vipack.plots.inputs import ArrayLike, array_of

__all__ = ["TopicModel", "probabilities", "strings", "topic_model"]

_TOLERANCE = 1e-3  # float32 over 100,000 words is off by less


@dataclass(frozen=True, eq=False)
class TopicModel:
    """K topics over the V words of a corpus of D documents.

    Attributes:
        topics: ``(K, V)`` float64: the probability of each word in each topic; rows sum to 1.
        theta: ``(D, K)`` float64: the share of each topic in each document; rows sum to 1.
    """

    topics: np.ndarray
    theta: np.ndarray
    corpus: Corpus


def topic_model(topics: ArrayLike, theta: ArrayLike, corpus: Corpus) -> TopicModel:
    """
    Raises:
        UsageError: `corpus` is none, or values are not probabilities.
        ShapeError: shapes do not agree.
    """
    if not isinstance(corpus, Corpus):
        raise UsageError(
            f"corpus: expected a vipack.datasets.Corpus, found {type(corpus).__name__}; make one with "
            "Corpus(name, counts, vocabulary, titles, source, licence) or vipack.datasets.corpus_from_texts(texts)."
        )
    if not corpus.num_tokens:
        raise UsageError(f"corpus: {corpus.name} has no tokens; there is nothing to show.")
    words = probabilities(topics, "topics")
    shares = probabilities(theta, "theta")
    if words.shape[1] != corpus.num_words:
        raise ShapeError(
            f"topics: shape {words.shape}, expected (K, {corpus.num_words}): a column for each word of {corpus.name}."
        )
    if shares.shape != (corpus.num_documents, len(words)):
        raise ShapeError(
            f"theta: shape {shares.shape}, expected {(corpus.num_documents, len(words))}: a row for each document of "
            f"{corpus.name}, a column for each topic."
        )
    return TopicModel(words, shares, corpus)


def probabilities(values: ArrayLike, what: str) -> np.ndarray:
    """Rows of probabilities, in float64, that sum to 1.

    Raises:
        ShapeError: no matrix.
        UsageError: negative or not finite values, or a row that does not sum to 1.
    """
    array = array_of(values, what).astype(np.float64)
    if array.ndim != 2 or not array.size:
        draws = "; pass the mean over draws" if array.ndim == 3 else ""
        raise ShapeError(
            f"{what}: expected a matrix with a row for each distribution, found shape {array.shape}{draws}."
        )
    if not np.isfinite(array).all() or array.min() < 0:
        raise UsageError(f"{what}: expected probabilities, found negative or non-finite values; pass exp of logs.")
    sums = array.sum(1, keepdims=True)
    worst = int(np.abs(sums - 1).argmax())
    if abs(sums[worst, 0] - 1) > _TOLERANCE:
        raise UsageError(
            f"{what}: row {worst} sums to {sums[worst, 0]:.4g}, expected 1; pass {what} / {what}.sum(1, keepdims=True)."
        )
    return np.asarray(array / sums)


def strings(values: Sequence[Any] | None, count: int, what: str, each: str) -> tuple[str, ...] | None:
    """`count` texts, or None where there are none.

    Raises:
        UsageError: another number of them, or one text for all.
    """
    if values is None:
        return None
    if isinstance(values, str) or len(values) != count:
        given = "one text" if isinstance(values, str) else f"{len(values)}"
        raise UsageError(f"{what}: expected {count}, one for each {each}, found {given}.")
    return tuple(str(value) for value in values)
