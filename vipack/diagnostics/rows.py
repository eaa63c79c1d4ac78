"""Weights that are a product over rows, as in a VAE: each row's are judged by themselves."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from vipack.diagnostics.bounds import ESS_ALONE, ESS_CORRECTED, ESS_FLAT, ROWS_LIMIT
from vipack.diagnostics.moments import Array
from vipack.diagnostics.report import Diagnosis, Verdict
from vipack.diagnostics.symmetries import Copies
from vipack.importance import KHAT_LIMIT, importance, mean_and_se
from vipack.posterior import Draws
from vipack.types import Estimate

__all__ = ["JUDGED", "RowFigures", "Weights", "judge_rows", "row_figures", "row_sampling_se"]

JUDGED = 200  # rows, which give the share of bad ones to within 3%


@dataclass(frozen=True)
class Weights:
    """Log weights in nats of the draws behind a verdict.

    Attributes:
        totals: of all data, draw by draw, set after set.
        row_means: the mean of each row that was looked at, where these are some of `num_rows`.
    """

    totals: Array
    row_means: Array | None = None
    num_rows: int = 0

    @classmethod
    def of_rows(cls, draws: Draws, num_rows: int | None) -> Weights:
        """Those of draws of some rows, which stand for `num_rows` of them; None: they are all there are."""
        totals = draws.log_weights.cpu().numpy()
        if num_rows is None:
            return cls(totals)
        rows = np.asarray(draws.row_log_weights)
        return cls(totals * num_rows / rows.shape[1], rows.mean(0), num_rows)

    def of_copies(self, copies: Copies | None) -> Weights:
        """Those of a mixture of all copies of a guide that holds one of several equal modes."""
        return self if copies is None else dataclasses.replace(self, totals=self.totals + copies.log_count)


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


def row_figures(rows: Array, num_rows: int | None = None) -> RowFigures:
    """Of log weights ``(S, N)``; the joint weights of N rows would all fall on one draw, whatever the guide.

    Args:
        num_rows: how many rows those at hand stand for; as many as they are by default.
    """
    step = max(1, rows.shape[1] // JUDGED)
    each = [importance(rows[:, i]) for i in range(0, rows.shape[1], step)]
    khats = np.array([weights.khat for weights in each])
    shares = np.array([weights.ess_share for weights in each])
    # An infinite k-hat cannot be interpolated, so the quantile is one of the rows' own values.
    khat, share = float(np.quantile(khats, 0.95, method="higher")), float(np.quantile(shares, 0.05, method="lower"))
    return RowFigures(*_estimates(rows, num_rows or rows.shape[1]), khat, share, khats, shares)


def judge_rows(draws: Draws, richer: tuple[str, ...], num_rows: int | None = None) -> Diagnosis:
    """Every latent belongs to a row, as in a VAE: judge each row's own weights, since their product says nothing.

    Args:
        num_rows: how many rows those of the draws stand for.
    """
    figures = row_figures(np.asarray(draws.row_log_weights), num_rows)
    bad = float(np.mean((figures.khats >= KHAT_LIMIT) & (figures.ess_shares <= ESS_FLAT)))
    khat, share = figures.khat, figures.ess_share
    detail = f"judged row by row ({len(figures.khats)}{_of(num_rows)} rows; 95% are at least as good as the k-hat and ESS given)"
    advice: list[str] = []
    if share > ESS_FLAT or (khat < KHAT_LIMIT and share > ESS_ALONE):
        verdict, why = Verdict.TRUST, f"the importance weights are nearly even (ESS {share:.0%} of the draws)"
    elif (khat < KHAT_LIMIT or bad <= ROWS_LIMIT) and share > ESS_CORRECTED:
        verdict, advice = Verdict.CORRECTED, ["a richer guide, or more steps, if raw draws are needed"]
        why = f"the guide is off, but its weights can correct it (k-hat {khat:.2f}, ESS {share:.0%}): use draws resampled with the weights"
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


def row_sampling_se(means: Array, num_rows: int) -> float:
    """The standard error of a total over `num_rows` rows from the values ``(n,)`` of some, by which ones they are."""
    count = len(means)
    if count >= num_rows or count < 2:
        return 0.0
    return float(num_rows * means.std(ddof=1) * math.sqrt((1 - count / num_rows) / count))


def _of(num_rows: int | None) -> str:
    return "" if num_rows is None else f" of {num_rows:,}"


def _estimates(rows: Array, num_rows: int) -> tuple[Estimate, Estimate]:
    """ELBO and log evidence of the product, in nats."""
    factor = num_rows / rows.shape[1]
    top = rows.max(0)
    weights = np.exp(rows - top)
    mean = weights.mean(0)
    se = weights.std(0, ddof=1) / mean / len(rows) ** 0.5
    evidence = top + np.log(mean)
    elbo = mean_and_se(rows.sum(1))
    return (
        Estimate(factor * elbo.value, math.hypot(factor * elbo.se, row_sampling_se(rows.mean(0), num_rows))),
        Estimate(
            factor * float(evidence.sum()),
            math.hypot(factor * float(np.sqrt((se**2).sum())), row_sampling_se(evidence, num_rows)),
        ),
    )
