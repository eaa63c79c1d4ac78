"""Prior concentrations that give words to topics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vipack.errors import UsageError

__all__ = ["concentrations_of_seeds"]


def concentrations_of_seeds(
    seeds: Mapping[int, Sequence[str]],
    eta: Any,
    weight: float,
    num_topics: int,
    vocabulary: Sequence[str],
    totals: np.ndarray[Any, Any],
) -> np.ndarray[Any, Any]:
    """Concentrations ``(K, V)``: each seed word has `weight` times its count in the corpus more in its topics, shared among them.

    Raises:
        UsageError: a topic that is not there, a word that is not in the vocabulary, or a weight that is not positive.
    """
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not weight > 0:
        raise UsageError(f"seed_weight: expected a positive number, found {weight!r}.")
    column = {word: i for i, word in enumerate(vocabulary)}
    topics_of: dict[str, list[int]] = {}
    for topic, words in seeds.items():
        if isinstance(topic, bool) or not isinstance(topic, int) or not 0 <= topic < num_topics:
            raise UsageError(f"seeds: there is no topic {topic!r}; topics are numbered from 0 to {num_topics - 1}.")
        if isinstance(words, str):
            raise UsageError(f"seeds: expected a list of words for topic {topic}, found the text {words!r}.")
        for word in words:
            topics_of.setdefault(word, []).append(topic)
    missing = [word for word in topics_of if word not in column]
    if missing:
        raise UsageError(
            f"seeds: not in the vocabulary: {', '.join(map(repr, missing[:10]))}{', ...' if len(missing) > 10 else ''}; leave "
            "them out, or count texts so that they stay."
        )
    concentrations: np.ndarray[Any, Any] = np.broadcast_to(
        np.asarray(eta, dtype=float), (num_topics, len(vocabulary))
    ).copy()
    for word, topics in topics_of.items():
        concentrations[topics, column[word]] += weight * totals[column[word]] / len(topics)
    return concentrations
