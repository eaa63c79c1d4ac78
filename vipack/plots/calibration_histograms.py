"""Where true parameters fall among the draws of fits to simulated data: one histogram for each element."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from matplotlib.axes import Axes
from scipy import stats

from vipack.diagnostics.calibration import Calibration
from vipack.errors import UsageError
from vipack.hints import checked
from vipack.plots.canvas import BLUE, INK, LABEL, PALE, RED, axes_for, tidy
from vipack.plots.inputs import chosen

__all__ = ["calibration"]

_MOST = 12


@checked
def calibration(
    result: Calibration,
    names: str | Iterable[str] | None = None,
    axes: Axes | Iterable[Axes] | None = None,
    *,
    bins: int = 20,
) -> list[Axes]:
    """Histograms of ``P_q(theta < true theta)``, which are flat where the guide is calibrated.

    The band holds 95% of the bars of a flat one. A histogram that leans tells a biased mean, one with high ends a spread
    too narrow, one with a high middle a spread too wide; what the tests flag stands in its title, in red.

    Args:
        result: what ``vipack.vsbc`` returns.
        names: elements, as ``b[0]``; the first twelve by default.

    Raises:
        UsageError: no such element, or `result` is not a calibration.
    """
    if not hasattr(result, "histogram"):
        raise UsageError(f"result: expected what vipack.vsbc returns, found {type(result).__name__}.")
    labels = chosen(names, result.names, result.names[:_MOST], "elements of the latents")
    panels = axes_for(axes, len(labels), columns=4, width=2.6, height=2.0)
    count = len(result.probabilities)
    low, high = stats.binom(count, 1 / bins).ppf([0.025, 0.975])
    misjudged = result.misjudged
    for ax, name in zip(panels, labels, strict=True):
        ax.axhspan(low, high, color=PALE, alpha=0.35, linewidth=0)
        ax.bar((np.arange(bins) + 0.5) / bins, result.histogram(name, bins), width=0.9 / bins, color=BLUE)
        said = [*(["biased"] if name in result.biased else []), *([misjudged[name]] if name in misjudged else [])]
        title = f"{name}: {', '.join(said)}" if said else name
        ax.set_title(title, loc="left", fontsize=LABEL, color=RED if said else INK)
        ax.set_xlim(0, 1)
        ax.set_xlabel("P(draw < truth)")
        tidy(ax, left=False)
    return panels
