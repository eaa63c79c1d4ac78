"""Whether topics have words of their own: diversity, FREX and exclusivity."""

from __future__ import annotations

from typing import Any

import numpy as np

from vipack.errors import UsageError
from vipack.hints import checked
from vipack.topics.judging.topic_words import Array, leading_words, word_probabilities
from vipack.topics.word_scores import frex as frex_scores

__all__ = ["diversity", "exclusivity", "frex"]


@checked
def diversity(topics: Any, *, num_words: int = 25) -> float:
    """The share of different words among the leading words of all topics: 1 where no two topics have one in common.

    Args:
        topics: ``(K, V)`` weights of words, array or tensor.

    Source: Dieng, Ruiz, Blei (2020), Topic modeling in embedding spaces, section 6.
    """
    best = leading_words(word_probabilities(topics), num_words)
    return len(np.unique(best)) / best.size


@checked
def frex(topics: Any, *, weight: float = 0.5) -> Array:
    """How frequent and how exclusive each word is in each topic: the words with the highest scores label a topic.

    The harmonic mean of two ranks within the topic, as shares of V: of the word's probability, and of that over its sum in all topics.

    Args:
        topics: ``(K, V)`` weights of words, array or tensor; rows are normalised.
        weight: of exclusivity, from 0 to 1; the rest is frequency's.

    Returns:
        ``(K, V)``, above 0, at most 1.

    Source: Bischof, Airoldi (2012), Summarizing topical content with word frequency and exclusivity, with the probabilities
    themselves; R's ``stm::calcfrex`` without word counts.
    """
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= 1:
        raise UsageError(f"weight: expected the weight of exclusivity, from 0 to 1, found {weight!r}.")
    return frex_scores(word_probabilities(topics), weight)


@checked
def exclusivity(topics: Any, *, num_words: int = 10, weight: float = 0.7) -> Array:
    """The sum of :func:`frex` over the most probable words of each topic, ``(K,)``: at most `num_words`.

    It is what R's ``stm::exclusivity`` gives. Coherence alone is high where all topics have the same frequent words; this is low there.

    Args:
        topics: ``(K, V)`` weights of words, array or tensor.
        num_words: most probable words of each topic.
        weight: of exclusivity within FREX.

    Source: Roberts et al. (2014), Structural topic models for open-ended survey responses.
    """
    best = leading_words(word_probabilities(topics), num_words)
    return np.asarray(np.take_along_axis(frex(topics, weight=weight), best, 1).sum(1))
