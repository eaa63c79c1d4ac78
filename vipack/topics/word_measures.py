"""Which words say what a topic is: by probability, relevance or FREX, with intervals."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import scipy.special

from vipack.errors import UsageError
from vipack.topics.word_scores import frex, relevance

__all__ = ["Measure", "measured", "word_intervals"]

Array = np.ndarray[Any, Any]
Measure = Literal["probability", "relevance", "frex"]


def measured(topics: Array, frequencies: Array, measure: Measure, weight: float) -> Array:
    """``(K, V)`` scores, the higher the more a word says about a topic.

    Raises:
        UsageError: there is no such measure, or the weight is not in [0, 1].
    """
    if not 0 <= weight <= 1:
        raise UsageError(f"weight: expected a number from 0 to 1, found {weight!r}.")
    if measure == "probability":
        return topics
    if measure == "relevance":
        overall = np.maximum(frequencies, 0.5)  # words that seeds alone brought in do not occur
        logs = np.log(np.maximum(topics, 1e-300))
        scores: Array = relevance(logs, logs - np.log(overall / overall.sum()), weight)
        return scores
    if measure == "frex":
        return frex(topics, weight)
    raise UsageError(f"measure: expected 'probability', 'relevance' or 'frex', found {measure!r}.")


def word_intervals(concentrations: Array, words: Array, level: float) -> tuple[Array, Array]:
    """Lower and upper ends of the probabilities of some words under Dirichlet distributions ``(K, V)``, which are Beta's.

    Args:
        words: ``(K, n)``, columns of each topic.
    """
    chosen = np.take_along_axis(concentrations, words, 1)
    others = concentrations.sum(1, keepdims=True) - chosen
    tail = (1 - level) / 2
    return scipy.special.betaincinv(chosen, others, tail), scipy.special.betaincinv(chosen, others, 1 - tail)
