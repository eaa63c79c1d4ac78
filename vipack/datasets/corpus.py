"""A corpus as topic models see it: how often each document uses each word, with the words and titles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse

from vipack.datasets.metadata import aligned
from vipack.datasets.tables import split_rows
from vipack.datasets.word_counting import occurrences
from vipack.errors import DataError, DataWarning, ShapeError, UsageError, warn
from vipack.hints import checked_class

if TYPE_CHECKING:
    import pandas

__all__ = ["Corpus", "OwnCounts"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class OwnCounts:
    """Counts ``(D, V)`` for a :class:`Corpus` to have as they are: canonical CSR of float32 that nothing else holds."""

    matrix: Any


@checked_class
@dataclass(frozen=True, eq=False, repr=False)
class Corpus:
    """Word counts of D documents over a vocabulary of V words.

    Attributes:
        counts: ``(D, V)`` SciPy CSR array, float32, whole numbers; goes straight into ``vi.fit(model, data=...)``.
        vocabulary: V words, in the order of the columns.
        titles: D names of documents, in the order of the rows.
        source: where the texts come from.
        licence: on what terms they may be used.
        metadata: a pandas DataFrame of D rows, numbered from 0, or None: what else is known of each document. It may be given
            as a dict of columns. Whatever takes documents, or leaves some out, does the same to its rows.

    Raises:
        DataError: shapes disagree, a word occurs twice, or a count is negative, fractional or not finite.
    """

    name: str
    counts: Any
    vocabulary: tuple[str, ...]
    titles: tuple[str, ...]
    source: str
    licence: str
    metadata: Any = None

    def __post_init__(self) -> None:
        owned = isinstance(self.counts, OwnCounts)
        given = self.counts.matrix if isinstance(self.counts, OwnCounts) else self.counts
        counts = given if scipy.sparse.issparse(given) else np.asarray(given)
        if counts.dtype.kind not in "fiub":
            raise DataError(f"{self.name}: counts are of type {counts.dtype}; expected whole numbers.")
        if counts.ndim != 2 or 0 in counts.shape:
            raise DataError(f"{self.name}: counts have shape {counts.shape}; a corpus needs documents and words.")
        object.__setattr__(self, "counts", counts if owned else _canonical(self.name, counts))
        object.__setattr__(self, "vocabulary", tuple(str(word) for word in self.vocabulary))
        object.__setattr__(self, "titles", tuple(str(title) for title in self.titles))
        for what, names, size, axis in (
            ("words in the vocabulary", self.vocabulary, counts.shape[1], "columns"),
            ("titles", self.titles, counts.shape[0], "rows"),
        ):
            if len(names) != size:
                raise DataError(f"{self.name}: {len(names)} {what} for {size} {axis} of counts; give one for each.")
        word, times = Counter(self.vocabulary).most_common(1)[0]
        if times > 1:
            raise DataError(f"{self.name}: the word {word!r} occurs twice in the vocabulary; add its columns together.")
        if self.metadata is not None:
            object.__setattr__(self, "metadata", aligned(self.name, self.metadata, counts.shape[0]))

    @property
    def num_documents(self) -> int:
        """D."""
        return int(self.counts.shape[0])

    @property
    def num_words(self) -> int:
        """V, the size of the vocabulary."""
        return int(self.counts.shape[1])

    @property
    def num_tokens(self) -> int:
        """Words in all documents, counted as often as they occur."""
        return int(self.lengths.sum())

    @property
    def lengths(self) -> Array:
        """``(D,)`` int64: tokens in each document."""
        return _whole(_row_sums(self.counts))

    @property
    def document_frequency(self) -> Array:
        """``(V,)`` int64: documents that contain each word."""
        return occurrences(self.counts.indices, self.num_words)

    def to_frame(self) -> pandas.DataFrame:
        """The counts as a DataFrame of sparse columns: a row a document, a column a word."""
        import pandas

        matrix = scipy.sparse.csr_matrix(self.counts)
        return pandas.DataFrame.sparse.from_spmatrix(matrix, index=list(self.titles), columns=list(self.vocabulary))

    def top_words(self, topics: Any, num_words: int = 10) -> list[tuple[str, ...]]:
        """The words with the largest weight in each topic, largest first.

        Args:
            topics: ``(K, V)`` array or tensor: probabilities, logits or weights of words, one row a topic.

        Raises:
            ShapeError: the last dimension is not V.
        """
        weights = np.asarray(topics.detach().cpu() if hasattr(topics, "detach") else topics)
        if weights.ndim != 2 or weights.shape[1] != self.num_words:
            raise ShapeError(
                f"topics: shape {weights.shape}, expected (K, {self.num_words}): one weight for each word of {self.name}."
            )
        order = np.argsort(-weights, axis=1, kind="stable")[:, :num_words]
        return [tuple(self.vocabulary[i] for i in row) for row in order]

    def take(self, indices: Any) -> Corpus:
        """The documents at `indices`: integers, a slice or a mask; the vocabulary stays."""
        rows = np.atleast_1d(np.arange(self.num_documents)[indices])
        return self._with(OwnCounts(self.counts[rows]), rows=rows)

    def split(self, held_out: float = 0.1, *, seed: int = 0) -> tuple[Corpus, Corpus]:
        """Random documents to train on, and a fraction `held_out` of them to test on, over one vocabulary.

        Raises:
            UsageError: one of the two would be empty.
        """
        kept, tested = split_rows(self.name, self.num_documents, held_out, seed)
        return self.take(kept), self.take(tested)

    def halve(self, *, seed: int = 0) -> tuple[Corpus, Corpus]:
        """Each document's tokens dealt at random into two halves, for document completion.

        Infer the topics of the first half, score the second. The first half gets the odd token.
        Source: Wallach et al. (2009), "Evaluation methods for topic models", section 5.1.
        """
        matrix = self.counts
        copies = _whole(matrix.data)
        documents = np.repeat(np.repeat(np.arange(self.num_documents), np.diff(matrix.indptr)), copies)
        words = np.repeat(matrix.indices, copies)
        shuffled = np.lexsort((np.random.default_rng(seed).random(len(words)), documents))
        starts = np.concatenate([[0], np.cumsum(self.lengths)[:-1]])
        position = np.arange(len(words)) - np.repeat(starts, self.lengths)
        first = position < np.repeat((self.lengths + 1) // 2, self.lengths)
        halves = []
        for chosen in (first, ~first):
            entries = (np.ones(int(chosen.sum())), (documents[shuffled][chosen], words[shuffled][chosen]))
            halves.append(self._with(scipy.sparse.coo_array(entries, shape=matrix.shape)))
        return halves[0], halves[1]

    def with_vocabulary(self, words: Sequence[str]) -> Corpus:
        """The same documents over the vocabulary `words`, in that order; other words are dropped, new ones have count 0.

        This puts new documents into the columns that a fitted topic model knows.
        """
        if isinstance(words, str) or not words:
            raise UsageError(f"words: expected a non-empty sequence of words, found {words!r}.")
        column = {word: i for i, word in enumerate(words)}
        entries = self.counts.tocoo()
        target = np.array([column.get(word, -1) for word in self.vocabulary])[entries.col]
        known = target >= 0
        rows = entries.row[known]
        counts = scipy.sparse.coo_array(
            (entries.data[known], (rows, target[known])), shape=(self.num_documents, len(words))
        )
        return self._with(counts, vocabulary=tuple(words))

    def prune(
        self,
        *,
        min_documents: int = 1,
        max_fraction: float = 1.0,
        max_words: int | None = None,
        min_tokens: int = 1,
        drop: Collection[str] = (),
    ) -> Corpus:
        """Without rare and ubiquitous words, and without the documents that are too short then.

        Args:
            min_documents: a word stays if at least so many of the documents that stay contain it.
            max_fraction: a word stays if at most this fraction of all documents contains it.
            max_words: of the words that these limits leave, keep those with the highest counts.
            min_tokens: a document stays if it has at least so many tokens left; with 0 all do, as rows without counts.
            drop: words to drop in any case.

        Raises:
            DataError: nothing would be left.

        Warns:
            DataWarning: documents without any word left are left out, with their titles and metadata. With `min_tokens` above
                1 short documents go without a warning, as was asked for.
        """
        frequency = self.document_frequency
        keep = (frequency >= min_documents) & (frequency <= max_fraction * self.num_documents)
        keep &= np.array([word not in drop for word in self.vocabulary])
        if max_words is not None:
            totals = np.where(keep, self.counts.sum(axis=0, dtype=np.float64), -1.0)
            keep[np.argsort(-totals, kind="stable")[max_words:]] = False
        columns, rows = np.flatnonzero(keep), np.arange(self.num_documents)
        counts = self.counts if keep.all() else self.counts[:, columns]
        while True:  # a document that goes makes words rarer, a word that goes makes documents shorter
            common = occurrences(counts.indices, len(columns)) >= min_documents
            long = _row_sums(counts) >= min_tokens
            if common.all() and long.all():
                break
            columns, rows = columns[common], rows[long]
            counts = counts[long][:, common]
        if not len(columns) or not len(rows):
            raise DataError(
                f"{self.name}: nothing is left of {self.num_documents} documents and {self.num_words} words with "
                f"min_documents={min_documents}, max_fraction={max_fraction}, min_tokens={min_tokens}; loosen these "
                "limits or give more text."
            )
        if min_tokens == 1 and len(rows) < self.num_documents:
            self._warn_of_empty(np.setdiff1d(np.arange(self.num_documents), rows))
        if counts is self.counts:
            return self
        return self._with(OwnCounts(counts), vocabulary=tuple(self.vocabulary[i] for i in columns), rows=rows)

    def _warn_of_empty(self, rows: Array) -> None:
        listed = ", ".join(repr(self.titles[i]) for i in rows[:5]) + (", ..." if len(rows) > 5 else "")
        warn(
            DataWarning(
                f"{self.name}: {len(rows)} of {self.num_documents} documents have no word left and are left out, with their "
                f"titles and metadata: {listed}; min_tokens=0 keeps them."
            )
        )

    def _with(self, counts: Any, *, vocabulary: tuple[str, ...] | None = None, rows: Array | None = None) -> Corpus:
        """Other counts, of the documents `rows` where these are not all."""
        return Corpus(
            self.name,
            counts,
            self.vocabulary if vocabulary is None else vocabulary,
            self.titles if rows is None else tuple(self.titles[i] for i in rows),
            self.source,
            self.licence,
            self.metadata if rows is None or self.metadata is None else self.metadata.iloc[rows],
        )

    def __repr__(self) -> str:
        size = f"{self.num_documents} documents, {self.num_words} words, {self.num_tokens} tokens"
        names = [] if self.metadata is None else list(map(str, self.metadata.columns))
        known = f"; metadata {', '.join(names[:6])}{', ...' * (len(names) > 6)}" if names else ""
        return f"Corpus({self.name!r}: {size}{known})"


def _canonical(name: str, counts: Any) -> Any:
    """CSR float32 with sorted indices, without stored zeros or duplicates."""
    matrix = scipy.sparse.csr_array(counts, copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    values = matrix.data
    bad = ~np.isfinite(values) | (values < 0) | (values != np.floor(values))
    if bad.any():
        raise DataError(f"{name}: found the count {values[bad][0]}; counts are whole numbers, 0 or more.")
    return matrix.astype(np.float32, copy=False)


def _row_sums(matrix: Any) -> Array:
    """``(D,)`` float64, of some rows at a time: a sum of SciPy's would copy all values as float64."""
    total, block = np.zeros(matrix.shape[0]), 4096
    for first in range(0, len(total), block):
        ends = matrix.indptr[first : first + block + 1]
        present = np.diff(ends) > 0
        values = matrix.data[ends[0] : ends[-1]]
        total[first : first + block][present] = np.add.reduceat(
            values, (ends[:-1] - ends[0])[present], dtype=np.float64
        )
    return total


def _whole(values: Any) -> Array:
    return np.asarray(values).round().astype(np.int64)
