"""Plots as files."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes

from vipack.report.figures import figure_of

__all__ = ["save_picture"]


def save_picture(axes: Axes, path: Path) -> None:
    """Write the figure of `axes` as a PNG."""
    figure_of(axes).savefig(path, dpi=150)
