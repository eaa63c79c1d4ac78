"""The tail of the importance weights, its fitted generalised Pareto and the k-hat that judges the guide."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from vipack.errors import UsageError
from vipack.plots.canvas import BLUE, GREEN, INK, LABEL, PALE, QUIET, RED, TITLE, axis_for, tidy
from vipack.plots.inputs import ArrayLike, Fitted, array_of, positive, posterior_of
from vipack.plots.pareto import Tail, fit_tail
from vipack.posterior import Posterior

__all__ = ["khat"]

Array = npt.NDArray[np.float64]

_LIMIT = 0.7
_MOST_ROWS = 500


def khat(
    source: Posterior | Fitted | ArrayLike, ax: Axes | None = None, *, num_draws: int = 4_000, seed: int = 0
) -> Axes:
    """The largest importance weights with the generalised Pareto fitted to them, beside one of k = 0.7.

    A line that falls more slowly than that of k = 0.7 has too few, too large weights: the guide's tails are too thin for
    its draws to be corrected by weighting. Where the posterior is a product over rows, as in a VAE, each row has weights
    of its own: then the k-hat of each row (of 500 of them at most) with a line at 0.7.

    Args:
        source: a fit, its posterior, or log weights log p(x, z) - log q(z), ``(S,)``, or ``(S, rows)``; nats.
        num_draws: S, for a fit or posterior.

    Raises:
        UsageError: no finite weight, or none at all.
    """
    log_weights = _log_weights(source, num_draws, seed)
    ax = axis_for(ax, 5.6, 3.8)
    if log_weights.ndim == 2:
        _draw_rows(ax, log_weights)
    else:
        _draw_tail(ax, log_weights)
    return ax


def _log_weights(source: Any, num_draws: int, seed: int) -> Array:
    if hasattr(source, "posterior") or hasattr(source, "draws"):
        draws = posterior_of(source).draws(positive("num_draws", num_draws), seed=seed)
        rows = draws.row_log_weights
        values = array_of(draws.log_weights if rows is None or rows.shape[-1] < 2 else rows, "log weights")
    else:
        values = array_of(source, "log weights")
    values = values.astype(np.float64)
    if values.ndim not in (1, 2) or not np.isfinite(values).any() or np.isposinf(values).any():
        raise UsageError(
            f"log weights: expected shape (S,), or (S, rows), with finite values, found {values.shape}"
            f"{' with +inf' if np.isposinf(values).any() else ''}; log p(x, z) - log q(z) may be -inf, where the model "
            "forbids a draw, but not everywhere."
        )
    return values


def _weights(log_weights: Array) -> Array:
    """Relative to their mean."""
    finite = np.where(np.isnan(log_weights), -np.inf, log_weights)
    weights = np.exp(finite - finite.max())
    return weights / weights.mean()  # type: ignore[no-any-return]


def _draw_tail(ax: Axes, log_weights: Array) -> None:
    weights = np.sort(_weights(log_weights))
    beyond = 1 - (np.arange(len(weights)) + 0.5) / len(weights)
    tail = fit_tail(weights)
    in_tail = weights > (tail.cutoff if tail else np.inf)
    positive = weights > 0
    ax.plot(weights[positive & ~in_tail], beyond[positive & ~in_tail], ".", color=PALE, markersize=3, label="draws")
    if tail is not None:
        ax.plot(weights[in_tail], beyond[in_tail], ".", color=INK, markersize=5, label=f"largest {in_tail.sum()}")
        _draw_fit(ax, tail, float(weights[-1]))
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_ylim(0.3 / len(weights), 1.3)
    low = max(float(np.quantile(weights, 0.02)), float(weights[-1]) * 1e-8)
    ax.set_xlim(low / 1.3, float(weights[-1]) * 6)
    ax.set_xlabel("importance weight relative to its mean")
    ax.set_ylabel("share of draws with a larger weight")
    found = f"k-hat {tail.khat:.2f}" if tail is not None else "no tail to fit"
    smoothed = tail.smoothed(weights) if tail is not None else weights
    ess = smoothed.sum() ** 2 / (smoothed**2).sum()
    _title(ax, found, f"ESS {ess:,.0f} of {len(weights):,} draws", tail.khat if tail is not None else None)
    ax.legend(frameon=False, fontsize=LABEL, loc="lower left")
    tidy(ax, grid="both")


def _draw_fit(ax: Axes, tail: Tail, largest: float) -> None:
    grid = np.geomspace(tail.cutoff + 1e-3 * (largest - tail.cutoff), largest * 8, 300)
    for shape, style in ((tail.khat, {"color": BLUE, "linewidth": 2.0}), (_LIMIT, {"color": RED, "linestyle": "--"})):
        survival = tail.survival(grid, shape)
        shown = survival > 0
        label = f"fitted Pareto, k = {shape:.2f}" if shape is not _LIMIT else f"limit, k = {_LIMIT}"
        ax.plot(grid[shown], survival[shown], label=label, **style)


def _draw_rows(ax: Axes, log_weights: Array) -> None:
    rows = np.unique(np.linspace(0, log_weights.shape[1] - 1, _MOST_ROWS).round().astype(int))
    rows = rows[np.isfinite(log_weights[:, rows]).any(0)]
    tails = [fit_tail(_weights(log_weights[:, row])) for row in rows]
    fitted = np.array([tail is not None for tail in tails])
    values = np.array([tail.khat for tail in tails if tail is not None])
    good = values < _LIMIT
    ax.plot(rows[fitted][good], values[good], ".", color=BLUE, markersize=5, label=f"below {_LIMIT}")
    ax.plot(rows[fitted][~good], values[~good], "x", color=RED, markersize=5, label=f"{_LIMIT} or above")
    ax.axhline(_LIMIT, color=RED, linestyle="--", linewidth=1.2)
    ax.set_xlabel("row")
    ax.set_ylabel("k-hat")
    shown = f"{len(rows)} of {log_weights.shape[1]:,} rows" if len(rows) < log_weights.shape[1] else f"{len(rows)} rows"
    share = float(np.mean(~good)) if len(values) else 0.0
    _title(ax, f"k-hat ≥ {_LIMIT} in {share:.0%} of rows", shown, None)
    ax.legend(frameon=False, fontsize=LABEL, loc="best")
    tidy(ax, grid="y")


def _title(ax: Axes, left: str, right: str, shape: float | None) -> None:
    colour = INK if shape is None else GREEN if shape < _LIMIT else RED
    ax.set_title(left, loc="left", fontsize=TITLE + 1, color=colour, fontweight="bold")
    ax.set_title(right, loc="right", fontsize=LABEL, color=QUIET)
