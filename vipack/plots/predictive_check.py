"""The posterior predictive check: observed data against data that the fitted model draws."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TypeAlias

import numpy as np
from matplotlib.axes import Axes

from vipack.diagnostics.sources import HasPosterior, positive, posterior_of
from vipack.errors import UsageError
from vipack.hints import checked
from vipack.plots.canvas import INK, PALE, TITLE, axes_for, legend_above, say_above, tidy
from vipack.plots.inputs import ArrayLike, array_of, chosen, draws_of
from vipack.plots.kernel_density import bins_of, density, is_discrete, is_point
from vipack.posterior import Posterior
from vipack.posterior.answers import Used, predictions

__all__ = ["predictive"]

Pair: TypeAlias = tuple[np.ndarray, np.ndarray]  # observed values and replicated ones, the draws leading

_MOST_NUMBERS = 20_000_000  # replicated at once
_RUG = 50  # so few observations are also marked one by one


@checked
def predictive(
    source: Posterior | HasPosterior | Mapping[str, ArrayLike],
    names: str | Iterable[str] | None = None,
    *,
    observed: Mapping[str, ArrayLike] | None = None,
    axes: Axes | Iterable[Axes] | None = None,
    num_draws: int = 60,
    seed: int = 0,
    resample: bool | None = None,
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
        resample: from which draws of a fit's latents, resampled ones or the guide's own; None follows the verdict of the
            last diagnosis. A line above the panels says which they are.

    Returns:
        The Axes, ``(panels,)``; ``axes[0].figure`` is their Figure.

    Raises:
        UsageError: a name that is no observed site, or `observed` where it does not belong or lacks a site.
    """
    which: Used | None = None
    if isinstance(source, Mapping):
        if resample is not None:
            raise UsageError("resample: data that are given are shown as they are; leave it out, or pass a fit.")
        pairs = _given(names, source, observed)
    elif observed is not None:
        raise UsageError("observed: a fit knows its own observed data; leave it out.")
    else:
        pairs, which = _replicated(names, posterior_of(source), positive("num_draws", num_draws), seed, resample)
    panels = axes_for(axes, len(pairs), columns=3, width=4.2 if len(pairs) < 3 else 3.6, height=2.8)
    for ax, (name, pair) in zip(panels, pairs.items(), strict=True):
        seen, drawn = _finite(name, *pair)
        if is_discrete(seen) and is_discrete(drawn):
            _bars(ax, seen, drawn)
        else:
            _curves(ax, seen, drawn)
        ax.set_title(name, fontsize=TITLE, loc="left", pad=18)
        legend_above(ax, 2)
    say_above(panels, which, own=axes is None)
    return np.array(panels, dtype=object)


def _given(
    names: str | Iterable[str] | None, drawn: Mapping[str, ArrayLike], observed: Mapping[str, ArrayLike] | None
) -> dict[str, Pair]:
    if observed is None:
        raise UsageError("observed: give the observed data {site: array} beside replicated draws.")
    replicated = draws_of(drawn)
    seen = {name: array_of(value, f"observed {name!r}") for name, value in observed.items()}
    both = [name for name in replicated if name in seen]
    return {name: (seen[name], replicated[name]) for name in chosen(names, both, both, "sites observed and replicated")}


def _replicated(
    names: str | Iterable[str] | None, fitted: Posterior, num_draws: int, seed: int, resample: bool | None
) -> tuple[dict[str, Pair], Used]:
    wanted = chosen(names, fitted.observed, fitted.observed, "observed sites")
    drawn, which, _ = predictions(fitted, _num_replicates(fitted, num_draws), seed=seed, resample=resample)
    pairs = {name: (array_of(fitted.observed[name], name), array_of(drawn[name], name)) for name in wanted}
    for name, mask in fitted.observed_masks.items():
        if name in pairs:
            seen, replicates = pairs[name]
            event = (1,) * len(fitted.table[name].event_shape)
            kept = np.broadcast_to(array_of(mask, name).astype(bool).reshape(*mask.shape, *event), replicates.shape[1:])
            pairs[name] = np.broadcast_to(seen, kept.shape)[kept], replicates[:, kept]
    return pairs, which


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


def _finite(name: str, seen: np.ndarray, drawn: np.ndarray) -> Pair:
    """Flattened to ``(n,)`` and ``(S, n)``.

    Raises:
        UsageError: nothing observed, or NaN or infinity.
    """
    if not seen.size or not np.isfinite(seen).all() or not np.isfinite(drawn).all():
        why = "NaN or infinity in the observed or replicated data" if seen.size else "nothing is observed"
        raise UsageError(f"site {name!r}: {why}, so there is nothing to compare; name other sites in names=.")
    return seen.ravel(), drawn.reshape(len(drawn), -1)


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
