"""The posterior predictive check: observed data against data that the fitted model draws."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
from matplotlib.axes import Axes

from vipack.errors import UsageError
from vipack.plots.canvas import INK, PALE, TITLE, axes_for, legend_above, tidy
from vipack.plots.density import bins_of, density, is_discrete, is_point
from vipack.plots.inputs import ArrayLike, Fitted, array_of, chosen, draws_of, positive, posterior_of
from vipack.posterior import Posterior

__all__ = ["predictive"]

_MOST_NUMBERS = 20_000_000  # replicated at once
_RUG = 50  # so few observations are also marked one by one


def predictive(
    source: Posterior | Fitted | Mapping[str, ArrayLike],
    names: str | Iterable[str] | None = None,
    *,
    observed: Mapping[str, ArrayLike] | None = None,
    axes: Axes | Iterable[Axes] | None = None,
    num_draws: int = 60,
    seed: int = 0,
) -> np.ndarray:
    """Posterior predictive check, one panel an observed site: does the fitted model make data like those observed?

    Measurements: the density of the observed values over one for each replicated data set. Counts and labels: the
    observed share of each value as bars, with the mean and central 90% of the replicated shares. All values of a site
    are pooled; masked observations are left out of both.

    Args:
        source: a fit, its posterior, or replicated data ``{site: (S, ...)}`` with `observed`.
        names: sites to draw; all observed ones by default.
        observed: ``{site: (...)}``, for replicated data alone.
        axes: Axes to draw on, one for each panel; a new Figure's by default.
        num_draws: replicated data sets S; fewer where they would hold more than 20 million numbers.

    Returns:
        The Axes, ``(panels,)``; ``axes[0].figure`` is their Figure.

    Raises:
        UsageError: a name that is no observed site, or `observed` where it does not belong or lacks a site.
    """
    pairs = _pairs(source, names, observed, num_draws, seed)
    panels = axes_for(axes, len(pairs), columns=3, width=4.2 if len(pairs) < 3 else 3.6, height=2.8)
    for ax, (name, (seen, drawn)) in zip(panels, pairs.items(), strict=True):
        if is_discrete(seen) and is_discrete(drawn):
            _bars(ax, seen, drawn)
        else:
            _curves(ax, seen, drawn)
        ax.set_title(name, fontsize=TITLE, loc="left", pad=18)
        legend_above(ax, 2)
    return np.array(panels, dtype=object)


def _pairs(
    source: Posterior | Fitted | Mapping[str, ArrayLike],
    names: str | Iterable[str] | None,
    observed: Mapping[str, ArrayLike] | None,
    num_draws: int,
    seed: int,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Observed values ``(n,)`` and replicated ones ``(S, n)`` of each site."""
    masks: Mapping[str, np.ndarray] = {}
    if isinstance(source, Mapping):
        if observed is None:
            raise UsageError("observed: give the observed data {site: array} beside replicated draws.")
        drawn, seen = (
            draws_of(source),
            {name: array_of(value, f"observed {name!r}") for name, value in observed.items()},
        )
        wanted = chosen(names, [name for name in drawn if name in seen], drawn, "sites both observed and replicated")
    else:
        if observed is not None:
            raise UsageError("observed: a fit knows its own observed data; leave it out.")
        fitted = posterior_of(source)
        wanted = chosen(names, fitted.observed, fitted.observed, "observed sites")
        seen = {name: array_of(fitted.observed[name], name) for name in wanted}
        masks = {name: np.asarray(mask.cpu()) for name, mask in fitted.observed_masks.items()}
        count = max(
            1, min(num_draws, _MOST_NUMBERS // max(1, sum(math.prod(fitted.observed[n].shape) for n in wanted)))
        )
        drawn = draws_of({n: v for n, v in fitted.predictive(count, seed=seed).items() if n in wanted})
        for name in set(wanted) & set(masks):
            shape = drawn[name].shape[1:]
            event = len(fitted.table[name].event_shape)
            kept = np.broadcast_to(masks[name].reshape(masks[name].shape + (1,) * event), shape)
            seen[name], drawn[name] = np.broadcast_to(seen[name], shape)[kept], drawn[name][:, kept]
    return {name: _finite(name, seen[name].ravel(), drawn[name].reshape(len(drawn[name]), -1)) for name in wanted}


def _num_replicates(fitted: Posterior, num_draws: int) -> int:
    """
    Raises:
        UsageError: even one replicated data set is too large.
    """
    sizes = {name: math.prod(value.shape) for name, value in fitted.observed.items()}
    total = sum(sizes.values())
    if total > 5 * _MOST_NUMBERS:
        largest = max(sizes, key=lambda name: sizes[name])
        raise UsageError(
            f"site {largest!r}: one replicated data set holds {total:,} numbers, more than {5 * _MOST_NUMBERS:,}; predict "
            "for fewer rows and pass the arrays, as in predictive({site: draws}, observed={site: values})."
        )
    return max(1, min(num_draws, _MOST_NUMBERS // max(1, total)))


def _finite(name: str, seen: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if not seen.size or not np.isfinite(seen).all() or not np.isfinite(drawn).all():
        raise UsageError(
            f"site {name!r}: {'nothing is observed' if not seen.size else 'NaN or infinity in the observed or drawn data'}; "
            "there is nothing to compare."
        )
    return seen, drawn


def _curves(ax: Axes, seen: np.ndarray, drawn: np.ndarray) -> None:
    top = 0.0
    for i, values in enumerate(drawn if drawn.shape[1] > 1 else drawn.T):
        label = None if i else f"{len(drawn)} replicated data sets" if drawn.shape[1] > 1 else f"{len(drawn)} draws"
        if is_point(values):
            ax.axvline(values[0], color=PALE, alpha=0.4, linewidth=0.8, label=label)
            continue
        points, heights = density(values)
        ax.plot(points, heights, color=PALE, alpha=0.4, linewidth=0.8, label=label)
        top = max(top, float(np.quantile(heights, 0.99)))
    if is_point(seen):
        ax.axvline(seen[0], color=INK, linewidth=1.8, label="observed")
    else:
        points, heights = density(seen)
        ax.plot(points, heights, color=INK, linewidth=1.8, label="observed")
        top = max(top, float(heights.max()))
        if len(seen) <= _RUG:
            ax.plot(seen, np.zeros(len(seen)), "|", color=INK, markersize=9, clip_on=False, zorder=4)
    ax.set_ylim(0, 1.12 * top or 1.0)
    ax.set_xlabel("value")
    tidy(ax, left=False)


def _bars(ax: Axes, seen: np.ndarray, drawn: np.ndarray) -> None:
    edges = bins_of(seen, drawn[drawn <= max(np.quantile(drawn, 0.999), seen.max())])
    centres, widths = (edges[:-1] + edges[1:]) / 2, np.diff(edges)
    shares = np.stack([np.histogram(values, edges)[0] / values.size for values in drawn])
    ax.bar(
        centres, np.histogram(seen, edges)[0] / seen.size, width=0.7 * widths, color=PALE, alpha=0.6, label="observed"
    )
    low, high = np.quantile(shares, [0.05, 0.95], axis=0)
    mean = shares.mean(0)
    ax.errorbar(
        centres,
        mean,
        yerr=np.maximum([mean - low, high - mean], 0),
        fmt="o",
        color=INK,
        markersize=3.5,
        linewidth=1.2,
        label=f"{len(drawn)} replicates, 90%",
    )
    if len(centres) <= 12 and np.all(widths == 1):
        ax.set_xticks(centres)
    ax.set_xlabel("value" if np.all(widths == 1) else f"value, in bins of {widths[0]:.0f}")
    ax.set_ylabel("share of observations")
    tidy(ax, grid="y")
