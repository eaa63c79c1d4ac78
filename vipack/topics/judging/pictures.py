"""Pictures of what judging gives."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from vipack.errors import UsageError
from vipack.hints import checked
from vipack.plots.canvas import BLUE, INK, LABEL, ORANGE, PALE, QUIET, TITLE, axes_for, tidy
from vipack.topics.judging.num_topics import NumTopicsChoice
from vipack.topics.judging.topic_words import Array

__all__ = ["num_topics_curves"]


@checked
def num_topics_curves(choice: NumTopicsChoice, axes: Axes | Iterable[Axes] | None = None) -> np.ndarray:
    """Perplexity, NPMI, exclusivity and stability against the number of topics, means with two standard errors and each run.

    Args:
        choice: what ``vipack.topics.choose_num_topics`` returns.
        axes: four Axes to draw on; a new Figure's by default.

    Returns:
        The Axes, ``(4,)``; ``axes[0].figure`` is their Figure.

    Raises:
        UsageError: `choice` is something else, or `axes` are not four.
    """
    if not isinstance(choice, NumTopicsChoice):
        raise UsageError(f"choice: expected what choose_num_topics returns, found {type(choice).__name__}.")
    panels = axes_for(axes, 4, columns=2, width=3.6, height=2.5)
    table = choice.to_frame()
    perplexity = {count: np.exp([run.nats.value for run in runs]) for count, runs in choice.completions.items()}
    jaccard = {count: np.array([run.mean for run in runs]) for count, runs in choice.stability.items()}
    for ax, name, runs, label in (
        (panels[0], "perplexity", perplexity, "perplexity of held-out words"),
        (panels[1], "npmi", choice.npmi, f"NPMI of {choice.num_words} words"),
        (panels[2], "exclusivity", choice.exclusivity, f"exclusivity of {choice.num_words} words"),
        (panels[3], "jaccard", jaccard, "stability (Jaccard index)"),
    ):
        errors = 2 * table[f"{name}_se"].to_numpy(float) if f"{name}_se" in table else np.full(len(table), math.nan)
        _curve(ax, choice.num_topics, table[name].to_numpy(float), errors, runs)
        ax.set_title(label, fontsize=TITLE, loc="left", color=INK)
    for ax in panels[2:]:
        ax.set_xlabel("number of topics K")
    if not any(choice.stability.values()):
        panels[3].text(
            0.5, 0.5, "one run of each K", transform=panels[3].transAxes, ha="center", fontsize=LABEL, color=QUIET
        )
    enough = choice.sufficient
    if enough is not None:
        panels[0].axvline(enough, color=ORANGE, linewidth=1.2, linestyle="--", zorder=0)
        panels[0].annotate(
            f"no clear fall\nafter K = {enough}", (enough, 0.98), xycoords=("data", "axes fraction"), xytext=(4, 0),
            textcoords="offset points", va="top", fontsize=LABEL - 1, color=QUIET,
        )  # fmt: skip
    return np.array(panels, dtype=object)


def _curve(ax: Axes, counts: tuple[int, ...], means: Array, errors: Array, runs: Mapping[int, Array]) -> None:
    for count, values in runs.items():
        ax.plot(np.full(len(values), count), values, ".", color=PALE, markersize=5, zorder=2)
    shown = errors if np.isfinite(errors).any() else None
    ax.errorbar(counts, means, yerr=shown, color=BLUE, marker="o", markersize=4, linewidth=1.4, capsize=2.5, zorder=3)
    if counts[-1] >= 8 * counts[0]:
        ax.set_xscale("log")
        ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(counts, list(map(str, counts)))
    tidy(ax, grid="y")
