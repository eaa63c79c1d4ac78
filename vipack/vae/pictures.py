"""Pictures of an autoencoder: sheets of images, latent maps, traversals, and a page that shows all of it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from vipack.display import listed
from vipack.errors import DataError, UsageError
from vipack.plots.canvas import COLOURS, LABEL, QUIET, TICK, axis_for, tidy
from vipack.plots.html_page import save_page
from vipack.plots.loss_curve import losses
from vipack.posterior import Encoding
from vipack.report.content import Code, Picture, Section
from vipack.report.rendering import render
from vipack.training import Fit
from vipack.vae.generated import nearest
from vipack.vae.judging import Evaluation, evaluate
from vipack.version import __version__

__all__ = ["latent_map", "report", "sheet", "traverse"]

Array = npt.NDArray[np.float64]

_SHOWN = 10  # images in a row of a report
_MOST_POINTS = 3_000  # on a latent map


def sheet(
    images: Any,
    ax: Axes | None = None,
    *,
    columns: int | None = None,
    shape: Sequence[int] | None = None,
    title: str = "",
) -> Axes:
    """Images in rows, dark ink on white for one channel.

    Args:
        images: ``(n, height, width)``, ``(n, channels, height, width)`` with 1 or 3 channels, or ``(n, pixels)`` of squares.
        columns: images a row; as many as make a square by default.
        shape: of one image, where it is neither.

    Raises:
        DataError: no such shape.
    """
    pictures = _images(images, shape)
    count = len(pictures)
    columns = math.ceil(math.sqrt(count)) if columns is None else columns
    rows = math.ceil(count / columns)
    height, width, channels = pictures.shape[1:]
    low, high = float(pictures.min()), float(pictures.max())
    spread = high - low or 1.0
    page = np.ones((rows * (height + 1) - 1, columns * (width + 1) - 1, channels))
    for index, picture in enumerate(pictures):
        top, left = (index // columns) * (height + 1), (index % columns) * (width + 1)
        shown = (picture - low) / spread
        page[top : top + height, left : left + width] = 1 - shown if channels == 1 else shown
    ax = axis_for(ax, 0.6 * columns, 0.6 * rows + 0.3)
    ax.imshow(page if channels == 3 else page[..., 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_axis_off()
    if title:
        ax.set_title(title, loc="left", fontsize=LABEL, color=QUIET)
    return ax


def latent_map(encoding: Encoding | Any, labels: Any = None, ax: Axes | None = None) -> Axes:
    """Posterior means of observations, on their two directions of largest spread, coloured by label.

    Args:
        encoding: of ``fit.encode``, or means ``(N, D)``.
        labels: of the observations, ``(N,)``.

    Raises:
        DataError: fewer than two latent dimensions, or labels of another number.
    """
    values = (
        torch.cat([v.flatten(1) for v in encoding.mean.values()], 1) if isinstance(encoding, Encoding) else encoding
    )
    means = np.asarray(torch.as_tensor(values).double().cpu())
    if means.ndim != 2 or means.shape[1] < 2:
        raise DataError(f"latent_map: expected means (N, D) with D of at least 2, found shape {means.shape}.")
    kinds = None if labels is None else np.asarray(torch.as_tensor(np.asarray(labels)))
    if kinds is not None and kinds.shape != (len(means),):
        raise DataError(f"latent_map: labels have shape {kinds.shape}, expected ({len(means)},), one an observation.")
    centred = means - means.mean(0)
    if means.shape[1] > 2:
        centred = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
    ax = axis_for(ax, 4.8, 4.4)
    order = np.random.default_rng(0).permutation(len(centred))[:_MOST_POINTS]
    for number, kind in enumerate([None] if kinds is None else np.unique(kinds)):
        chosen = order if kinds is None else order[kinds[order] == kind]
        colour = COLOURS[number % len(COLOURS)]
        ax.scatter(
            centred[chosen, 0],
            centred[chosen, 1],
            s=6,
            color=colour,
            linewidths=0,
            alpha=0.7,
            label=str(kind),
            rasterized=True,
        )
    axes = (
        "latent dimensions 1 and 2" if means.shape[1] == 2 else f"first two principal axes of {means.shape[1]} latents"
    )
    ax.set_title(f"posterior means, {axes}", loc="left", fontsize=LABEL, color=QUIET)
    if kinds is not None:
        ax.legend(frameon=False, fontsize=TICK, markerscale=2.5, loc="center left", bbox_to_anchor=(1.0, 0.5))
    tidy(ax)
    return ax


def traverse(
    fit: Fit, start: Any, dimensions: Sequence[int] | None = None, ax: Axes | None = None, *, shape: Sequence[int] | None = None,
    extent: float = 3.0, steps: int = 9, site: str | None = None, data: Mapping[str, Any] | None = None,
) -> Axes:  # fmt: skip
    """What the model expects as one latent dimension after another goes from ``-extent`` to ``extent``, the others as they start.

    Args:
        start: the latent to start from, ``(D,)``, such as ``fit.encode(x).mean["z"][0]``.
        dimensions: which ones, a row each; the eight of the widest posterior means by default.
        shape: of one image.
        site: the observed site; the only one by default.
        data: as of ``fit.generate``.
    """
    point = torch.as_tensor(start)
    if point.dim() != 1:
        raise UsageError(f"traverse: start must be one latent of shape (D,), found {tuple(point.shape)}.")
    if dimensions is None:
        spread = next(iter(fit.encode().mean.values())).flatten(1).std(0)
        dimensions = spread.argsort(descending=True)[:8].tolist()
    points = torch.linspace(-extent, extent, steps).to(point)
    rows = point.repeat(len(dimensions) * steps, 1)
    for row, dimension in enumerate(dimensions):
        rows[row * steps : (row + 1) * steps, dimension] = points
    expected = fit.decode(rows, data=data)
    name = _site(expected, site)
    title = f"dimensions {listed(map(str, dimensions))}, from {-extent:g} to {extent:g}"
    return sheet(expected[name], ax, columns=steps, shape=shape, title=title)


def report(
    fit: Fit,
    data: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    labels: Any = None,
    shape: Sequence[int] | None = None,
    site: str | None = None,
    evaluation: Evaluation | None = None,
    title: str = "Variational autoencoder",
    seed: int = 0,
) -> Figure:
    """One page: generated images above their nearest training ones, reconstructions, latent map, losses, and the figures.

    Args:
        data: observations held out, in the form of the fit's.
        path: an HTML page of its own, or a picture by its ending, is written there.
        labels: of the observations in `data`, for the map.
        shape: of one image, where rows are not squares.
        site: the observed site; the only one by default.
        evaluation: of :func:`evaluate`, made anew by default.
    """
    evaluation = evaluate(fit, data, site=site, seed=seed, progress=False) if evaluation is None else evaluation
    new = fit.generate(_SHOWN, seed=seed, progress=False)
    expected = fit.reconstruct(data, seed=seed, progress=False)
    name = _site(expected, site)
    own = fit.posterior.observed[name]
    shown = fit.posterior_of(data, most=_SHOWN).observed[name]
    some = torch.linspace(0, len(expected[name]) - 1, len(shown), dtype=torch.float64).round().long()
    figure = Figure(figsize=(11, 8.6), layout="constrained")
    grid = figure.add_gridspec(3, 2, height_ratios=(1, 1, 2.6))
    neighbours = own[torch.from_numpy(nearest(new[name], own)[1])]
    sheet(
        torch.cat([new[name], neighbours]), figure.add_subplot(grid[0, :]), columns=_SHOWN, shape=shape,
        title="generated, and the nearest training image below each",
    )  # fmt: skip
    sheet(
        torch.cat([shown.to(expected[name]), expected[name][some]]), figure.add_subplot(grid[1, :]), columns=len(shown), shape=shape,
        title="held out, and their reconstructions",
    )  # fmt: skip
    encoding = fit.encode(data, seed=seed, progress=False)
    if sum(value[0].numel() for value in encoding.mean.values()) > 1:
        latent_map(encoding, labels, figure.add_subplot(grid[2, 0]))
    if fit.steps:
        losses(fit, figure.add_subplot(grid[2, 1]))
    figure.suptitle(title, x=0.01, ha="left")
    if path is not None:
        _write(figure, str(evaluation), title, Path(path))
    return figure


def _write(figure: Figure, figures: str, title: str, path: Path) -> None:
    if not path.parent.is_dir():
        raise UsageError(f"report: the folder {path.parent} does not exist; make it first.")
    if path.suffix.lower() not in (".html", ".htm"):
        figure.savefig(path, dpi=150)
        return
    page = render(
        title,
        "report.html",
        lead="Judged on observations held out.",
        banner=None,
        figures={},
        sections=[
            Section(
                "Pictures",
                pictures=[
                    Picture(
                        figure,
                        "Generated observations, reconstructions, the map of latents and the losses.",
                        plot=False,
                    )
                ],
            ),
            Section("Figures", codes=[Code("In nats an observation", figures)]),
        ],
        footer=f"Written by vipack {__version__}. The page holds everything itself and fetches nothing.",
    )
    save_page(path, page)


def _site(observed: Mapping[str, Tensor], site: str | None) -> str:
    names = list(observed)
    if site is None and len(names) == 1:
        return names[0]
    if site is None or site not in observed:
        raise UsageError(f"site: expected one of the observed sites {listed(names)}, found {site!r}.")
    return site


def _images(images: Any, shape: Sequence[int] | None) -> Array:
    """``(n, height, width, channels)``."""
    values = np.asarray(torch.as_tensor(images).detach().double().cpu())
    if shape is not None:
        values = values.reshape(len(values), *shape)
    if values.ndim == 2:
        side = math.isqrt(values.shape[1])
        if side**2 != values.shape[1]:
            raise DataError(f"images: rows of {values.shape[1]} pixels are no squares; pass shape=(height, width).")
        values = values.reshape(len(values), side, side)
    if values.ndim == 3:
        return values[..., None]
    if values.ndim == 4 and values.shape[1] in (1, 3):
        return np.moveaxis(values, 1, -1)
    raise DataError(
        f"images: found shape {values.shape}; expected (n, pixels), (n, height, width) or (n, channels, height, width) with 1 or "
        "3 channels."
    )
