"""Stability: which topics come again when the model is fitted from another seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from vipack.display import Readable, listed
from vipack.errors import UsageError
from vipack.hints import checked
from vipack.topics.judging.topic_words import Array, leading_words, same_vocabulary, word_probabilities

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["STABLE", "Stability", "match_topics", "stability"]

STABLE = 0.5  # of ten leading words, seven in common have a Jaccard index of .54, six of .43
_ROUNDING = 1e-9  # of a mean of fractions

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False, repr=False)
class Stability(Readable):
    """How the K topics of a reference come again in R other runs.

    Attributes:
        matches: the topic of each run that was matched to each topic of the reference, ``(K, R)``; -1 for none, where a run has fewer.
        jaccard: words that both lead with over words that either leads with, ``(K, R)``; 0 without a match.
        cosine: between their probabilities of words, ``(K, R)``; 0 without a match.
        words: the leading words of each topic of the reference, as text or as columns.
        threshold: of the mean Jaccard index, from which a topic counts as stable.
    """

    matches: Indices
    jaccard: Array
    cosine: Array
    words: tuple[tuple[str, ...], ...]
    threshold: float

    @property
    def stable(self) -> tuple[int, ...]:
        """Topics whose mean Jaccard index over runs is at least the threshold."""
        return tuple(map(int, np.flatnonzero(self.jaccard.mean(1) >= self.threshold - _ROUNDING)))

    @property
    def mean(self) -> float:
        """The mean Jaccard index over topics and runs."""
        return float(self.jaccard.mean())

    def to_frame(self) -> pd.DataFrame:
        """One row a topic: ``jaccard`` and ``cosine``, means over runs, ``lowest`` Jaccard of a run, ``runs`` with a match, ``stable``, ``words``."""
        import pandas as pd

        table = {
            "jaccard": self.jaccard.mean(1),
            "lowest": self.jaccard.min(1),
            "cosine": self.cosine.mean(1),
            "runs": (self.matches >= 0).sum(1),
            "stable": np.isin(np.arange(len(self.words)), self.stable),
            "words": [" ".join(row) for row in self.words],
        }
        return pd.DataFrame(table, index=pd.RangeIndex(len(self.words), name="topic"))

    def __str__(self) -> str:
        count, runs = self.jaccard.shape
        stable = self.stable
        others = [topic for topic in np.argsort(self.jaccard.mean(1), kind="stable") if topic not in stable]
        lines = [
            f"{len(stable)} of {count} topics are stable: the Jaccard index of their {len(self.words[0])} leading words with those of their match "
            f"in {runs} other {'run' if runs == 1 else 'runs'} is at least {self.threshold:g} (mean of all topics {self.mean:.2f})"
        ]
        lines += [f"  stable: {listed(map(str, stable), 40)}"] if stable else []
        lines += [f"  not stable, least first: {listed(map(str, others), 40)}"] if others else []
        return "\n".join(lines)


@checked
def match_topics(reference: Any, topics: Any) -> Indices:
    """The topic of `topics` for each topic of `reference`, one to one, so that the sum of cosines is the largest possible.

    ``topics[match_topics(reference, topics)]`` has the order of the reference, where it has as many topics.

    Args:
        reference, topics: ``(K, V)`` and ``(L, V)`` weights of words, arrays or tensors.

    Returns:
        ``(K,)``; -1 for topics of the reference that are left without one, where L is less than K.

    Raises:
        ShapeError: the vocabularies differ.
    """
    pair = [word_probabilities(reference, name="reference"), word_probabilities(topics)]
    same_vocabulary(pair, ["reference", "topics"])
    return _matched(_cosines(*pair))


@checked
def stability(
    reference: Any,
    runs: Sequence[Any],
    *,
    num_words: int = 10,
    threshold: float = STABLE,
    vocabulary: Sequence[str] | None = None,
) -> Stability:
    """Which topics of a reference come again in other runs, matched one to one by the cosine of their probabilities of words.

    A topic is called stable if the Jaccard index of its leading words and those of its matches is at least `threshold`, a mean over
    runs. By default that is one half: seven of ten words in common are enough, six are not. No theory says so. Runs of fewer topics
    leave some of the reference without a match, which counts 0; runs of more topics have some left over, which do not count.

    Args:
        reference: ``(K, V)`` weights of words, array or tensor: the topics to be judged.
        runs: other arrays ``(L, V)``, such as from other seeds; L may differ. They should not contain the reference.
        num_words: leading words of each topic.
        vocabulary: V words, to show; columns are numbered otherwise.

    Raises:
        ShapeError: the vocabularies differ.
        UsageError: no other run, or a topic gives weight to fewer words.
    """
    others = _several(runs)
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold <= 1:
        raise UsageError(f"threshold: expected a Jaccard index above 0, at most 1, found {threshold!r}.")
    names = ["reference", *(f"runs[{i}]" for i in range(len(runs)))]
    several = [word_probabilities(topics, name=name) for topics, name in zip([reference, *others], names, strict=True)]
    same_vocabulary(several, names)
    if vocabulary is not None and len(vocabulary) != several[0].shape[1]:
        raise UsageError(
            f"vocabulary: {len(vocabulary)} words for topics over {several[0].shape[1]}; give one for each column."
        )
    best = [leading_words(topics, num_words, name=name) for topics, name in zip(several, names, strict=True)]
    compared = [
        _compared(several[0], other, best[0], words) for other, words in zip(several[1:], best[1:], strict=True)
    ]
    matches, jaccard, cosine = (np.stack(columns, axis=1) for columns in zip(*compared, strict=True))
    shown = tuple(tuple(str(i) if vocabulary is None else str(vocabulary[i]) for i in row) for row in best[0])
    return Stability(matches, jaccard, cosine, shown, float(threshold))


def _several(runs: Any) -> list[Any]:
    """
    Raises:
        UsageError: no list of arrays, nor one array (R, L, V).
    """
    several = list(runs) if isinstance(runs, list | tuple) or getattr(runs, "ndim", 0) == 3 else []
    if not several:
        shape = f" of shape {tuple(runs.shape)}" if hasattr(runs, "shape") else ""
        raise UsageError(
            f"runs: expected a list of at least one array (L, V), topics from another seed, found {type(runs).__name__}{shape}."
        )
    return several


def _compared(reference: Array, other: Array, words: Indices, other_words: Indices) -> tuple[Indices, Array, Array]:
    """The match of each topic, its Jaccard index and cosine, ``(K,)`` each."""
    cosines = _cosines(reference, other)
    matches = _matched(cosines)
    jaccard = np.zeros(len(reference))
    for topic in np.flatnonzero(matches >= 0):
        common = len(np.intersect1d(words[topic], other_words[matches[topic]]))
        jaccard[topic] = common / (2 * words.shape[1] - common)
    return matches, jaccard, np.where(matches >= 0, cosines[np.arange(len(reference)), matches], 0.0)


def _cosines(one: Array, other: Array) -> Array:
    first, second = (topics / np.linalg.norm(topics, axis=1, keepdims=True) for topics in (one, other))
    return np.asarray(first @ second.T)


def _matched(cosines: Array) -> Indices:
    matches = np.full(len(cosines), -1, dtype=np.int64)
    rows, columns = linear_sum_assignment(-cosines)
    matches[rows] = columns
    return matches
