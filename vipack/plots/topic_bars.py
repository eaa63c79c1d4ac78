"""The top words of each topic as bars."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes

from vipack.diagnostics.sources import positive
from vipack.errors import UsageError
from vipack.hints import checked
from vipack.plots.canvas import BLUE, INK, LABEL, PALE, TITLE, axes_for, tidy
from vipack.plots.inputs import ArrayLike, array_of

__all__ = ["topics"]


@checked
def topics(
    topic_words: ArrayLike,
    vocabulary: Sequence[str],
    *,
    num_words: int = 8,
    shares: ArrayLike | None = None,
    titles: Sequence[str] | None = None,
    axes: Axes | Iterable[Axes] | None = None,
) -> np.ndarray:
    """The most probable words of each topic, one panel a topic, on one scale.

    Args:
        topic_words: ``(K, V)``: the probability of each word in each topic.
        vocabulary: the V words.
        shares: ``(K,)``: how much of the corpus each topic makes up, for the titles.
        titles: a name for each topic; "topic 0" and so on by default.
        axes: Axes to draw on, one for each topic; a new Figure's by default.

    Returns:
        The Axes, ``(K,)``; ``axes[0].figure`` is their Figure.

    Raises:
        UsageError: shapes that do not agree, or negative or non-finite weights.
    """
    weights = array_of(topic_words, "topic_words")
    portions = None if shares is None else array_of(shares, "shares")
    _check(weights, vocabulary, num_words, portions, titles)
    count = len(weights)
    panels = axes_for(axes, count, columns=min(5, count), width=2.1, height=0.55 + 0.19 * num_words)
    best = np.argsort(-weights, axis=1, kind="stable")[:, :num_words]
    longest = float(np.take_along_axis(weights, best, 1).max()) or 1.0
    rows = np.arange(best.shape[1])
    for k, ax in enumerate(panels):
        heights = weights[k, best[k]]
        ax.barh(rows, heights, height=0.82, color=PALE, alpha=0.65)
        for row, word in enumerate(best[k]):
            ax.text(0.02 * longest, row, vocabulary[word], va="center", fontsize=LABEL, color=INK)
        ax.set_xlim(0, 1.02 * longest)
        ax.set_ylim(len(rows) - 0.4, -0.6)
        name = titles[k] if titles is not None else f"topic {k}"
        ax.set_title(
            name + (f"  {portions[k]:.0%}" if portions is not None else ""), fontsize=TITLE, loc="left", color=BLUE
        )
        ax.locator_params(axis="x", nbins=3)
        if k >= count - min(5, count):
            ax.set_xlabel("probability")
        tidy(ax, left=False)
    return np.array(panels, dtype=object)


def _check(
    weights: np.ndarray,
    vocabulary: Sequence[str],
    num_words: int,
    shares: np.ndarray | None,
    titles: Sequence[str] | None,
) -> None:
    if weights.ndim != 2 or not weights.size or weights.shape[1] != len(vocabulary):
        raise UsageError(
            f"topic_words: expected shape (K, {len(vocabulary)}), a column for each word of the vocabulary, found "
            f"{weights.shape}."
        )
    if not np.isfinite(weights).all() or weights.min() < 0:
        raise UsageError("topic_words: expected probabilities, found negative or non-finite values; pass exp of logs.")
    positive("num_words", num_words)
    for what, given in (("shares", shares), ("titles", titles)):
        if given is not None and len(given) != len(weights):
            raise UsageError(f"{what}: expected one for each of {len(weights)} topics, found {len(given)}.")
