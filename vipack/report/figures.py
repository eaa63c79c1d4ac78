"""The figures that plots stand in."""

from __future__ import annotations

from typing import cast

from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["figure_of"]


def figure_of(axes: Axes) -> Figure:
    """The whole figure that `axes` stand in; vipack.plots makes no figures within figures."""
    return cast(Figure, axes.figure)
