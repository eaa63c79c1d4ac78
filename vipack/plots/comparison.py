"""Fits side by side: the ELBO of each with its standard error, coloured by verdict."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from vipack.errors import UsageError
from vipack.hints import checked
from vipack.plots.canvas import GREEN, INK, LABEL, ORANGE, QUIET, RED, axis_for, note_beside, number, tidy

__all__ = ["compare"]

# Each verdict has a shape too: colour alone does not reach everyone.
_VERDICTS = {"TRUST": (GREEN, "o"), "CORRECTED": (ORANGE, "s"), "DISTRUST": (RED, "X")}
_CERTIFIED = {"TRUST": "TRUST (means, sds)", "CORRECTED": "CORRECTED (of resampled draws)", "DISTRUST": "DISTRUST"}


@checked
def compare(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The ELBO of each fit with two standard errors, and the log evidence that its weights estimate, in nats.

    Args:
        table: what ``vipack.compare`` returns; the first row stands on top.

    Raises:
        UsageError: `table` lacks a column, or has no row.
    """
    needed = ["elbo", "elbo_se", "verdict"]
    missing = [name for name in needed if name not in getattr(table, "columns", [])]
    if missing or not len(table):
        problem = f"found {type(table).__name__}" + (
            f" without {', '.join(map(repr, missing))}" if missing else " without a row"
        )
        raise UsageError(
            f"table: expected the DataFrame of vipack.compare, {problem}; pass vipack.compare({{name: fit}})."
        )
    ax = axis_for(ax, 6.8, 1.2 + 0.42 * len(table))
    values, errors = table["elbo"].to_numpy(float), 2 * table["elbo_se"].to_numpy(float)
    for row, verdict in enumerate(table["verdict"]):
        colour, marker = _VERDICTS.get(str(verdict), (QUIET, "D"))
        if np.isfinite(values[row]):
            error = errors[row] if np.isfinite(errors[row]) else 0.0
            ax.errorbar(values[row], row, xerr=error, fmt=marker, color=colour, markersize=8, linewidth=1.8, capsize=3)
        note_beside(ax, row, _caption(table.iloc[row]))
    if "evidence" in table.columns:
        evidence = table["evidence"].to_numpy(float)
        ax.plot(evidence, np.arange(len(table)), "|", color=INK, markersize=13, markeredgewidth=1.6)
    ax.set_yticks(np.arange(len(table)), [str(name) for name in table.index])
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.set_xlabel("ELBO ± 2 se (nats; higher is better)")
    _legend(ax, table)
    tidy(ax, grid="x")
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0, labelsize=LABEL)
    ax.ticklabel_format(axis="x", useOffset=False)
    return ax


def _caption(row: pd.Series) -> str:
    figures = [f"{number(row['elbo'], ',.2f')} ± {row['elbo_se']:.2f}"]
    if "khat" in row:
        figures.append(f"k-hat {number(row['khat'], '.2f')}")
    if "seconds" in row and np.isfinite(row["seconds"]):
        figures.append(f"{row['seconds']:.0f} s")
    return "   ".join(figures)


def _legend(ax: Axes, table: pd.DataFrame) -> None:
    seen = [verdict for verdict in _VERDICTS if verdict in set(map(str, table["verdict"]))]
    handles = [
        Line2D(
            [], [], color=_VERDICTS[v][0], marker=_VERDICTS[v][1], linestyle="none", markersize=7, label=_CERTIFIED[v]
        )
        for v in seen
    ]
    if "evidence" in table.columns:
        handles.append(Line2D([], [], color=INK, marker="|", linestyle="none", markersize=10, label="log evidence"))
    ax.legend(
        handles=handles, frameon=False, fontsize=LABEL, ncols=4, loc="lower left", bbox_to_anchor=(-0.02, 1.0),
        handletextpad=0.2, columnspacing=1.4,
    )  # fmt: skip
