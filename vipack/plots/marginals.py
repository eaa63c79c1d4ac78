"""Marginal densities of the posterior, or intervals where there are many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from matplotlib.axes import Axes

from vipack.diagnostics.sources import HasPosterior, positive, posterior_of
from vipack.display import element_name
from vipack.errors import UsageError
from vipack.hints import checked
from vipack.plots.canvas import BLUE, INK, PALE, QUIET, TICK, TITLE, axes_for, legend_above, number, say_above, tidy
from vipack.plots.inputs import ArrayLike, chosen, draws_of
from vipack.plots.kernel_density import bins_of, density, is_discrete, is_point
from vipack.posterior import Posterior
from vipack.posterior.answers import Used, answer

__all__ = ["posterior"]

_MOST_PANELS = 12
_MOST_ROWS = 60
_LEVELS = (0.05, 0.25, 0.75, 0.95)


@checked
def posterior(
    source: Posterior | HasPosterior | Mapping[str, ArrayLike],
    names: str | Iterable[str] | None = None,
    *,
    axes: Axes | Iterable[Axes] | None = None,
    num_draws: int = 2_000,
    seed: int = 0,
    resample: bool | None = None,
) -> np.ndarray:
    """Marginals of the posterior: a density for each scalar, with its mean and 90% interval.

    More than 12 scalars share one panel of means with their 50% and 90% intervals; of more than 60, an even choice of 60
    is drawn, and the title says so.

    Args:
        source: a fit, its posterior, or draws as ``{site: (S, ...)}``.
        names: sites to draw, deterministic ones too; all latents by default.
        axes: Axes to draw on, one for each panel; a new Figure's by default.
        resample: which draws of a fit, resampled ones or the guide's own; None follows the verdict of the last diagnosis.
            A line above the panels says which they are.

    Returns:
        The Axes, ``(panels,)``; ``axes[0].figure`` is their Figure.

    Raises:
        UsageError: a name that is no site of the posterior, or `axes` of another number.
    """
    draws, which = _draws(source, names, num_draws, seed, resample)
    total = sum(values[0].size for values in draws.values())
    scalars = _scalars(draws, np.unique(np.linspace(0, total - 1, _MOST_ROWS).round()))
    if total > _MOST_PANELS:
        return np.array([_forest(scalars, total, axes, which)], dtype=object)
    panels = axes_for(axes, len(scalars), columns=4 if len(scalars) > 4 else len(scalars), width=2.6, height=1.9)
    for ax, (name, values) in zip(panels, scalars.items(), strict=True):
        _marginal(ax, name, values)
    say_above(panels, which, own=axes is None)
    return np.array(panels, dtype=object)


def _draws(
    source: Posterior | HasPosterior | Mapping[str, ArrayLike],
    names: str | Iterable[str] | None,
    num_draws: int,
    seed: int,
    resample: bool | None,
) -> tuple[dict[str, np.ndarray], Used | None]:
    """Draws by site, and which they are; nothing is known of arrays."""
    if isinstance(source, Mapping):
        if resample is not None:
            raise UsageError("resample: draws that are given are shown as they are; leave it out, or pass a fit.")
        given = draws_of(source)
        return {name: given[name] for name in chosen(names, given, given, "draws given")}, None
    fitted = posterior_of(source)
    present = [site.name for site in fitted.table.of_kind("latent", "enumerated", "deterministic")]
    latents = [site.name for site in fitted.table.of_kind("latent")]
    wanted = chosen(names, present, latents, "sites of the posterior")
    draws, which = answer(
        fitted,
        positive("num_draws", num_draws),
        seed=seed,
        resample=resample,
        densities=False,
        computed=not set(wanted) <= set(latents),
    )
    return draws_of({name: draws.sites[name] for name in wanted}), which


def _scalars(draws: Mapping[str, np.ndarray], positions: np.ndarray) -> dict[str, np.ndarray]:
    """Draws of the scalars at these positions of all: ``{"mu": (S,), "theta[0]": (S,), ...}``."""
    scalars, start = {}, 0
    for name, values in draws.items():
        flat, shape = values.reshape(len(values), -1), values.shape[1:]
        for position in positions[(positions >= start) & (positions < start + flat.shape[1])].astype(int) - start:
            index = np.unravel_index(position, shape) if shape else ()
            scalars[element_name(name, tuple(map(int, index)))] = flat[:, position]
        start += flat.shape[1]
    return scalars


def _marginal(ax: Axes, name: str, values: np.ndarray) -> None:
    low, _, _, high = np.quantile(values, _LEVELS)
    mean = values.mean()
    if is_point(values):
        ax.axvline(mean, color=BLUE, linewidth=1.8)
        ax.set_xlim(mean - max(abs(mean), 1) / 2, mean + max(abs(mean), 1) / 2)
        ax.set_ylim(0, 1)
        summary = f"always {number(mean)}" if len(values) > 1 else f"one draw, {number(mean)}"
    else:
        top = _bars(ax, values) if is_discrete(values) else _curve(ax, values)
        ax.set_ylim(-0.14 * top, 1.05 * top)
        ax.plot([low, high], [-0.06 * top] * 2, color=INK, linewidth=2.4, solid_capstyle="butt", label="90% interval")
        ax.plot([mean], [-0.06 * top], "o", color=INK, markersize=5.5, markeredgecolor="white", label="mean")
        summary = f"mean {number(mean)}, 90% {number(low)} to {number(high)}"
    ax.set_title(name, fontsize=TITLE, loc="left")
    ax.set_xlabel(summary)
    ax.locator_params(axis="x", nbins=4)
    tidy(ax, left=False)
    ax.xaxis.label.set(color=QUIET, fontsize=TICK)


def _curve(ax: Axes, values: np.ndarray) -> float:
    points, heights = density(values)
    ax.fill_between(points, heights, color=PALE, alpha=0.35, linewidth=0)
    ax.plot(points, heights, color=BLUE, linewidth=1.6)
    return float(heights.max())


def _bars(ax: Axes, values: np.ndarray) -> float:
    edges = bins_of(values)
    shares = np.histogram(values, edges)[0] / len(values)
    ax.bar((edges[:-1] + edges[1:]) / 2, shares, width=0.8 * np.diff(edges), color=PALE, alpha=0.8)
    return float(shares.max())


def _forest(
    scalars: Mapping[str, np.ndarray], total: int, axes: Axes | Iterable[Axes] | None, which: Used | None
) -> Axes:
    """Means and intervals, one row a scalar, the first on top."""
    labels = list(scalars)
    (ax,) = axes_for(axes, 1, columns=1, width=5.6, height=0.9 + 0.19 * len(labels))
    values = np.stack([scalars[label] for label in labels]).astype(np.float64)
    low, lower, upper, high = np.quantile(values, _LEVELS, axis=1)
    rows = np.arange(len(labels))
    ax.hlines(rows, low, high, color=BLUE, linewidth=1.1, label="90% interval")
    ax.hlines(rows, lower, upper, color=BLUE, linewidth=3.2, label="50% interval")
    ax.plot(
        values.mean(1), rows, "o", color="white", markeredgecolor=INK, markersize=4.5, linestyle="none", label="mean"
    )
    ax.set_yticks(rows, labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    if low.min() < 0 < high.max():
        ax.axvline(0, color=QUIET, linewidth=0.8, zorder=0)
    legend_above(ax, 3)
    shown = "value" if len(labels) == total else f"value; {len(labels)} of {total:,} elements, evenly chosen"
    ax.set_xlabel(shown if which is None else f"{shown}\n{which}")
    tidy(ax, grid="x")
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return ax
