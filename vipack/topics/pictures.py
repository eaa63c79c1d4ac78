"""Pictures of a topic model: how large topics are, what documents consist of, how shares change, and effects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

from vipack.datasets import Corpus
from vipack.diagnostics.sources import positive
from vipack.display import listed
from vipack.errors import ShapeError, UsageError
from vipack.hints import checked
from vipack.plots.canvas import (
    BLUE,
    COLOURS,
    FAINT,
    INK,
    LABEL,
    QUIET,
    TICK,
    TITLE,
    axes_for,
    axis_for,
    legend_above,
    tidy,
)
from vipack.plots.inputs import ArrayLike, array_of
from vipack.topics.document_dates import moments_of
from vipack.topics.effect_table import effects_of
from vipack.topics.model_arrays import probabilities, strings, topic_model
from vipack.topics.word_scores import expected_tokens

__all__ = ["document_shares", "effect_intervals", "shares_over_time", "topic_shares"]

_COLOURED = 8  # topics of documents with a colour of their own


@checked
def topic_shares(
    topics: ArrayLike,
    theta: ArrayLike,
    corpus: Corpus,
    *,
    num_words: int = 5,
    names: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """The share of all tokens that each topic accounts for, largest on top, with its most probable words.

    Args:
        topics: ``(K, V)``: the probability of each word in each topic.
        theta: ``(D, K)``: the share of each topic in each document.
        names: K names to stand before the words.

    Raises:
        UsageError: values that are not probabilities, or another number of names.
        ShapeError: shapes that do not agree.
    """
    model = topic_model(topics, theta, corpus)
    named = strings(names, len(model.topics), "names", "topic")
    shares = expected_tokens(model).sum(1) / corpus.num_tokens
    words = corpus.top_words(model.topics, positive("num_words", num_words))
    order = np.argsort(-shares, kind="stable")
    ax = axis_for(ax, 6.8, 0.9 + 0.24 * len(order))
    ax.barh(np.arange(len(order)), shares[order], height=0.72, color=BLUE)
    for row, k in enumerate(order):
        ax.text(shares[k], row, f" {shares[k]:.1%}", va="center", fontsize=TICK, color=QUIET)
    labels = [(f"{named[k]}: " if named is not None else f"{k}  ") + ", ".join(words[k]) for k in order]
    ax.set_yticks(np.arange(len(order)), labels)
    ax.set_ylim(len(order) - 0.5, -0.5)
    ax.set_xlim(0, 1.12 * shares.max())
    ax.set_xlabel("share of tokens")
    ax.xaxis.set_major_formatter("{x:.0%}")
    _rows(ax)
    return ax


@checked
def document_shares(
    theta: ArrayLike,
    documents: Sequence[int] | None = None,
    *,
    titles: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """The shares of topics in some documents, a bar a document; topics that are small in all of them are grey.

    Args:
        theta: ``(D, K)``: the share of each topic in each document.
        documents: numbers of documents; the first ten by default.
        titles: D titles.
        names: K names of topics.

    Raises:
        UsageError: a document that is none, values that are not probabilities, or another number of titles or names.
    """
    shares = probabilities(theta, "theta")
    chosen = list(range(min(10, len(shares)))) if documents is None else [int(d) for d in documents]
    unknown = [d for d in chosen if not 0 <= d < len(shares)]
    if unknown or not chosen:
        problem = f"found {listed(map(str, unknown))}" if unknown else "found none"
        raise UsageError(f"documents: expected numbers from 0 to {len(shares) - 1}, {problem}.")
    titled = strings(titles, len(shares), "titles", "document")
    named = strings(names, shares.shape[1], "names", "topic")
    rows = np.arange(len(chosen))
    largest = np.argsort(-shares[chosen].max(0), kind="stable")[:_COLOURED]
    ax = axis_for(ax, 6.8, 1.1 + 0.28 * len(chosen))
    start = np.zeros(len(chosen))
    for number, k in enumerate(sorted(largest, key=lambda k: -shares[chosen, k].sum())):
        label = named[k] if named is not None else f"topic {k}"
        ax.barh(
            rows, shares[chosen, k], left=start, height=0.74, color=COLOURS[number], edgecolor="white", linewidth=0.6, label=label
        )  # fmt: skip
        start += shares[chosen, k]
    if shares.shape[1] > _COLOURED:
        ax.barh(rows, 1 - start, left=start, height=0.74, color=FAINT, label="other topics")
    ax.set_yticks(rows, [titled[d] if titled is not None else f"document {d}" for d in chosen])
    ax.set_ylim(len(chosen) - 0.5, -0.5)
    ax.set_xlim(0, 1)
    ax.set_xlabel("share of the document")
    ax.xaxis.set_major_formatter("{x:.0%}")
    legend_above(ax, min(5, len(ax.containers)))
    _rows(ax)
    return ax


@checked
def shares_over_time(
    theta: ArrayLike,
    dates: Any,
    *,
    lower: ArrayLike | None = None,
    upper: ArrayLike | None = None,
    topics: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    every: str | None = None,
    axes: Axes | Iterable[Axes] | None = None,
) -> np.ndarray:
    """Mean shares of topics by date, a panel a topic, on one scale.

    Where there are more than forty different dates, documents are put together by periods, those with numbers by sixteen equal
    intervals.

    Args:
        theta: ``(D, K)``, or draws ``(S, D, K)``, which give bands of 90% around the mean over the documents of a period.
        dates: ``(D,)`` dates or numbers, such as years; documents without one are left out.
        lower: ``(D, K)`` lower ends of intervals, where each row is a date of its own.
        upper: their upper ends.
        topics: numbers of topics; the nine largest by default.
        names: K names of topics.
        every: periods of pandas for dates, such as ``"Y"`` or ``"M"``; the longest with four periods by default.

    Returns:
        The Axes, one for each topic.

    Raises:
        ShapeError: shapes that do not agree.
        UsageError: a topic that is none, no dates, or intervals of dates that several rows have.
    """
    draws = array_of(theta, "theta").astype(np.float64)
    if draws.ndim not in (2, 3) or not draws.size:
        raise ShapeError(f"theta: shape {draws.shape}, expected (D, K) or draws (S, D, K).")
    draws = draws if draws.ndim == 3 else draws[None]
    codes, moments = moments_of(dates, draws.shape[1], every)
    named = strings(names, draws.shape[2], "names", "topic")
    means = np.stack([draws[:, codes == i].mean(1) for i in range(len(moments))], axis=1)  # (S, T, K)
    shares = means.mean(0)
    band = np.quantile(means, [0.05, 0.95], axis=0) if len(draws) > 1 else None
    if lower is not None or upper is not None:
        band = _given_band(lower, upper, codes, draws.shape)
    shown = list(np.argsort(-shares.mean(0), kind="stable")[:9]) if topics is None else [int(k) for k in topics]
    if not shown or not all(0 <= k < draws.shape[2] for k in shown):
        raise UsageError(f"topics: expected numbers from 0 to {draws.shape[2] - 1}, found {listed(map(str, shown))}.")
    panels = axes_for(axes, len(shown), columns=min(3, len(shown)), width=3.0, height=1.9)
    top = 1.05 * max(shares[:, shown].max(), band[1][:, shown].max() if band is not None else 0.0) or 1.0
    for ax, k in zip(panels, shown, strict=True):
        if band is not None:
            ax.fill_between(moments, band[0][:, k], band[1][:, k], color=BLUE, alpha=0.2, linewidth=0)
        ax.plot(moments, shares[:, k], color=BLUE, linewidth=1.8, marker="o", markersize=3)
        ax.set_ylim(0, top)
        ax.set_title(named[k] if named is not None else f"topic {k}", fontsize=TITLE, loc="left", color=INK)
        ax.yaxis.set_major_formatter("{x:.0%}")
        tidy(ax, grid="y")
        if isinstance(moments, pd.DatetimeIndex):
            locator = AutoDateLocator(minticks=2, maxticks=6)  # type: ignore[no-untyped-call]
            ax.xaxis.set_major_locator(locator)
            ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
        else:
            ax.locator_params(axis="x", nbins=5, integer=bool(np.all(moments == np.round(moments))))
    panels[0].set_ylabel("share")
    return np.array(panels, dtype=object)


@checked
def effect_intervals(
    table: pd.DataFrame,
    *,
    terms: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    axes: Axes | Iterable[Axes] | None = None,
) -> np.ndarray:
    """Effects of covariates on topics with their intervals, a panel a term, the largest effect on top.

    Effects whose interval holds zero are grey.

    Args:
        table: columns topic, term, mean, lower and upper: numbers or names of topics, and 90% intervals, say.
        terms: which ones; all by default.
        names: of topics, by number.

    Returns:
        The Axes, one for each term.

    Raises:
        UsageError: a column, a term or a topic that is missing, or an interval without its mean.
    """
    if (
        names is None
        and isinstance(table, pd.DataFrame)
        and "topic" in table
        and table["topic"].map(type).eq(str).all()
    ):
        names = list(table["topic"].unique())
    effects = effects_of(table, None if names is None else len(names), names)
    present = list(dict.fromkeys(effect.term for effect in effects))
    shown = present if terms is None else [str(term) for term in terms]
    missing = [term for term in shown if term not in present]
    if missing or not shown:
        raise UsageError(
            f"terms: no {listed(map(repr, missing))} in the table, which has {listed(map(repr, present))}."
        )
    most = max(sum(effect.term == term for effect in effects) for term in shown)
    panels = axes_for(axes, len(shown), columns=min(3, len(shown)), width=4.2, height=0.8 + 0.23 * most)
    for ax, term in zip(panels, shown, strict=True):
        rows = sorted((effect for effect in effects if effect.term == term), key=lambda effect: -effect.mean)
        ax.axvline(0, color=QUIET, linewidth=0.9)
        for row, effect in enumerate(rows):
            colour = BLUE if effect.lower > 0 or effect.upper < 0 else QUIET
            ax.plot([effect.lower, effect.upper], [row, row], color=colour, linewidth=2, solid_capstyle="round")
            ax.plot(effect.mean, row, "o", color=colour, markersize=5.5)
        ax.set_yticks(
            np.arange(len(rows)), [f"topic {e.topic}" if names is None else str(names[e.topic]) for e in rows]
        )
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.set_title(term, fontsize=TITLE, loc="left", color=INK)
        ax.set_xlabel("effect on the share")
        _rows(ax)
    return np.array(panels, dtype=object)


def _rows(ax: Axes) -> None:
    """A frame for rows with names."""
    tidy(ax, grid="x")
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0, labelsize=LABEL)


def _given_band(lower: Any, upper: Any, codes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if lower is None or upper is None:
        raise UsageError("lower, upper: expected both ends of the intervals, found one.")
    ends = [array_of(values, what) for values, what in ((lower, "lower"), (upper, "upper"))]
    for values, what in zip(ends, ("lower", "upper"), strict=True):
        if values.shape != shape[1:]:
            raise ShapeError(f"{what}: shape {values.shape}, expected {shape[1:]}, that of theta.")
    if len(np.unique(codes[codes >= 0])) != (codes >= 0).sum():
        raise UsageError("lower, upper: several rows have one date; give a row a date, or draws (S, D, K) of theta.")
    rows = np.argsort(codes)[(codes < 0).sum() :]
    return np.stack([values[rows] for values in ends])
