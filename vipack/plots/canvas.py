"""What all plots share: colours, sizes, and Axes to draw on."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vipack.errors import UsageError

__all__ = [
    "BLUE",
    "COLOURS",
    "FAINT",
    "GREEN",
    "INK",
    "LABEL",
    "ORANGE",
    "PALE",
    "QUIET",
    "RED",
    "TICK",
    "TITLE",
    "Picture",
    "axes_for",
    "axis_for",
    "legend_above",
    "note_beside",
    "number",
    "say_above",
    "tidy",
]

# Okabe and Ito's palette, which every kind of colour vision tells apart.
BLUE, ORANGE, GREEN, RED, PALE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9"
# Ten colours that stay apart for most kinds of colour vision (Petroff 2021, arXiv:2107.02270).
COLOURS = ("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd")
INK, QUIET, FAINT = "#222222", "#6b6b6b", "#e6e6e6"
TITLE, LABEL, TICK = 10.0, 9.0, 8.0  # font sizes in points


class Picture(Figure):
    """A figure that a notebook shows, whether or not pyplot, which knows of figures there, has been imported."""

    def _repr_png_(self) -> bytes:
        written = io.BytesIO()
        self.savefig(written, format="png", dpi=100)
        return written.getvalue()


def axis_for(ax: Axes | None, width: float = 6.4, height: float = 3.6) -> Axes:
    """`ax`, or the only Axes of a new Figure of that size in inches."""
    if ax is None:
        return Picture(figsize=(width, height), layout="constrained").add_subplot()
    if not isinstance(ax, Axes):
        raise UsageError(f"ax: expected a matplotlib Axes, found {type(ax).__name__}; one function call draws on one.")
    return ax


def axes_for(
    axes: Axes | Iterable[Axes] | None, count: int, *, columns: int, width: float, height: float
) -> list[Axes]:
    """`count` Axes: those given, or a new Figure's, in rows of at most `columns`, each of that size in inches.

    Raises:
        UsageError: `axes` are not `count` Axes.
    """
    if axes is not None:
        given = [axes] if isinstance(axes, Axes) else list(np.asarray(list(axes), dtype=object).ravel())
        if len(given) != count or not all(isinstance(ax, Axes) for ax in given):
            raise UsageError(
                f"axes: expected {count} matplotlib Axes, one for each panel, found "
                f"{f'{len(given)} of {type(given[0]).__name__}' if given else 'none'}."
            )
        return given
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = Picture(figsize=(columns * width, rows * height), layout="constrained")
    return [figure.add_subplot(rows, columns, i + 1) for i in range(count)]


def number(value: float, spec: str = ".3g") -> str:
    """`value` in print, with a true minus sign."""
    return format(value, spec).replace("-", "−")


def say_above(panels: Sequence[Axes], text: object | None, *, own: bool) -> None:
    """A line on what all panels show: over an own Figure, and else under the first panel's own label."""
    if text is None:
        return
    if own:
        figure = cast(Figure, panels[0].figure)
        lines = textwrap.wrap(str(text), max(30, round(16 * figure.get_figwidth())))  # sixteen letters an inch
        figure.suptitle("\n".join(lines), fontsize=TICK, color=QUIET, x=0.01, ha="left")
    else:
        label = panels[0].xaxis.label
        label.set_text("\n".join([*([label.get_text()] if label.get_text() else []), *textwrap.wrap(str(text), 40)]))


def note_beside(ax: Axes, y: float, text: str, colour: str = INK, *, x: float = 1.02) -> None:
    """`text` right of the panel, at the height of `y`; `x` is in widths of the panel."""
    ax.annotate(
        text,
        (x, y),
        xycoords=("axes fraction", "data"),
        va="center",
        fontsize=LABEL,
        color=colour,
        annotation_clip=False,
    )


def legend_above(ax: Axes, columns: int) -> None:
    """The legend in one line above the panel, where it covers no data; the left title moves up to make room."""
    ax.legend(
        frameon=False,
        fontsize=LABEL - 1,
        ncols=columns,
        loc="lower left",
        bbox_to_anchor=(-0.02, 0.99),
        borderaxespad=0.0,
        handlelength=1.4,
        columnspacing=1.2,
    )


def tidy(ax: Axes, *, grid: str | None = None, left: bool = True) -> None:
    """Quiet frame and ticks; a faint grid along `grid` ("x", "y" or "both"); no left axis where its unit says nothing."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(QUIET)
    ax.tick_params(labelsize=TICK, color=QUIET)
    ax.xaxis.label.set_fontsize(LABEL)
    ax.yaxis.label.set_fontsize(LABEL)
    ax.set_axisbelow(True)
    if grid == "both":
        ax.grid(color=FAINT, linewidth=0.8)
    elif grid == "x":
        ax.grid(axis="x", color=FAINT, linewidth=0.8)
    elif grid == "y":
        ax.grid(axis="y", color=FAINT, linewidth=0.8)
    if not left:
        ax.spines["left"].set_visible(False)
        ax.set_yticks([])
