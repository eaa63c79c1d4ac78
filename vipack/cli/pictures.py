"""Figures of plots, as files."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["figure_of", "save_picture"]


def figure_of(axes: Axes) -> Figure:
    """The whole figure that `axes` stand in; vipack.plots makes no figures within figures."""
    return cast(Figure, axes.figure)


def save_picture(axes: Axes, path: Path) -> None:
    """Write the figure of `axes` as a PNG."""
    figure_of(axes).savefig(path, dpi=150)
