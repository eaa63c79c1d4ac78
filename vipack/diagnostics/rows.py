"""Weights that are a product over rows, as in a VAE: each row's are judged by themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vipack.diagnostics.moments import Array
from vipack.importance import importance
from vipack.types import Estimate

__all__ = ["RowFigures", "row_figures"]

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


def _estimates(rows: Array) -> tuple[Estimate, Estimate]:
    """ELBO and log evidence of the product, in nats."""
    count = len(rows)
    bound = Estimate(float(rows.mean(0).sum()), float(rows.sum(1).std(ddof=1)) / count**0.5)
    top = rows.max(0)
    weights = np.exp(rows - top)
    mean = weights.mean(0)
    se = weights.std(0, ddof=1) / mean / count**0.5
    return bound, Estimate(float((top + np.log(mean)).sum()), float(np.sqrt((se**2).sum())))
