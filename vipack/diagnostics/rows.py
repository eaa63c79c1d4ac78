"""Weights that are a product over rows, as in a VAE: each row's are judged by themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vipack.diagnostics.bounds import ESS_ALONE, ESS_CORRECTED, ESS_FLAT, ROWS_LIMIT
from vipack.diagnostics.moments import Array
from vipack.diagnostics.report import Diagnosis, Verdict
from vipack.importance import KHAT_LIMIT, importance, mean_and_se
from vipack.posterior import Draws
from vipack.types import Estimate

__all__ = ["RowFigures", "judge_rows", "row_figures"]

_JUDGED = 200  # rows, which give the share of bad ones to within 3%


@dataclass(frozen=True)
class RowFigures:
    """Figures of a guide whose draws and weights factor over rows.

    Attributes:
        khat, ess_share: those that 95% of the rows are at least as good as.
        khats, ess_shares: of each row judged.
    """

    elbo: Estimate
    evidence: Estimate
    khat: float
    ess_share: float
    khats: Array
    ess_shares: Array


def row_figures(rows: Array) -> RowFigures:
    """Of log weights ``(S, N)``; the joint weights of N rows would all fall on one draw, whatever the guide."""
    step = max(1, rows.shape[1] // _JUDGED)
    each = [importance(rows[:, i]) for i in range(0, rows.shape[1], step)]
    khats = np.array([weights.khat for weights in each])
    shares = np.array([weights.ess_share for weights in each])
    # An infinite k-hat cannot be interpolated, so the quantile is one of the rows' own values.
    khat, share = float(np.quantile(khats, 0.95, method="higher")), float(np.quantile(shares, 0.05, method="lower"))
    return RowFigures(*_estimates(rows), khat, share, khats, shares)


def judge_rows(draws: Draws, richer: tuple[str, ...]) -> Diagnosis:
    """Every latent belongs to a row, as in a VAE: judge each row's own weights, since their product says nothing."""
    figures = row_figures(np.asarray(draws.row_log_weights))
    bad = float(np.mean((figures.khats >= KHAT_LIMIT) & (figures.ess_shares <= ESS_FLAT)))
    khat, share = figures.khat, figures.ess_share
    detail = f"judged row by row ({len(figures.khats)} rows; 95% are at least as good as the k-hat and ESS given)"
    advice: list[str] = []
    if share > ESS_FLAT or (khat < KHAT_LIMIT and share > ESS_ALONE):
        verdict, why = Verdict.TRUST, f"the importance weights are nearly even (ESS {share:.0%} of the draws)"
    elif (khat < KHAT_LIMIT or bad <= ROWS_LIMIT) and share > ESS_CORRECTED:
        verdict, advice = Verdict.CORRECTED, ["a richer guide, or more steps, if raw draws are needed"]
        why = f"the guide is off, but its weights can mend it (k-hat {khat:.2f}, ESS {share:.0%}): use draws resampled with the weights"
    else:
        verdict, advice = Verdict.DISTRUST, list(richer)
        said = f"k-hat {khat:.2f} is above {KHAT_LIMIT}" if khat >= KHAT_LIMIT else f"ESS is {share:.1%} of the draws"
        why = f"the guide is far from the posterior: {said}"
    count = len(draws.log_q)
    skipped = ("short chains and other modes: the rows of data have latents of their own, which their weights judge",)
    return Diagnosis(
        verdict,
        figures.elbo,
        figures.evidence,
        khat,
        share * count,
        count,
        (f"{why}; {detail}",),
        tuple(advice),
        (khat,),
        skipped=skipped,
    )


def _estimates(rows: Array) -> tuple[Estimate, Estimate]:
    """ELBO and log evidence of the product, in nats."""
    top = rows.max(0)
    weights = np.exp(rows - top)
    mean = weights.mean(0)
    se = weights.std(0, ddof=1) / mean / len(rows) ** 0.5
    return mean_and_se(rows.sum(1)), Estimate(float((top + np.log(mean)).sum()), float(np.sqrt((se**2).sum())))
