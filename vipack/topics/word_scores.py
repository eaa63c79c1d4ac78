"""Which words tell most about a topic, and how many tokens of each word belong to it."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from vipack.topics.model_arrays import TopicModel

__all__ = ["LAMBDAS", "expected_tokens", "frex", "relevance", "relevant_words"]

LAMBDAS = np.linspace(0, 1, 21)  # the stops of the slider
_MOST_WEIGHTS = 4_000_000  # responsibilities in memory at once


def expected_tokens(model: TopicModel) -> np.ndarray:
    """``(K, V)``: the tokens of each word that each topic accounts for; a column sums to the word's count.

    Every token of word w in document d is divided among topics in proportion to ``theta[d, k] * topics[k, w]``.
    """
    counts, total = model.corpus.counts, np.zeros_like(model.topics)
    documents = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    step = max(1, _MOST_WEIGHTS // len(total))
    for start in range(0, counts.nnz, step):
        entries = slice(start, start + step)
        words, prior = counts.indices[entries], model.theta[documents[entries]].T
        weights = prior * model.topics[:, words]
        weights = np.where(weights.sum(0) > 0, weights, prior)  # a word that no topic of the document knows
        weights *= counts.data[entries] / weights.sum(0)
        for k, row in enumerate(weights):
            total[k] += np.bincount(words, row, minlength=total.shape[1])
    return total


def relevance(log_words: np.ndarray, log_lift: np.ndarray, weight: float) -> np.ndarray:
    """``weight * log p(w | k) + (1 - weight) * log(p(w | k) / p(w))`` in nats, of one topic or of all.

    Source: Sievert and Shirley (2014), "LDAvis", section 3.1.
    """
    # Infinities of words without probability: 0 * inf is NaN.
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(weight * log_words + (1 - weight) * log_lift, nan=-np.inf, neginf=-np.inf)


def relevant_words(log_words: np.ndarray, log_lift: np.ndarray, count: int) -> list[np.ndarray]:
    """The `count` most relevant words of one topic at each of :data:`LAMBDAS`, most relevant first."""
    orders = []
    for weight in LAMBDAS:
        score = relevance(log_words, log_lift, weight)
        best = np.argpartition(-score, min(count, len(score)) - 1)[:count]
        best = best[np.argsort(-score[best], kind="stable")]
        orders.append(best[np.isfinite(score[best])])
    return orders


def frex(topics: np.ndarray, weight: float = 0.5) -> np.ndarray:
    """``(K, V)``: harmonic mean of the ranks by exclusivity and by frequency within the topic, both from 0 to 1.

    Args:
        topics: probabilities of words that occur.
        weight: of exclusivity, ``p(w | k) / sum_j p(w | j)``.
    Source: Bischof and Airoldi (2012), "Summarizing topical content with word frequency and exclusivity", equation 3.
    """
    sums = topics.sum(0)
    exclusive = topics / np.where(sums > 0, sums, 1.0)
    size = topics.shape[1]
    ranks = [rankdata(values, axis=1, method="max") / size for values in (exclusive, topics)]
    return np.asarray(1 / (weight / ranks[0] + (1 - weight) / ranks[1]))
