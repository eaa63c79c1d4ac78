"""A topic model in the form that pyLDAvis takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from vipack.datasets import Corpus
from vipack.errors import UsageError
from vipack.hints import checked
from vipack.plots.inputs import ArrayLike
from vipack.topics.model_arrays import topic_model

__all__ = ["to_pyldavis"]


@checked
def to_pyldavis(topics: ArrayLike, theta: ArrayLike, corpus: Corpus) -> dict[str, Any]:
    """What ``pyLDAvis.prepare`` takes by keyword: ``pyLDAvis.prepare(**to_pyldavis(topics, theta, corpus))``.

    Words that the corpus does not use are left out, since pyLDAvis divides by their counts.

    Args:
        topics: ``(K, V)``: the probability of each word in each topic.
        theta: ``(D, K)``: the share of each topic in each document.

    Returns:
        ``topic_term_dists``, ``doc_topic_dists``, ``doc_lengths``, ``vocab`` and ``term_frequency``.

    Raises:
        UsageError: values that are not probabilities.
        ShapeError: shapes that do not agree.
    """
    model = topic_model(topics, theta, corpus)
    frequency = np.asarray(corpus.counts.sum(axis=0, dtype=np.float64)).astype(np.int64)
    used = np.flatnonzero(frequency)
    words = model.topics[:, used]
    empty = np.flatnonzero(words.sum(1) == 0)
    if len(empty):
        raise UsageError(
            f"topics: topic {empty[0]} has no probability of any word that occurs in {corpus.name}; leave it out."
        )
    return {
        "topic_term_dists": words / words.sum(1, keepdims=True),
        "doc_topic_dists": model.theta,
        "doc_lengths": corpus.lengths,
        "vocab": [corpus.vocabulary[i] for i in used],
        "term_frequency": frequency[used],
    }
