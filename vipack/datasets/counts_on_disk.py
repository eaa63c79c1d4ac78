"""Counts of texts that are too many for memory: read once, kept on disk, and taken from there some documents at a time."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from vipack.datasets.word_counting import WordCounts, tokens_of, words_of_token
from vipack.datasets.words import TextRules
from vipack.errors import DataError

__all__ = ["CountsOnDisk", "count_on_disk"]

_AT_ONCE = 4096  # documents that are counted together
_NEIGHBOURS = 64  # documents that are read in one piece

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class CountsOnDisk:
    """Counts ``(D, V)`` in two files, eight bytes a nonzero.

    Attributes:
        vocabulary: the words that count, in alphabetical order.
        ends: ``(all + 1,)``, where the nonzeros of each text end that was read.
        kept: ``(D,)``, which of all texts have a word of the vocabulary.
        columns: the column of each word that was read, -1 where it does not count.
        num_tokens: of the vocabulary.
    """

    folder: Path
    vocabulary: tuple[str, ...]
    ends: Array
    kept: Array
    columns: Array
    num_tokens: int

    @property
    def num_documents(self) -> int:
        """D."""
        return len(self.kept)

    def rows(self, documents: Array) -> Any:
        """The counts of some of the D documents as a SciPy CSR matrix; neighbours are read together."""
        pieces = np.split(documents, np.flatnonzero(np.diff(documents) != 1) + 1)
        return scipy.sparse.vstack([self._run(int(piece[0]), len(piece)) for piece in pieces], format="csr")

    def batches(self, size: int, generator: np.random.Generator) -> Iterator[Any]:
        """All documents once, about `size` at a time, in runs of neighbours that are drawn at random."""
        runs = np.arange(0, self.num_documents, _NEIGHBOURS)
        generator.shuffle(runs)
        for some in np.array_split(runs, min(len(runs), max(1, round(self.num_documents / size)))):
            yield self.rows(np.concatenate([np.arange(i, min(i + _NEIGHBOURS, self.num_documents)) for i in some]))

    def blocks(self, size: int) -> Iterator[tuple[Array, Any]]:
        """Numbers and counts of all documents in their order, `size` at a time."""
        for first in range(0, self.num_documents, size):
            numbers = np.arange(first, min(first + size, self.num_documents))
            yield numbers, self.rows(numbers)

    def _run(self, first: int, length: int) -> Any:
        texts = self.kept[first : first + length]
        start, stop = int(self.ends[texts[0]]), int(self.ends[texts[-1] + 1])
        numbers, values = (
            np.fromfile(self.folder / name, dtype, count=stop - start, offset=4 * start)
            for name, dtype in (("words", np.int32), ("values", np.float32))
        )
        ends = self.ends[texts[0] : texts[-1] + 2] - start
        columns = self.columns[numbers]
        counted = columns >= 0
        inside = np.concatenate([[0], np.cumsum(counted)])[ends]
        shape = (len(ends) - 1, len(self.vocabulary))
        matrix = scipy.sparse.csr_array((values[counted], columns[counted], inside), shape=shape)
        return matrix if shape[0] == length else matrix[texts - texts[0]]


def count_on_disk(texts: Iterable[str], folder: Path, rules: TextRules, name: str = "texts") -> CountsOnDisk:
    """Count texts that come one after the other; in memory are some of them, and every word that occurs.

    Args:
        folder: where to put the two files.
        rules: as of :func:`load_texts`; `min_tokens` is 0 or 1 here, as what goes would change which words are too rare.

    Raises:
        DataError: no text, or no words.
    """
    numbers: dict[str, int] = {}
    frequency: Counter[int] = Counter()
    totals: Counter[int] = Counter()
    ends = [np.zeros(1, np.int64)]
    with (folder / "words").open("wb") as words_file, (folder / "values").open("wb") as values_file:
        for counts, words in _blocks(texts, rules):
            global_numbers = np.array([numbers.setdefault(word, len(numbers)) for word in words], dtype=np.int32)
            frequency.update(
                dict(
                    zip(
                        global_numbers.tolist(), np.bincount(counts.indices, minlength=len(words)).tolist(), strict=True
                    )
                )
            )
            totals.update(dict(zip(global_numbers.tolist(), counts.sum(axis=0).tolist(), strict=True)))
            global_numbers[counts.indices].tofile(words_file)
            counts.data.astype(np.float32).tofile(values_file)
            ends.append(ends[-1][-1] + counts.indptr[1:].astype(np.int64))
    all_ends = np.concatenate(ends)
    count = len(all_ends) - 1
    if not count:
        raise DataError(f"{name}: there are no texts; a corpus needs at least one document.")
    kept_words = [
        word
        for word, number in numbers.items()
        if rules.min_documents <= frequency[number] <= rules.max_fraction * count
    ]
    if rules.max_words is not None:
        kept_words = sorted(sorted(kept_words), key=lambda word: -totals[numbers[word]])[: rules.max_words]
    vocabulary = tuple(sorted(kept_words))
    if not vocabulary:
        raise DataError(
            f"{name}: nothing is left of {count} documents and {len(numbers)} words with min_documents={rules.min_documents}, "
            f"max_fraction={rules.max_fraction}; loosen these limits or give more text."
        )
    columns = np.full(len(numbers), -1, np.int32)
    columns[[numbers[word] for word in vocabulary]] = np.arange(len(vocabulary))
    num_tokens = int(sum(totals[numbers[word]] for word in vocabulary))
    counts_on_disk = CountsOnDisk(folder, vocabulary, all_ends, np.arange(count), columns, num_tokens)
    if rules.min_tokens == 0:
        return counts_on_disk
    lengths = [np.asarray(block.sum(axis=1)).ravel() for _, block in counts_on_disk.blocks(_AT_ONCE)]
    return dataclasses.replace(counts_on_disk, kept=np.flatnonzero(np.concatenate(lengths) > 0))


def _blocks(texts: Iterable[str], rules: TextRules) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Counts of some texts after the others, each with the words of its columns."""
    shortest, stop_words = rules.min_letters, rules.stop_words

    def empty() -> WordCounts:
        return WordCounts(words_of_token, lambda word: len(word) >= shortest and word not in stop_words, rules.ngrams)

    table, size = empty(), 0
    for text in texts:
        table.add(tokens_of(text))
        size += 1
        if size == _AT_ONCE:
            yield table.finish()
            table, size = empty(), 0
    if size:
        yield table.finish()
