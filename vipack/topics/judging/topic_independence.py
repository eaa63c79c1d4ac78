"""A posterior predictive check of topics: within a topic, a model takes words to be independent of documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.special import xlogy

from vipack.datasets import Corpus
from vipack.diagnostics.sources import positive
from vipack.display import Readable
from vipack.errors import DataError
from vipack.hints import checked
from vipack.topics.judging.folding import choose_alpha, floored, fold_in, smoothing_of
from vipack.topics.judging.topic_words import Array, as_corpus, leading_words, word_probabilities

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TopicIndependence", "check_independence"]

Indices = npt.NDArray[np.int64]

_BLOCK = 5_000  # documents at once
_SHOWN = 3  # topics that are named


@dataclass(frozen=True, eq=False, repr=False)
class TopicIndependence(Readable):
    """Mutual information of words and documents within each topic, in the documents and in documents that the topics simulate, in nats.

    Attributes:
        information: of each topic in each draw of the topics of tokens, ``(S, K)``.
        replicated: the same where the tokens of each topic are dealt to its documents anew, ``(S, K)``.
        word_information, word_replicated: the instantaneous mutual information of the leading words, ``(S, K, num_words)``; NaN where
            a draw has no token of a word.
        tokens: of each topic, a mean over draws, ``(K,)``.
        words: the leading words of each topic.
    """

    information: Array
    replicated: Array
    word_information: Array
    word_replicated: Array
    tokens: Array
    words: tuple[tuple[str, ...], ...]

    @property
    def deviation(self) -> Array:
        """By how many standard deviations of the simulated information that of the documents lies above it, ``(K,)``."""
        return _deviation(self.information, self.replicated)

    @property
    def word_deviation(self) -> Array:
        """The same of each leading word, ``(K, num_words)``."""
        return _deviation(self.word_information, self.word_replicated)

    @property
    def pvalues(self) -> Array:
        """The share of draws in which simulated documents have at least as much information, the documents' own counted in, ``(K,)``."""
        return np.asarray((1 + (self.replicated >= self.information).sum(0)) / (1 + len(self.information)))

    def to_frame(self) -> pd.DataFrame:
        """One row a topic: ``tokens``, ``information``, ``replicated``, ``deviation``, ``pvalue``, and its ``words``, the most deviant first."""
        import pandas as pd

        table = {
            "tokens": self.tokens.round().astype(np.int64),
            "information": self.information.mean(0),
            "replicated": self.replicated.mean(0),
            "deviation": self.deviation,
            "pvalue": self.pvalues,
            "words": [" ".join(self._ordered(topic)) for topic in range(len(self.words))],
        }
        return pd.DataFrame(table, index=pd.RangeIndex(len(self.words), name="topic"))

    def __str__(self) -> str:
        draws, count = self.information.shape
        lines = [
            f"in {int((self.pvalues < 0.05).sum())} of {count} topics words depend on documents more than in simulated ones "
            f"(p < 0.05 over {draws} draws)"
        ]
        for topic in np.argsort(-self.deviation, kind="stable")[:_SHOWN]:
            lines.append(
                f"  topic {topic}: {self.information[:, topic].mean():.3f} nats, simulated {self.replicated[:, topic].mean():.3f}, "
                f"{self.deviation[topic]:.0f} sds above; most by {', '.join(self._ordered(topic)[:5])}"
            )
        return "\n".join(lines)

    def _ordered(self, topic: int) -> list[str]:
        order = np.argsort(-np.nan_to_num(self.word_deviation[topic], nan=-np.inf), kind="stable")
        return [self.words[topic][i] for i in order]


