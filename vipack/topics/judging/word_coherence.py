"""Coherence: whether the leading words of a topic occur in the same documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse

from vipack.datasets import Corpus
from vipack.diagnostics.sources import positive
from vipack.display import Readable
from vipack.errors import DataError
from vipack.hints import checked
from vipack.topics.judging.topic_words import Array, as_corpus, leading_words, word_probabilities

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Coherence", "coherence"]

_LOWEST = 3  # topics that are named


@dataclass(frozen=True, eq=False, repr=False)
class Coherence(Readable):
    """Normalised pointwise mutual information (NPMI) of the leading words of K topics, over pairs of words in documents.

    Attributes:
        npmi: of each topic, the mean over its pairs, ``(K,)``, from -1 (never in one document) over 0 (independent) to 1.
        never_together: how many pairs of each topic occur in no document together and so count -1, ``(K,)``.
        words: the leading words of each topic, largest first.
        num_documents: that have any words.
    """

    npmi: Array
    never_together: np.ndarray[Any, np.dtype[np.int64]]
    words: tuple[tuple[str, ...], ...]
    num_documents: int

    @property
    def mean(self) -> float:
        """The mean NPMI over topics."""
        return float(self.npmi.mean())

    def to_frame(self) -> pd.DataFrame:
        """One row a topic: ``npmi``, ``never_together`` and its ``words``."""
        import pandas as pd

        table = {
            "npmi": self.npmi,
            "never_together": self.never_together,
            "words": [" ".join(row) for row in self.words],
        }
        return pd.DataFrame(table, index=pd.RangeIndex(len(self.npmi), name="topic"))

    def __str__(self) -> str:
        count, num_words = len(self.words), len(self.words[0])
        pairs = count * num_words * (num_words - 1) // 2
        lines = [
            f"NPMI {self.mean:.3f}, mean over {count} topics of the pairs of their {num_words} leading words in {self.num_documents:,} "
            "documents",
            f"  {int(self.never_together.sum()):,} of {pairs:,} pairs are never together and count -1",
        ]
        for topic in np.argsort(self.npmi, kind="stable")[:_LOWEST]:
            lines.append(
                f"  {'lowest' if len(lines) == 2 else 'then'}: topic {topic} {self.npmi[topic]:.3f} {' '.join(self.words[topic])}"
            )
        return "\n".join(lines)


@checked
def coherence(topics: Any, corpus: Corpus | Any, *, num_words: int = 10) -> Coherence:
    """NPMI of the leading words of each topic, over documents that should be held out.

    On the documents that topics were trained on it flatters those that fit them most. Words count as together if one document has
    both, however far apart, since counts know no order: figures of sliding windows (C_v, and NPMI in some tools) are others.
    Documents without any words are left out.

    Args:
        topics: ``(K, V)`` weights of words, array or tensor.
        corpus: a Corpus, or counts ``(D, V)``, dense or sparse.
        num_words: leading words of each topic.

    Raises:
        ShapeError: topics over another vocabulary.
        DataError: topics that are none, or documents without words.
        UsageError: a topic gives weight to fewer words.

    Source: Bouma (2009), Normalized (pointwise) mutual information in collocation extraction; for topics Lau, Newman, Baldwin (2014).
    """
    documents = as_corpus(corpus)
    positive("num_words", num_words, 2)
    best = leading_words(word_probabilities(topics, documents.num_words), num_words)
    used = np.diff(documents.counts.indptr) > 0
    if not used.any():
        raise DataError(f"{documents.name}: no document has any words.")
    present = scipy.sparse.csc_array(documents.counts[used] > 0, dtype=np.float64)
    scores, apart = zip(*(_npmi(present[:, row]) for row in best), strict=True)
    words = tuple(tuple(documents.vocabulary[i] for i in row) for row in best)
    return Coherence(np.array(scores), np.array(apart), words, int(used.sum()))


def _npmi(present: Any) -> tuple[float, int]:
    """The mean over pairs of columns, and how many are never together.

    Args:
        present: ``(D, num_words)``, 1 where a document has a word.
    """
    together = (present.T @ present).toarray() / present.shape[0]
    i, j = np.tril_indices(len(together), -1)
    alone, both = together.diagonal(), together[i, j]
    with np.errstate(divide="ignore", invalid="ignore"):
        npmi = np.log(both / (alone[i] * alone[j])) / -np.log(both)
    npmi[both >= 1] = 0.0  # both in every document, which tells of nothing
    npmi[both <= 0] = -1.0
    return float(npmi.mean()), int((both <= 0).sum())
