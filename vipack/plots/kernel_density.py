"""Densities and frequencies of samples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vipack.diagnostics.rounding import constant, precision, rounding

__all__ = ["bins_of", "density", "is_discrete", "is_point"]

Array = npt.NDArray[np.float64]

_GRID = 512
_MOST_BARS = 40


def density(values: np.ndarray) -> tuple[Array, Array]:
    """Gaussian kernel density of a sample, as points and heights ``(512,)``; it integrates to one.

    The density of a sample in [0, inf) or [0, 1] does not leak over 0 or 1: there the sample is reflected. The far ends
    of heavy tails, further from the central 90% than that is wide, are left out.
    Bandwidth: Silverman's rule of thumb, 0.9 min(sd, IQR / 1.34) n^(-1/5) (Density Estimation, 1986, eq. 3.31).
    """
    least = float(rounding(np.abs(values).max(), precision(np.asarray(values))))
    values = np.asarray(values, dtype=np.float64).ravel()
    bounds = (0.0 if values.min() >= 0 else -np.inf, 1.0 if values.min() >= 0 and values.max() <= 1 else np.inf)
    first, last = np.quantile(values, [0.05, 0.95])
    span = last - first if last - first > least else np.inf  # of nearly constant samples, all
    values = values[(values >= first - span) & (values <= last + span)]
    width = _bandwidth(values, least) or np.ptp(values) / 100 or max(abs(values[0]), 1.0) / 100
    points = np.linspace(max(values.min() - 3 * width, bounds[0]), min(values.max() + 3 * width, bounds[1]), _GRID)
    step = points[1] - points[0]
    edges = np.linspace(points[0] - step / 2, points[-1] + step / 2, _GRID + 1)
    heights = _smoothed(np.histogram(values, bins=edges)[0].astype(np.float64), max(width / step, 1.0))
    return points, heights / (step * (heights.sum() - (heights[0] + heights[-1]) / 2))


def is_point(values: np.ndarray) -> bool:
    """Whether a sample has no spread that could be told from rounding."""
    return bool(constant(values.ravel()))


def is_discrete(values: np.ndarray) -> bool:
    """Whether a sample is of whole numbers."""
    return values.dtype.kind in "iu" or bool(np.array_equal(values, np.round(values)))


def bins_of(*samples: np.ndarray) -> Array:
    """Edges of bins for whole numbers, one a number while they are at most 40, else of equal whole widths."""
    low = min(float(values.min()) for values in samples)
    high = max(float(values.max()) for values in samples)
    width = max(1.0, np.ceil((high - low + 1) / _MOST_BARS))
    return np.arange(low - 0.5, high + width, width)


def _smoothed(counts: Array, width: float) -> Array:
    radius = min(int(4 * width) + 1, len(counts))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / width) ** 2)
    padded = np.concatenate([counts[:radius][::-1], counts, counts[-radius:][::-1]])
    return np.convolve(padded, kernel, mode="valid")


def _bandwidth(values: Array, least: float) -> float:
    lower, upper = np.quantile(values, [0.25, 0.75])
    spreads = [float(spread) for spread in (values.std(), (upper - lower) / 1.34) if spread > least]
    return float(0.9 * min(spreads, default=0.0) * len(values) ** -0.2)
