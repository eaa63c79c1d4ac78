"""Counts of words as users have them: matrices, tables and corpora, read and checked once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import torch

from vipack.datasets import Corpus
from vipack.errors import DataError, ShapeError
from vipack.sparse.count_rows import CountRows

__all__ = ["Counts", "read_counts"]


@dataclass(frozen=True, eq=False)
class Counts:
    """Word counts of documents.

    Attributes:
        matrix: ``(D, V)`` SciPy CSR, float32, whole numbers.
        vocabulary: the words, where they are known.
        titles: of the documents, likewise.
    """

    matrix: Any
    vocabulary: tuple[str, ...] | None = None
    titles: tuple[str, ...] | None = None


def read_counts(counts: Any, num_words: int | None = None, *, name: str = "X", owner: str = "the model") -> Counts:
    """
    Args:
        counts: ``(D, V)``: a SciPy matrix, a NumPy array, a torch tensor, a DataFrame with a column a word, or a Corpus.
        num_words: that a fitted model has, and
        owner: its name.

    Raises:
        DataError: counts that are negative, fractional or not finite; no documents or words; texts.
        ShapeError: another number of words than the model's.
    """
    if isinstance(counts, Corpus):
        read = Counts(counts.counts, counts.vocabulary, counts.titles)
    else:
        is_table = hasattr(counts, "columns")
        words = tuple(str(column) for column in counts.columns) if is_table else None
        titles = tuple(str(label) for label in counts.index) if is_table else None
        read = Counts(_matrix(name, counts), words, titles)
    width = read.matrix.shape[1]
    if num_words is not None and width != num_words:
        raise ShapeError(
            f"{name}: X has {width} features, but {owner} is expecting {num_words} features as input: one column for each word "
            "of its vocabulary; put new texts into its columns with the vectorizer of the fit, or Corpus.with_vocabulary()."
        )
    return read


def _matrix(name: str, counts: Any) -> Any:
    if isinstance(counts, str | list | tuple) and len(counts) and isinstance(counts[0], str):
        raise DataError(
            f"{name}: found texts, expected counts of words; count them first with vipack.datasets.corpus_from_texts(texts) "
            "or a CountVectorizer."
        )
    if isinstance(counts, torch.Tensor):
        counts = counts.detach().cpu()
        if counts.layout == torch.strided:
            counts = counts.numpy()
        else:
            rows = CountRows.of(counts.to_sparse_csr(), torch.float64)
            counts = scipy.sparse.csr_array(
                (rows.counts.numpy(), rows.words.numpy(), rows.starts.numpy()), shape=tuple(counts.shape)
            )
    if hasattr(counts, "sparse") and hasattr(counts, "columns"):
        counts = counts.sparse.to_coo()
    if not scipy.sparse.issparse(counts):
        counts = np.asarray(counts)
        if counts.ndim != 2:
            raise DataError(
                f"{name}: found an array of {counts.ndim} dimensions, expected 2D counts (documents, words). Reshape your data "
                "either using array.reshape(-1, 1) if it has a single feature or array.reshape(1, -1) if it contains a single sample."
            )
    if counts.dtype.kind == "c":
        raise DataError(f"{name}: Complex data not supported; counts are whole numbers.")
    if counts.dtype.kind == "O" and not scipy.sparse.issparse(counts):
        counts = _numbers(name, counts)
    if counts.dtype.kind not in "fiub":
        raise DataError(f"{name}: counts are of type {counts.dtype}; expected whole numbers.")
    for size, what in zip(counts.shape, ("sample(s)", "feature(s)"), strict=True):
        if size == 0:
            raise DataError(
                f"{name}: found array with 0 {what} (shape={tuple(counts.shape)}) while a minimum of 1 is required: documents by words."
            )
    matrix = scipy.sparse.csr_array(counts)
    try:
        matrix.check_format(full_check=True)  # compiled passes go where it points
    except ValueError as error:
        raise DataError(
            f"{name}: is no valid sparse matrix ({error}); make it anew from its rows and columns."
        ) from error
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    values = matrix.data
    bad = ~np.isfinite(values)
    if bad.any():
        raise DataError(
            f"{name}: Input contains NaN or infinity ({values[bad][0]}); counts are whole numbers, 0 or more."
        )
    bad = values < 0
    if bad.any():
        raise DataError(f"{name}: Negative values in data passed to LDA: found the count {values[bad][0]}.")
    bad = values != np.floor(values)
    if bad.any():
        raise DataError(
            f"{name}: found the count {values[bad][0]:g}; counts are whole numbers, so pass those of a CountVectorizer rather than "
            "weights such as tf-idf."
        )
    if not values.any():
        raise DataError(f"{name}: all counts are 0: no document has a word of the vocabulary.")
    return matrix.astype(np.float32)


def _numbers(name: str, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    try:
        return values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{name}: is no array of numbers ({error}); argument must be counts of words, a column a word."
        ) from error
