"""Sheets of images, side by side."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes

from vipack.diagnostics.sources import positive
from vipack.errors import UsageError
from vipack.hints import checked
from vipack.plots.canvas import FAINT, TITLE, axes_for
from vipack.plots.inputs import ArrayLike, array_of

__all__ = ["images"]


@checked
def images(
    sheet: ArrayLike,
    beside: ArrayLike | None = None,
    *,
    titles: Sequence[str] = (),
    columns: int | None = None,
    axes: Axes | Iterable[Axes] | None = None,
) -> np.ndarray:
    """A sheet of images on a grid, row by row, and a second one beside it, image by image at the same positions.

    Both share one scale of grey, dark for large values.

    Args:
        sheet: ``(N, H, W)``, ``(N, pixels)`` of square images, ``(N, 1, H, W)``, or colour ``(N, H, W, 3)`` or
            ``(N, 3, H, W)`` in [0, 1].
        beside: the same, of the same N, such as the nearest training image of each.
        titles: one for each sheet.
        columns: images in a row; as many as rows by default.
        axes: Axes to draw on, one for each sheet; a new Figure's by default.

    Returns:
        The Axes, ``(sheets,)``; ``axes[0].figure`` is their Figure.

    Raises:
        UsageError: arrays that are no images, or sheets that do not match.
    """
    sheets = [_as_images(sheet, "sheet")] + ([] if beside is None else [_as_images(beside, "beside")])
    if len({len(pictures) for pictures in sheets}) > 1:
        raise UsageError(
            f"beside: expected {len(sheets[0])} images, one for each of the sheet, found {len(sheets[1])}."
        )
    if titles and len(titles) != len(sheets):
        raise UsageError(f"titles: expected {len(sheets)}, one for each sheet, found {len(titles)}.")
    wide = math.ceil(math.sqrt(len(sheets[0]))) if columns is None else positive("columns", columns)
    high = math.ceil(len(sheets[0]) / wide)
    low, top = min(float(pictures.min()) for pictures in sheets), max(float(pictures.max()) for pictures in sheets)
    width = 0.3 + min(0.55 * wide, 5.0)
    panels = axes_for(axes, len(sheets), columns=2, width=width, height=0.3 + width * high / wide)
    greys = colormaps["gray_r"].with_extremes(bad=FAINT)
    for i, (ax, pictures) in enumerate(zip(panels, sheets, strict=True)):
        ax.imshow(
            _mosaic(pictures, wide, high), cmap=greys, vmin=low, vmax=max(top, low + 1e-12), interpolation="nearest"
        )
        ax.set_axis_off()
        if titles:
            ax.set_title(titles[i], fontsize=TITLE)
    return np.array(panels, dtype=object)


def _as_images(values: ArrayLike, what: str) -> np.ndarray:
    """``(N, H, W)`` or ``(N, H, W, 3)``."""
    array = array_of(values, what).astype(np.float64)
    if array.ndim == 2 and math.isqrt(array.shape[1]) ** 2 == array.shape[1]:
        array = array.reshape(len(array), math.isqrt(array.shape[1]), -1)
    if array.ndim == 4 and array.shape[1] in (1, 3) and array.shape[3] not in (1, 3):
        array = np.moveaxis(array, 1, 3)
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    is_colour = array.ndim == 4 and array.shape[3] == 3
    if not array.size or not (array.ndim == 3 or is_colour):
        raise UsageError(
            f"{what}: expected images (N, H, W), (N, H, W, 3) or square ones (N, pixels), found shape "
            f"{np.shape(array)}; reshape them, as in x.reshape(-1, 28, 28)."
        )
    if not np.isfinite(array).all() or (is_colour and (array.min() < 0 or array.max() > 1)):
        raise UsageError(f"{what}: expected finite pixels{', colour ones in [0, 1]' if is_colour else ''}.")
    return array


def _mosaic(pictures: np.ndarray, columns: int, rows: int) -> np.ma.MaskedArray | np.ndarray:
    """One image of all, with gaps that are masked (grey) or white (colour)."""
    height, width = pictures.shape[1:3]
    colour = pictures.shape[3:]
    blank = 1.0 if colour else np.nan
    gap = max(1, round(min(height, width) / 14))
    canvas = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, *colour), blank)
    for i, image in enumerate(pictures):
        top, left = gap + (i // columns) * (height + gap), gap + (i % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return canvas if colour else np.ma.masked_invalid(canvas)
