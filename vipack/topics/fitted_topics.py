"""Topics that have been fitted: read, named, and listed with intervals."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from vipack.display import listed
from vipack.errors import DataError, DataWarning, TrustWarning, UsageError, warn
from vipack.topics.estimator import Estimator
from vipack.topics.word_counts import Counts, read_counts
from vipack.topics.word_measures import Measure, measured, word_intervals

__all__ = ["FittedTopics", "seed_of", "warn_of_empty"]

Array = np.ndarray[Any, Any]


class FittedTopics(Estimator):
    """What fitted topics are asked for, whatever the model.

    Attributes:
        components_: ``(K, V)`` concentrations of the topics' Dirichlet posteriors: pseudo-counts of words.
        topics_: ``(K, V)`` probabilities of words.
        documents_: ``(D, K)`` concentrations of the documents' shares, and
        shares_: ``(D, K)`` their means, where documents were kept.
    """

    components_: Array
    topics_: Array
    documents_: Array
    shares_: Array
    vocabulary_: tuple[str, ...]
    titles_: tuple[str, ...]
    topic_names_: list[str]
    n_features_in_: int
    _alpha: Array
    _word_totals: Array
    _lengths: Array  # tokens of the documents, where these have no concentrations

    def top_words(
        self, num_words: int = 10, *, measure: Measure = "probability", weight: float = 0.5
    ) -> list[tuple[str, ...]]:
        """The words that say most of each topic, the first most.

        Args:
            measure: "probability", "relevance" (Sievert and Shirley 2014) or "frex" (Bischof and Airoldi 2012).
            weight: of probability for relevance, of exclusivity for FREX.
        """
        order = self._order(num_words, measure, weight)
        return [tuple(self.vocabulary_[word] for word in row) for row in order]

    def word_table(
        self, num_words: int = 10, *, level: float = 0.9, measure: Measure = "probability", weight: float = 0.5
    ) -> pd.DataFrame:
        """The top words of each topic with their mean probability and its credible interval, a row each.

        The intervals are those of the mean-field posterior: they are too narrow where topics share words. Where topics have no
        posterior, as in ProdLDA, there are none: the columns are topic, word and mean.
        """
        order = self._order(num_words, measure, weight)
        if not hasattr(self, "components_"):
            plain = [
                (self.topic_names_[k], self.vocabulary_[word], self.topics_[k, word])
                for k, row in enumerate(order)
                for word in row
            ]
            return pd.DataFrame(plain, columns=["topic", "word", "mean"])
        low, high = word_intervals(self.components_, order, level)
        mean = self.components_ / self.components_.sum(1, keepdims=True)
        records = [
            (self.topic_names_[k], self.vocabulary_[word], mean[k, word], low[k, i], high[k, i])
            for k, row in enumerate(order)
            for i, word in enumerate(row)
        ]
        return pd.DataFrame(records, columns=["topic", "word", "mean", "lower", "upper"])

    def top_documents(self, num_documents: int = 3) -> list[tuple[str, ...]]:
        """The titles of the documents fitted to that have most of each topic."""
        if not hasattr(self, "shares_"):
            raise UsageError("top_documents: partial_fit keeps no documents; use transform.")
        order = np.argsort(-self.shares_, axis=0, kind="stable")[:num_documents].T
        return [tuple(self.titles_[d] for d in row) for row in order]

    def topic_proportions(self) -> pd.Series[float]:
        """How much of the corpus' tokens each topic makes up."""
        self._check_fitted()
        if not hasattr(self, "components_"):
            tokens = self._lengths @ self.shares_
            return pd.Series(tokens / tokens.sum(), index=self.topic_names_, name="share of tokens")
        posterior = self.topics_ * self.components_.sum(1, keepdims=True)
        mass = (posterior / posterior.sum(0) * self._word_totals).sum(1)
        return pd.Series(mass / mass.sum(), index=self.topic_names_, name="share of tokens")

    def unused_topics(self) -> list[int]:
        """The topics that are of no document: none fitted to has as much as one word of them expected, and their words are the prior's.

        Raises:
            UsageError: there are no documents, as after ``partial_fit``.
        """
        self._check_fitted()
        if not hasattr(self, "shares_"):
            raise UsageError("unused_topics: partial_fit keeps no documents; use transform.")
        expected = (
            self.documents_ - self._alpha if hasattr(self, "documents_") else self.shares_ * self._lengths[:, None]
        )
        return np.flatnonzero(expected.max(0) < 1).tolist()

    def report(
        self,
        path: str | os.PathLike[str],
        *,
        title: str | None = None,
        explorer: str | None = None,
        num_draws: int = 1_000,
        seed: int = 0,
        progress: bool | None = None,
    ) -> Path:
        """Write one HTML page on the fit behind the topics, with their words and documents; see :meth:`vipack.Fit.report`.

        Args:
            title: of the page.
            explorer: the address of a page by :func:`vipack.topics.explore` to link to, such as ``"topics.html"`` beside it.
            num_draws, seed, progress: as of :meth:`vipack.Fit.report`.

        Returns:
            Where the page is.

        Raises:
            UsageError: the folder does not exist, or there is no fit, as after ``load`` or ``partial_fit``.
        """
        self._check_fitted()
        fit = getattr(self, "fit_", None)
        if fit is None:
            raise UsageError(
                "report: there is no fit behind these topics, as load and partial_fit keep none; call fit first."
            )
        from vipack.report.fit_page import write_fit_page
        from vipack.topics.report_section import topics_section

        section = topics_section(self, explorer)
        heading = title or f"{len(self.topics_)} topics of {len(self.titles_):,} documents by {type(self).__name__}"
        return write_fit_page(
            fit, path, title=heading, num_draws=num_draws, seed=seed, progress=progress, sections=(section,)
        )

    def rename(self, names: Mapping[int, str] | Sequence[str]) -> Self:
        """Name topics, by number or all of them."""
        self._check_fitted()
        given = dict(names) if isinstance(names, Mapping) else dict(enumerate(names))
        for k, name in given.items():
            if not isinstance(k, int) or not 0 <= k < len(self.topic_names_):
                raise UsageError(
                    f"names: there is no topic {k!r}; topics are numbered from 0 to {len(self.topic_names_) - 1}."
                )
            self.topic_names_[k] = str(name)
        return self

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        """Names of :meth:`transform`'s columns."""
        self._check_fitted()
        return np.array([name.replace(" ", "") for name in self.topic_names_], dtype=object)

    def _warn_of_unused(self) -> None:
        """
        Warns:
            TrustWarning: topics are of no document.
        """
        unused = self.unused_topics()
        if unused:
            count = len(self.topics_)
            left = f"num_topics={count - len(unused)}" if len(unused) < count else "fewer topics"
            warn(
                TrustWarning(
                    f"{len(unused)} of {count} topics are of no document ({listed(map(str, unused))}), and their words are in no order that "
                    f"means anything; {left} is enough for these documents, or another random_state."
                )
            )

    def _order(self, num_words: int, measure: Measure, weight: float) -> Array:
        self._check_fitted()
        if isinstance(num_words, bool) or not isinstance(num_words, int) or num_words < 1:
            raise UsageError(f"num_words: expected a whole number of at least 1, found {num_words!r}.")
        scores = measured(self.topics_, self._word_totals, measure, weight)
        return np.argsort(-scores, axis=1, kind="stable")[:, :num_words]

    def _name_columns(self, counts: Counts, vocabulary: Sequence[str] | None) -> None:
        num_documents, num_words = counts.matrix.shape
        known = counts.vocabulary if vocabulary is None else tuple(map(str, vocabulary))
        if known is not None and len(known) != num_words:
            raise DataError(f"vocabulary: {len(known)} words for {num_words} columns of counts; give one for each.")
        if known is not None and len(set(known)) < len(known):
            twice = next(word for word in known if known.count(word) > 1)
            raise DataError(f"vocabulary: the word {twice!r} occurs twice; add its columns together.")
        self.vocabulary_ = known or tuple(map(str, range(num_words)))
        self.titles_ = counts.titles or tuple(map(str, range(num_documents)))

    def _read(self, X: Any) -> Counts:
        """New counts over the words of the fit.

        Raises:
            ShapeError: another number of words.
            DataError: other words, or the same in another order, where those of both are known.
        """
        self._check_fitted()
        counts = read_counts(X, self.n_features_in_, owner=type(self).__name__)
        numbered = tuple(map(str, range(len(self.vocabulary_))))
        if counts.vocabulary not in (None, self.vocabulary_) and numbered not in (counts.vocabulary, self.vocabulary_):
            column = next(i for i, own in enumerate(self.vocabulary_) if own != counts.vocabulary[i])
            raise DataError(
                f"X: column {column} is the word {counts.vocabulary[column]!r}, that of the fit is {self.vocabulary_[column]!r}; put columns in "
                "the order of vocabulary_, as with corpus.with_vocabulary(model.vocabulary_) or table[list(model.vocabulary_)]."
            )
        return counts

    def _check_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            try:
                from sklearn.exceptions import NotFittedError
            except ImportError:
                raise UsageError(f"{type(self).__name__} is not fitted yet; call fit first.") from None
            raise NotFittedError(f"{type(self).__name__} is not fitted yet; call fit first.")


def warn_of_empty(counts: Counts) -> None:
    """
    Warns:
        DataWarning: documents have no word.
    """
    lengths = np.asarray(counts.matrix.sum(1)).ravel()
    empty = np.flatnonzero(lengths == 0)
    if len(empty):
        titles = counts.titles or tuple(map(str, range(len(lengths))))
        listed = ", ".join(titles[d] for d in empty[:5]) + (", ..." if len(empty) > 5 else "")
        warn(
            DataWarning(
                f"{len(empty)} document(s) have no word of the vocabulary ({listed}); their shares are those of the prior."
            )
        )


def seed_of(random_state: Any) -> int:
    """
    Raises:
        UsageError: it is no integer, None or a NumPy generator.
    """
    if random_state is None:
        return int(np.random.default_rng().integers(2**31))
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    if isinstance(random_state, int | np.integer) and not isinstance(random_state, bool) and random_state >= 0:
        return int(random_state)
    raise UsageError(f"random_state: expected an integer of at least 0 or None, found {random_state!r}.")
