"""The tail of the importance weights, its fitted generalised Pareto and the k-hat that judges the guide."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from vipack.diagnostics.sources import HasPosterior, positive, posterior_of
from vipack.errors import UsageError
from vipack.hints import checked
from vipack.importance import KHAT_LIMIT, importance
from vipack.plots.canvas import BLUE, GREEN, INK, LABEL, PALE, QUIET, RED, TITLE, axis_for, tidy
from vipack.plots.inputs import ArrayLike, array_of
from vipack.plots.pareto import Tail, fit_tail
from vipack.posterior import Posterior

__all__ = ["draw_tails", "khat"]

Array = npt.NDArray[np.float64]

_MOST_ROWS = 500


@checked
def khat(
    source: Posterior | HasPosterior | ArrayLike,
    ax: Axes | None = None,
    *,
    num_draws: int = 4_000,
    repeats: int = 4,
    seed: int = 0,
) -> Axes:
    """The largest importance weights with the generalised Pareto fitted to them, beside one of k = 0.7.

    A line that falls more slowly than that of k = 0.7 has too few, too large weights: the guide's tails are too thin for
    its draws to be corrected by weighting. The points are of one set of draws, the lines of each; k-hat is their median
    and the ESS their mean, as in ``fit.diagnose()``. Where the posterior is a product over rows, as in a VAE, each row
    has weights of its own: then the k-hat of each row (of 500 of them at most) with a line at 0.7.

    Args:
        source: a fit, its posterior, or log weights log p(x, z) - log q(z), ``(S,)``, or ``(S, rows)``; nats.
        num_draws: S in each of `repeats` independent sets, for a fit or posterior.

    Raises:
        UsageError: no finite weight, or none at all.
    """
    sets = _sets(source, positive("num_draws", num_draws), positive("repeats", repeats), seed)
    ax = axis_for(ax, 5.6, 3.8)
    if sets[0].ndim == 2:
        _draw_rows(ax, sets[0])
    else:
        draw_tails(ax, sets)
    return ax


def _sets(source: Any, num_draws: int, repeats: int, seed: int) -> list[Array]:
    """Log weights, ``(S,)`` in each of some sets, or ``(S, rows)`` in one."""
    if not (hasattr(source, "posterior") or hasattr(source, "draws")):
        return [_checked(source)]
    posterior = posterior_of(source)
    first = posterior.draws(num_draws, seed=seed, keep=False)
    if first.row_log_weights is not None and first.row_log_weights.shape[-1] > 1:
        return [_checked(first.row_log_weights)]
    seeds = [(seed + r) % 2**32 for r in range(1, repeats)]
    others = [posterior.draws(num_draws, seed=each, keep=False).log_weights for each in seeds]
    return [_checked(log_weights) for log_weights in (first.log_weights, *others)]


def _checked(log_weights: ArrayLike) -> Array:
    values = array_of(log_weights, "log weights").astype(np.float64)
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


def draw_tails(ax: Axes, sets: list[Array]) -> None:
    """Of log weights ``(S,)`` in each of some sets: the points of the first, the lines of all."""
    weights = np.sort(_weights(sets[0]))
    beyond = 1 - (np.arange(len(weights)) + 0.5) / len(weights)
    tail, *others = [fit_tail(_weights(log_weights)) for log_weights in sets]
    in_tail = weights > (tail.cutoff if tail else np.inf)
    positive = weights > 0
    ax.plot(weights[positive & ~in_tail], beyond[positive & ~in_tail], ".", color=PALE, markersize=3, label="draws")
    if tail is not None:
        ax.plot(weights[in_tail], beyond[in_tail], ".", color=INK, markersize=5, label=f"largest {in_tail.sum()}")
        grid = np.geomspace(tail.cutoff + 1e-3 * (weights[-1] - tail.cutoff), weights[-1] * 8, 300)
        more = [other for other in others if other is not None]
        _draw_others(ax, more, grid)
        # Of several sets the title has the k-hat: another one in the legend would be taken for the fit's.
        label = "fitted Pareto" if more else f"fitted Pareto, k = {tail.khat:.2f}"
        _draw_line(ax, tail, tail.khat, grid, label=label, color=BLUE, linewidth=2.0)
        _draw_line(ax, tail, KHAT_LIMIT, grid, label=f"limit, k = {KHAT_LIMIT}", color=RED, linestyle="--")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_ylim(0.3 / len(weights), 1.3)
    low = max(float(np.quantile(weights, 0.02)), float(weights[-1]) * 1e-8)
    ax.set_xlim(low / 1.3, float(weights[-1]) * 6)
    ax.set_xlabel("importance weight relative to its mean")
    ax.set_ylabel("share of draws with a larger weight")
    judged = [importance(log_weights) for log_weights in sets]
    shape = float(np.median([each.khat for each in judged])) if tail is not None else None
    ess = float(np.mean([each.ess for each in judged]))
    headline = f"k-hat {shape:.2f}" if shape is not None else "no tail to fit"
    _title(ax, headline, f"ESS {ess:,.0f} of {len(weights):,} draws", shape)
    ax.legend(frameon=False, fontsize=LABEL, loc="lower left")
    tidy(ax, grid="both")


def _draw_others(ax: Axes, tails: list[Tail], grid: Array) -> None:
    """Tails of further sets of draws, which show how far k-hat scatters."""
    for i, tail in enumerate(tails):
        label = f"of {len(tails)} more sets" if i == 0 else "_more"
        _draw_line(ax, tail, tail.khat, grid[grid > tail.cutoff], label=label, color=BLUE, linewidth=0.8, alpha=0.5)


def _draw_line(ax: Axes, tail: Tail, shape: float, grid: Array, **style: Any) -> None:
    survival = tail.survival(grid, shape)
    shown = survival > 0
    ax.plot(grid[shown], survival[shown], **style)


def _draw_rows(ax: Axes, log_weights: Array) -> None:
    rows = np.unique(np.linspace(0, log_weights.shape[1] - 1, _MOST_ROWS).round().astype(int))
    rows = rows[np.isfinite(log_weights[:, rows]).any(0)]
    tails = [fit_tail(_weights(log_weights[:, row])) for row in rows]
    fitted = np.array([tail is not None for tail in tails])
    values = np.array([tail.khat for tail in tails if tail is not None])
    good = values < KHAT_LIMIT
    ax.plot(rows[fitted][good], values[good], ".", color=BLUE, markersize=5, label=f"below {KHAT_LIMIT}")
    ax.plot(rows[fitted][~good], values[~good], "x", color=RED, markersize=5, label=f"{KHAT_LIMIT} or above")
    ax.axhline(KHAT_LIMIT, color=RED, linestyle="--", linewidth=1.2)
    ax.set_xlabel("row")
    ax.set_ylabel("k-hat")
    shown = f"{len(rows)} of {log_weights.shape[1]:,} rows" if len(rows) < log_weights.shape[1] else f"{len(rows)} rows"
    share = float(np.mean(~good)) if len(values) else 0.0
    _title(ax, f"k-hat ≥ {KHAT_LIMIT} in {share:.0%} of rows", shown, None)
    ax.legend(frameon=False, fontsize=LABEL, loc="best")
    tidy(ax, grid="y")


def _title(ax: Axes, left: str, right: str, shape: float | None) -> None:
    colour = INK if shape is None else GREEN if shape < KHAT_LIMIT else RED
    ax.set_title(left, loc="left", fontsize=TITLE + 1, color=colour, fontweight="bold")
    ax.set_title(right, loc="right", fontsize=LABEL, color=QUIET)
