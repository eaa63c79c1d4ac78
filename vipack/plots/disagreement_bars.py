"""Where fits disagree: the gap between their means in posterior sds, element by element."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from vipack.errors import UsageError
from vipack.hints import checked
from vipack.plots.canvas import BLUE, INK, QUIET, axis_for, note_beside, tidy

__all__ = ["disagreement"]

_BAD = 0.2  # sds, beyond which a verdict counts an error as bad


@checked
def disagreement(table: pd.DataFrame, ax: Axes | None = None, *, most: int = 15) -> Axes:
    """The elements on whose means fits are furthest apart, in posterior sds, with two standard errors.

    Args:
        table: what ``vipack.diagnostics.disagreement`` returns.
        most: elements shown, the furthest first.

    Raises:
        UsageError: `table` is another one.
    """
    needed = ["mean_gap", "gap_se", "lowest", "highest"]
    missing = [name for name in needed if name not in getattr(table, "columns", [])]
    if missing:
        raise UsageError(
            f"table: expected the DataFrame of vipack.diagnostics.disagreement, found {type(table).__name__} without "
            f"{', '.join(map(repr, missing))}."
        )
    shown = table.head(most)
    ax = axis_for(ax, 6.4, 1.0 + 0.3 * len(shown))
    rows = np.arange(len(shown))
    gaps = shown["mean_gap"].to_numpy(float)
    known = np.isfinite(gaps)
    top = max(2 * _BAD, float(gaps[known].max(initial=0.0)))
    gaps = np.where(known, gaps, 1.1 * top)  # what is constant in each fit, but not the same, is as far apart as can be
    ax.barh(rows, gaps, xerr=2 * shown["gap_se"].to_numpy(float), height=0.6, color=BLUE, ecolor=INK)
    ax.axvline(_BAD, color=QUIET, linewidth=1, linestyle=":")
    for index, (_, element) in enumerate(shown.iterrows()):
        both = "" if known[index] else ", both constant"
        note_beside(ax, index, f"{element['lowest']} < {element['highest']}{both}")
    ax.set_yticks(rows, [str(name) for name in shown.index])
    ax.set_ylim(len(shown) - 0.5, -0.5)
    ax.set_xlim(left=0)
    ax.set_xlabel("gap between means ± 2 se (posterior sds)")
    tidy(ax, grid="x")
    return ax
