"""Where fits of the same data disagree, in posterior sds: guides of equal ELBO may differ on a mean."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from vipack.diagnostics.compare import Fitted, check_fits
from vipack.diagnostics.importance import importance
from vipack.diagnostics.moments import Columns, columns_of
from vipack.diagnostics.sources import positive
from vipack.errors import UsageError

__all__ = ["disagreement"]


def disagreement(
    fits: Mapping[str, Fitted], *, num_draws: int = 4_000, seed: int = 0, weighted: bool = False
) -> pd.DataFrame:
    """How far the fits' means and sds of each latent and deterministic element are apart, the furthest first.

    Columns: ``mean_gap``, the distance between the lowest and the highest mean in posterior sds (the median over fits),
    and ``gap_se``, its Monte Carlo standard error; ``lowest`` and ``highest``, which fits these are; ``sd_ratio``, the
    largest sd over the smallest; ``narrowest`` and ``widest``.

    Args:
        weighted: compare draws weighted by importance, which a CORRECTED verdict certifies, instead of the guides' own.

    Raises:
        UsageError: fewer than two fits, or fits without a common site.

    Warns:
        DataWarning: the fits saw different data.
    """
    check_fits(fits)
    positive("num_draws", num_draws, 2)
    if len(fits) < 2:
        raise UsageError(f"fits: expected at least two to compare, found {len(fits)}.")
    found = {name: _moments(fit, num_draws, seed, weighted) for name, fit in fits.items()}
    common = set.intersection(*(set(each) for each in found.values()))
    if not common:
        raise UsageError("fits: they have no latent or deterministic element in common, so nothing can be compared.")
    labels = list(fits)
    rows = {}
    for element in [name for name in next(iter(found.values())) if name in common]:
        means, sds, ses = (np.array([found[label][element][k] for label in labels]) for k in range(3))
        low, high, thin, wide = means.argmin(), means.argmax(), sds.argmin(), sds.argmax()
        unit = float(np.median(sds)) or float(sds.max()) or 1.0
        rows[element] = {
            "mean_gap": float(means[high] - means[low]) / unit,
            "gap_se": float(np.hypot(ses[low], ses[high])) / unit if low != high else 0.0,
            "lowest": labels[low],
            "highest": labels[high],
            "sd_ratio": float(sds[wide] / sds[thin]) if sds[thin] > 0 else np.inf if sds[wide] > 0 else 1.0,
            "narrowest": labels[thin],
            "widest": labels[wide],
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index.name = "element"
    return table.sort_values("mean_gap", ascending=False, kind="stable")


def _moments(fit: Fitted, num_draws: int, seed: int, weighted: bool) -> dict[str, tuple[float, float, float]]:
    """Mean, sd and the mean's standard error of each element."""
    draws = fit.posterior.draws(num_draws, seed=seed)
    columns: Columns = columns_of(draws.compared)
    shares = np.exp(importance(draws.log_weights).log_weights) if weighted else np.full(num_draws, 1 / num_draws)
    mean = shares @ columns.values
    centred = columns.values - mean
    sd = np.sqrt(shares @ centred**2)
    se = np.sqrt((shares[:, None] ** 2 * centred**2).sum(0))
    kept = [i for i in range(len(mean)) if not np.isnan(mean[i])]  # without elements that a mask leaves out
    return {columns.names[i]: (mean[i], sd[i], se[i]) for i in kept}
