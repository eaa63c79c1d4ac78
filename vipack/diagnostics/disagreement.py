"""Where fits of the same data disagree, in posterior sds: guides of equal ELBO may differ on a mean."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from vipack.diagnostics.compare import check_fits
from vipack.diagnostics.comparison_table import Fitted
from vipack.diagnostics.moments import Columns, columns_of_sets, weighted_moments
from vipack.diagnostics.rounding import constant, same
from vipack.diagnostics.sources import positive
from vipack.entry import entry
from vipack.errors import UsageError
from vipack.importance import importance
from vipack.posterior.answers import answer, used

__all__ = ["disagreement"]


@entry
def disagreement(
    fits: Mapping[str, Fitted], *, num_draws: int = 4_000, seed: int = 0, weighted: bool = False
) -> pd.DataFrame:
    """How far the fits' means and sds of each latent and deterministic element are apart, the furthest first.

    Columns: ``mean_gap``, the distance between the lowest and the highest mean in posterior sds (the median over fits),
    and ``gap_se``, its Monte Carlo standard error; ``lowest`` and ``highest``, which fits these are; ``sd_ratio``, the
    largest sd over the smallest; ``narrowest`` and ``widest``.

    Args:
        weighted: compare draws weighted by importance, which a CORRECTED verdict certifies, instead of the guides' own.
            ``attrs["draws"]`` says by fit which draws these are.

    Raises:
        UsageError: fewer than two fits, or fits without a common site.

    Warns:
        DataWarning: the fits saw different data.
    """
    check_fits(fits)
    positive("num_draws", num_draws, 2)
    if len(fits) < 2:
        raise UsageError(f"fits: expected at least two to compare, found {len(fits)}.")
    which = {name: used(fit.posterior, weighted) for name, fit in fits.items()}
    moments = {name: _moments(fit, num_draws, seed, which[name].resampled) for name, fit in fits.items()}
    common = set.intersection(*(set(each) for each in moments.values()))
    if not common:
        raise UsageError("fits: they have no latent or deterministic element in common, so nothing can be compared.")
    labels = list(fits)
    rows = {}
    for element in [name for name in next(iter(moments.values())) if name in common]:
        means, sds, ses, relative = (np.array([moments[label][element][k] for label in labels]) for k in range(4))
        low, high, thin, wide = means.argmin(), means.argmax(), sds.argmin(), sds.argmax()
        scale = float(np.median(sds)) or float(sds.max())
        apart = 0.0 if same(means[high], means[low], relative.max()) else float(means[high] - means[low])
        rows[element] = {
            # What is constant in every fit, but not the same, is infinitely many sds apart.
            "mean_gap": apart / scale if scale else np.inf if apart else 0.0,
            "gap_se": float(np.hypot(ses[low], ses[high])) / scale if apart and scale else 0.0,
            "lowest": labels[low],
            "highest": labels[high],
            "sd_ratio": float(sds[wide] / sds[thin]) if sds[thin] > 0 else np.inf if sds[wide] > 0 else 1.0,
            "narrowest": labels[thin],
            "widest": labels[wide],
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index.name = "element"
    table = table.sort_values("mean_gap", ascending=False, kind="stable")
    table.attrs["draws"] = {name: str(each).replace("resampled", "weighted") for name, each in which.items()}
    return table


def _moments(fit: Fitted, num_draws: int, seed: int, weighted: bool) -> dict[str, tuple[float, float, float, float]]:
    """Mean, sd, the mean's standard error and the type's rounding of each element; sd and error of a constant are zero."""
    draws = fit.posterior.draws(num_draws, seed=seed)
    if weighted and draws.row_log_weights is not None:  # whose joint weights would all fall on one draw
        draws, weighted = answer(fit.posterior, num_draws, seed=seed, resample=True)[0], False
    columns: Columns = columns_of_sets([draws])
    shares = np.exp(importance(draws.log_weights).log_weights) if weighted else np.full(num_draws, 1 / num_draws)
    still, first = constant(columns.values, columns.rounding), columns.values[0]
    with np.errstate(invalid="ignore"):
        reference = np.where(np.isfinite(first), first, 0.0)  # sums of large numbers would lose what is between them
        x = np.where(still, 0.0, columns.values - reference)
        mean, _, var, mean_var = weighted_moments(x, shares)
        sd, se = np.sqrt(var), np.sqrt(mean_var)
        mean = np.where(still, first, reference + mean)
    return {name: (mean[i], sd[i], se[i], columns.rounding[i]) for i, name in enumerate(columns.names)}