@checked
def check_independence(
    topics: Any,
    corpus: Corpus | Any,
    *,
    alpha: float | Any = None,
    num_draws: int = 20,
    num_words: int = 10,
    seed: int = 0,
) -> TopicIndependence:
    """Whether, within each topic, words are as independent of documents as the model takes them to be.

    The topics of tokens are drawn given mixtures by EM at fixed topics; simulated documents keep them and deal the tokens of each topic
    to its documents anew. A topic far above its simulations has words that keep to documents of their own, since it stands for several themes or
    since they come in bursts; its most deviant words tell which. With enough tokens every topic deviates: the order of topics and of
    words tells more than p-values. Mixtures and topics of tokens are fitted to the very words they are checked by, so that the
    check errs on the mild side.

    Args:
        topics: ``(K, V)`` weights of words, array or tensor.
        corpus: a Corpus, or counts ``(D, V)``, dense or sparse; training documents or others.
        alpha: as of :func:`completion`.
        num_draws: S, of the topics of tokens and of simulated documents.
        num_words: leading words of each topic to look at.

    Raises:
        ShapeError: topics over another vocabulary.
        DataError: topics that are none, or documents without words.

    Source: Mimno, Blei (2011), Bayesian checking for topic models. They draw the words of simulated documents from the topic; dealt
    tokens keep how often it has each word, which topics fitted to other documents do not.
    """
    documents = as_corpus(corpus)
    positive("num_draws", num_draws, 2)
    positive("seed", seed, 0)
    if not documents.num_tokens:
        raise DataError(f"{documents.name}: no document has any words.")
    probabilities = word_probabilities(topics, documents.num_words)
    best = leading_words(probabilities, num_words)
    probabilities = floored(probabilities)
    used = choose_alpha(probabilities, documents, seed) if alpha is None else smoothing_of(alpha, len(probabilities))
    theta = fold_in(probabilities, documents.counts, used)
    rng = np.random.default_rng(seed)
    own, new = [], []
    for _ in range(num_draws):
        tables = _Table(probabilities.shape), _Table(probabilities.shape)
        for topic, (rows, columns, times) in enumerate(_drawn(documents.counts, theta, probabilities, rng)):
            tables[0].add(topic, rows, columns, times)
            dealt = np.repeat(rows, times) * documents.num_words + rng.permutation(np.repeat(columns, times))
            pairs, times = np.unique(dealt, return_counts=True)
            tables[1].add(topic, *np.divmod(pairs, documents.num_words), times)
        own.append((*tables[0].information(best), tables[0].tokens))
        new.append(tables[1].information(best))
    words = tuple(tuple(documents.vocabulary[i] for i in row) for row in best)
    total, by_word, tokens = (np.stack(values) for values in zip(*own, strict=True))
    new_total, new_by_word = (np.stack(values) for values in zip(*new, strict=True))
    return TopicIndependence(total, new_total, by_word, new_by_word, tokens.mean(0), words)


class _Table:
    """Sums of n log n over how often each topic has each word in each document, which give all entropies."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.words = np.zeros(shape)  # tokens of each topic and word
        self.in_documents = np.zeros(shape)  # n log n of these over documents
        self.of_documents = np.zeros(shape[0])  # n log n of each topic's tokens over documents

    @property
    def tokens(self) -> Array:
        return np.asarray(self.words.sum(1))

    def add(self, topic: int, rows: Indices, columns: Indices, times: Indices) -> None:
        """`times` tokens of the words `columns` in the documents `rows`, all there are of these documents."""
        np.add.at(self.words[topic], columns, times)
        np.add.at(self.in_documents[topic], columns, xlogy(times, times))
        self.of_documents[topic] += float(xlogy(totals := np.bincount(rows, weights=times), totals).sum())

    def information(self, best: Indices) -> tuple[Array, Array]:
        """MI(W, D | k), ``(K,)``, and H(D | k) - H(D | W = w, k) of the words `best`, ``(K, num_words)``."""
        with np.errstate(divide="ignore", invalid="ignore"):
            documents = np.log(self.tokens) - self.of_documents / self.tokens
            given_word = np.log(self.words) - self.in_documents / self.words
        by_word = documents[:, None] - given_word
        total = np.where(self.words > 0, self.words * by_word, 0.0).sum(1) / np.maximum(self.tokens, 1.0)
        return total, np.take_along_axis(by_word, best, 1)


def _drawn(counts: Any, theta: Array, probabilities: Array, rng: np.random.Generator) -> list[tuple[Indices, ...]]:
    """The topics of all tokens: for each topic the documents, words and numbers of its tokens."""
    topics: list[list[tuple[Indices, ...]]] = [[] for _ in probabilities]
    for start in range(0, counts.shape[0], _BLOCK):
        block = counts[start : start + _BLOCK]
        rows = start + np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
        columns = block.indices.astype(np.int64)
        shares = theta[rows] * probabilities.T[columns]
        drawn = rng.multinomial(block.data.astype(np.int64), shares / shares.sum(1, keepdims=True))
        for topic, times in zip(topics, drawn.T, strict=True):
            chosen = np.flatnonzero(times)
            topic.append((rows[chosen], columns[chosen], times[chosen]))
    return [tuple(np.concatenate(values) for values in zip(*blocks, strict=True)) for blocks in topics]


def _deviation(own: Array, new: Array) -> Array:
    spread = new.std(0, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((own.mean(0) - new.mean(0)) / spread)
