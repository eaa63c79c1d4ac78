"""What judging reads: topics as rows of word probabilities, the words that lead them, and the documents."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse
import torch

from vipack.datasets import Corpus
from vipack.diagnostics.sources import positive
from vipack.errors import DataError, ShapeError, UsageError
from vipack.export.groups import dense
from vipack.training.arrays import scipy_csr

__all__ = ["Array", "as_corpus", "leading_words", "same_vocabulary", "word_probabilities"]

Array = npt.NDArray[np.float64]


def word_probabilities(topics: Any, num_words: int | None = None, *, name: str = "topics") -> Array:
    """Nonnegative weights as rows that sum to 1.

    Args:
        topics: ``(K, V)`` array, tensor or DataFrame.
        num_words: V of the documents, where there are any.

    Returns:
        ``(K, V)`` float64.

    Raises:
        ShapeError: another shape.
        DataError: NaN, infinite or negative weights, or a row without any.
    """
    weights = topics.toarray() if scipy.sparse.issparse(topics) else dense(topics)
    if weights.dtype.kind not in "iufb":
        cure = "; pass its components_" if hasattr(topics, "components_") else ""
        raise DataError(
            f"{name}: expected an array (K, V) of numbers, found {type(topics).__name__} of type {weights.dtype}{cure}."
        )
    expected = "(K, V)" if num_words is None else f"(K, {num_words})"
    if weights.ndim != 2 or 0 in weights.shape or num_words not in (None, weights.shape[1]):
        turned = weights.ndim == 2 and num_words is not None and weights.shape[0] == num_words
        cure = "transpose it" if turned else "corpus.with_vocabulary(words) gives documents the columns of the topics"
        raise ShapeError(f"{name}: found shape {weights.shape}, expected {expected}, one row a topic; {cure}.")
    weights = weights.astype(np.float64)
    for what, bad in (("NaN or infinite", ~np.isfinite(weights)), ("negative", weights < 0)):
        if bad.any():
            row, column = np.argwhere(bad)[0]
            cure = "; pass exp of log probabilities, softmax of logits" if what == "negative" else ""
            raise DataError(
                f"{name}: {int(bad.sum()):,} {what} weights, the first {weights[row, column]:g} of word {column} in topic {row}; "
                f"expected probabilities{cure}."
            )
    totals = weights.sum(1, keepdims=True)
    if (totals == 0).any():
        raise DataError(f"{name}: topic {int(np.argmin(totals))} gives no word any weight; leave it out.")
    return np.asarray(weights / totals)


def leading_words(weights: Array, num_words: int, *, name: str = "topics") -> npt.NDArray[np.int64]:
    """Columns of the words with the largest weights in each topic, largest first, ``(K, num_words)``.

    Raises:
        UsageError: a topic gives weight to fewer words.
    """
    positive("num_words", num_words)
    fewest = (weights > 0).sum(1)
    if num_words > fewest.min():
        raise UsageError(
            f"num_words: found {num_words}, but topic {int(fewest.argmin())} of {name} gives weight to {int(fewest.min())} words "
            "only, so that its further ones mean nothing; ask for fewer words or leave the topic out."
        )
    return np.argsort(-weights, axis=1, kind="stable")[:, :num_words]


def as_corpus(documents: Any) -> Corpus:
    """A Corpus as it is; a matrix of counts ``(D, V)`` with the names of its columns and rows, or numbers where it has none.

    Raises:
        DataError: counts that are negative, fractional or not finite, or words that stand twice.
    """
    if isinstance(documents, Corpus):
        return documents
    sparse_tensor = isinstance(documents, torch.Tensor) and documents.layout != torch.strided
    counts = (
        scipy_csr(documents) if sparse_tensor else documents if scipy.sparse.issparse(documents) else dense(documents)
    )
    if counts.ndim != 2:
        raise DataError(f"corpus: expected a Corpus or a matrix of counts (D, V), found shape {counts.shape}.")
    if isinstance(documents, pd.DataFrame):
        words, titles = tuple(map(str, documents.columns)), tuple(map(str, documents.index))
    else:
        words, titles = tuple(map(str, range(counts.shape[1]))), tuple(f"document {i}" for i in range(counts.shape[0]))
    return Corpus("corpus", counts, words, titles, "", "")


def same_vocabulary(several: list[Array], names: list[str]) -> None:
    """
    Raises:
        ShapeError: topics over vocabularies of different sizes.
    """
    for weights, name in zip(several, names, strict=True):
        if weights.shape[1] != several[0].shape[1]:
            raise ShapeError(
                f"{name}: topics over {weights.shape[1]} words, {names[0]} over {several[0].shape[1]}; topics can be matched over one "
                "vocabulary only."
            )
