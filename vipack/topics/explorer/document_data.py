"""Documents on the explorer's page: their topics, titles and texts, cut to what a page can carry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vipack.topics.model_arrays import TopicModel

__all__ = ["clean", "document_data"]

_MOST = 10_000
_BEST = 12  # documents that show a topic
_MOST_TOPICS = 8
_LEAST = 5  # thousandths: smaller shares are left out
_TITLES, _TEXTS = 600_000, 1_000_000  # bytes on the page
_TITLE_LENGTHS = (160, 100, 60, 40)
_TEXT_LENGTHS = (800, 500, 300, 200, 120, 60)
_WORD_COUNTS = (12, 8, 5, 3)


def document_data(
    model: TopicModel, titles: Sequence[str], texts: Sequence[str] | None, word_position: np.ndarray
) -> tuple[dict[str, Any], list[str]]:
    """The documents of the page, and what of them it leaves out.

    Args:
        word_position: ``(V,)``: where each word stands on the page; -1 for one that does not.
    """
    best = _best_documents(model)
    kept = _kept(len(model.theta), best)
    position = {int(d): i for i, d in enumerate(kept)}
    chosen = np.zeros(len(kept), dtype=bool)
    chosen[[position[int(d)] for row in best for d in row]] = True
    left_out = []
    if len(kept) < len(model.theta):
        left_out.append(
            f"{len(kept):,} of {len(model.theta):,} documents are on this page: those that show a topic best, and a random "
            "choice of the others."
        )
    content: dict[str, Any] = {
        "numbers": None if len(kept) == len(model.theta) else kept.tolist(),
        "lengths": model.corpus.lengths[kept].tolist(),
        "topics": _shares(model.theta[kept], [[position[int(d)] for d in row] for row in best]),
        "titles": _cut([titles[i] for i in kept], np.ones(len(kept), dtype=bool), _TITLE_LENGTHS, _TITLES)[0],
        "best": [[position[int(d)] for d in row] for row in best],
        "texts": None,
        "words": None,
    }
    if texts is None:
        content["words"] = _frequent_words(model, kept, word_position)
    else:
        content["texts"], lengths = _cut([texts[i] for i in kept], chosen, _TEXT_LENGTHS, _TEXTS)
        if any(text.endswith("…") for text in content["texts"]):
            left_out.append(f"Texts are cut after {lengths[0]:,} characters{_others(*lengths)}.")
    return content, left_out


def _others(first: int, other: int) -> str:
    return f", those of documents that show no topic best after {other:,}" if other < first else ""


def _best_documents(model: TopicModel) -> list[np.ndarray]:
    """For each topic the documents with its largest shares, of equal ones the longest first; empty documents show none."""
    lengths = model.corpus.lengths
    full = np.flatnonzero(lengths)
    best: list[np.ndarray] = []
    for k, shares in enumerate(model.theta[full].T):
        least = -np.partition(-shares, min(_BEST, len(full)) - 1)[:_BEST].max()
        rows = full[shares >= least]
        best.append(rows[np.lexsort((-lengths[rows], -model.theta[rows, k]))][:_BEST])
    return best


def _kept(count: int, best: Sequence[np.ndarray]) -> np.ndarray:
    if count <= _MOST:
        return np.arange(count)
    needed = np.unique(np.concatenate(best))
    others = np.setdiff1d(np.arange(count), needed)
    extra = np.random.default_rng(0).choice(others, min(len(others), max(0, _MOST - len(needed))), replace=False)
    return np.sort(np.concatenate([needed, extra]))


def _shares(theta: np.ndarray, best: Sequence[Sequence[int]]) -> list[list[int]]:
    """For each document topics and thousandths, in turns, largest first: ``[3, 512, 0, 201]``."""
    thousandths = np.rint(1000 * theta).astype(np.int64)
    order = np.argsort(-theta, axis=1, kind="stable")[:, :_MOST_TOPICS]
    rows = [[k for k in row if thousandths[d, k] >= _LEAST] for d, row in enumerate(order.tolist())]
    for k, documents in enumerate(best):
        for d in documents:
            if k not in rows[d]:
                rows[d].append(k)
    return [[int(value) for k in row for value in (k, thousandths[d, k])] for d, row in enumerate(rows)]


def _cut(
    texts: Sequence[str], first: np.ndarray, lengths: Sequence[int], budget: int
) -> tuple[list[str], tuple[int, int]]:
    """`texts` cut so that all have at most `budget` bytes; those that are `first` are cut last.

    Returns:
        the texts, and the lengths in characters that the first and the others are cut to.
    """
    plain = [clean(" ".join(text.split())) for text in texts]
    choices = [(lengths[0], other) for other in lengths] + [(length, lengths[-1]) for length in lengths[1:]]
    for choice in choices:
        result = [_shortened(text, choice[0 if early else 1]) for text, early in zip(plain, first, strict=True)]
        if sum(map(_size, result)) <= budget:
            break
    return result, choice


def _size(text: str) -> int:
    """Bytes of `text` on the page, where quotes and backslashes take two and "<" takes six."""
    return len(text.encode()) + text.count('"') + text.count("\\") + 5 * text.count("<")


def clean(text: str) -> str:
    """`text` that can be written as UTF-8: half a surrogate pair becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1].rstrip()}…"


def _frequent_words(model: TopicModel, kept: np.ndarray, word_position: np.ndarray) -> list[list[int]]:
    """For each document its most frequent words and their counts, in turns."""
    counts = model.corpus.counts[kept]
    rows = []
    for start, end in zip(counts.indptr[:-1], counts.indptr[1:], strict=True):
        words, times = word_position[counts.indices[start:end]], counts.data[start:end]
        words, times = words[words >= 0], times[words >= 0]
        order = np.argsort(-times, kind="stable")[: _WORD_COUNTS[0]]
        rows.append([int(value) for i in order for value in (words[i], times[i])])
    for most in _WORD_COUNTS:
        rows = [row[: 2 * most] for row in rows]
        if sum(len(str(value)) + 1 for row in rows for value in row) <= _TEXTS:
            break
    return rows
