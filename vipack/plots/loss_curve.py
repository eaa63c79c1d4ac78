"""The loss of every step, and its running mean."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from vipack.diagnostics.rounding import COMPUTED, same
from vipack.errors import UsageError
from vipack.hints import checked
from vipack.plots.canvas import BLUE, LABEL, ORANGE, PALE, QUIET, axis_for, note_beside, number, tidy
from vipack.plots.inputs import ArrayLike, Trained, array_of

__all__ = ["losses"]

Array = npt.NDArray[np.float64]

_ROUNDING = COMPUTED * 2.0**-23  # losses are added up in double precision, but of densities in single
_LEGIBLE = 20.0  # a loss that starts this many times above where it settles needs a logarithmic scale


@checked
def losses(source: Trained | ArrayLike, ax: Axes | None = None, *, window: int | None = None) -> Axes:
    """The loss of every step (light) and its running mean (dark), in nats, titled with why training stopped.

    With ``fit(..., validation=...)`` dots show minus the held-out ELBO, for as many observations as were trained on.

    The scale shows where the loss settles: steps far above it at the start run out at the top; where even the rest of
    the run spans orders of magnitude, the scale is linear up to twice the settled loss and logarithmic beyond.

    Args:
        source: a fit, or its losses ``(steps,)``; NaN and infinite ones leave gaps.
        window: steps that the running mean takes in, centred; a fiftieth of the run by default.

    Raises:
        UsageError: no finite loss, or `window` out of range.
    """
    values, reason = _read(source)
    if window is None:
        window = max(1, len(values) // 50)
    if not 1 <= window <= len(values):
        raise UsageError(f"window: expected 1 to {len(values)} steps, found {window}.")
    ax = axis_for(ax)
    steps = np.arange(1, len(values) + 1)
    smooth = _running_mean(values, window)
    single = "." if len(values) == 1 else ""
    label = f"mean of {window} steps" if window > 1 else "each step"
    if window > 1:
        ax.plot(steps, values, color=PALE, alpha=0.55, linewidth=0.7, label="each step", rasterized=len(values) > 5_000)
    ax.plot(steps, smooth, color=BLUE, linewidth=1.8, marker=single, label=label)
    _validation_curve(ax, source)
    _scale(ax, values, smooth)
    _mark_end(ax, smooth)
    ax.set_xlabel("step")
    ax.set_ylabel("loss = −ELBO (nats)")
    if reason:
        ax.set_title(textwrap.fill(reason, 84), loc="left", fontsize=LABEL, color=QUIET)
    if len(ax.lines) > 1:
        ax.legend(frameon=False, fontsize=LABEL, loc="upper right")
    ax.margins(x=0.01)
    tidy(ax, grid="y")
    return ax


def _read(source: Trained | ArrayLike) -> tuple[Array, str]:
    losses: Any = getattr(source, "losses", source)
    values = array_of(losses, "losses").astype(np.float64)
    if values.ndim != 1 or not np.isfinite(values).any():
        raise UsageError(
            f"losses: expected the loss of each step, shape (steps,) with a finite value, found shape {values.shape}"
            f"{' without one' if values.ndim == 1 else ''}; pass a fit that has trained, or fit.losses."
        )
    return np.where(np.isfinite(values), values, np.nan), str(getattr(source, "stopped", ""))


def _validation_curve(ax: Axes, source: Any) -> None:
    history, count = getattr(source, "history", None), getattr(source, "num_observations", None)
    if history is not None and "elbo" in history and count:
        ax.plot(
            history["step"], -count * history["elbo"], "o-", color=ORANGE, markersize=3, linewidth=0.8, label="held out"
        )


def _running_mean(values: Array, window: int) -> Array:
    """Mean over `window` steps around each one, over fewer at the ends and around gaps."""
    known = np.isfinite(values)
    ones = np.ones(window)
    count = np.convolve(known, ones, mode="full")
    total = np.convolve(np.where(known, values, 0.0), ones, mode="full")
    centre = slice((window - 1) // 2, (window - 1) // 2 + len(values))
    mean = np.full(len(values), np.nan)
    np.divide(total[centre], count[centre], out=mean, where=count[centre] > 0)
    mean[~known] = np.nan
    return mean


def _scale(ax: Axes, values: Array, smooth: Array) -> None:
    """See :func:`losses`; the start is the first tenth of the run, and the last fifth says where the loss settles."""
    finite = np.flatnonzero(np.isfinite(values))
    rest, end = finite[len(finite) // 10 :], finite[-max(1, len(finite) // 5) :]
    settled = max(float(np.quantile(np.abs(values[end]), 0.95)), 1.0)
    low, high = np.quantile(values[rest], [0.002, 0.99])
    low, high = min(low, np.min(smooth[rest])), max(high, np.max(smooth[rest]))
    if max(abs(low), abs(high)) > _LEGIBLE * settled:
        ax.set_yscale("symlog", linthresh=2 * settled)
        return
    # A loss that only rounding moves, as that of an exact guide by sticking the landing, is a straight line.
    spread = 0.0 if same(low, high, _ROUNDING) else high - low
    margin = 0.06 * spread or 0.06 * abs(high) or 1.0
    ax.set_ylim(low - margin, high + margin)


def _mark_end(ax: Axes, smooth: Array) -> None:
    last = float(smooth[np.isfinite(smooth)][-1])
    note_beside(ax, last, number(last, ",.4g" if abs(last) < 1e4 else ",.0f") + " nats", BLUE, x=1.01)
