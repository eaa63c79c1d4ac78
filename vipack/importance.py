"""Pareto-smoothed importance sampling of a guide's draws: k-hat, effective sample size, smoothed weights.

NumPy alone, so that it runs beside ArviZ 1.x where there is no torch.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vipack.display import Readable
from vipack.hints import checked
from vipack.types import Estimate

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["KHAT_LIMIT", "Importance", "importance", "khat_of_mean", "logsumexp", "mean_and_se"]

KHAT_LIMIT = 0.7

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class Importance(Readable):
    """Pareto-smoothed importance weights of S draws.

    Attributes:
        khat: shape of the generalised Pareto fitted to the largest weights. Below 0.7 the weights' mean settles; above
            it the guide's tails are too thin for them. Constant weights give 0.
        ess: effective sample size ``1 / sum(w**2)`` of the smoothed, normalised weights; at most S.
        log_weights: smoothed and normalised, ``(S,)``; their exponentials sum to one. Where k-hat is 0.7 or more, which
            smoothing does not tame, those above ``S**0.5`` times their mean are cut there (Ionides 2008) unless ``cut=False``.
        evidence: log of the smoothed weights' mean, which estimates log p(x), in nats; its standard error by the delta
            method is itself unreliable where k-hat is above 0.7.

    Source: Vehtari, Simpson, Gelman, Yao, Gabry (2024), JMLR 25(72); Yao et al. (2018), arXiv:1802.02538; Ionides (2008),
    Truncated importance sampling, Journal of Computational and Graphical Statistics 17(2).
    """

    khat: float
    ess: float
    log_weights: Array
    evidence: Estimate

    def __str__(self) -> str:
        return f"k-hat {self.khat:.2f}   ESS {self.ess:.0f} of {len(self.log_weights)} draws   log evidence {self.evidence}"

    @property
    def ess_share(self) -> float:
        """``ess / S``."""
        return self.ess / len(self.log_weights)


@checked
def importance(log_weights: Tensor | Array, *, cut: bool = True) -> Importance:
    """Smooth the log importance ratios ``log p(x, z) - log q(z)`` ``(S,)``.

    A k-hat from fewer than about 100 draws says little.

    Args:
        cut: False leaves weights as smoothing made them whatever their k-hat, which is plain PSIS.
    """
    array = log_weights.detach().cpu().numpy() if hasattr(log_weights, "detach") else log_weights
    raw = np.asarray(array, dtype=np.float64)
    count = len(raw)
    usable = np.isfinite(raw)
    if not usable.any():
        return Importance(float("inf"), 0.0, np.full(count, -np.log(count)), Estimate(-np.inf, np.nan))
    filled = np.where(np.isnan(raw), -np.inf, raw)
    filled = np.maximum(filled, filled[usable].min() - 100.0)  # a weight of zero, which the tail fit could not take
    if np.ptp(filled) < 1e-9:
        se = 0.0 if count > 1 else np.nan
        return Importance(0.0, float(count), np.full(count, -np.log(count)), Estimate(float(filled.mean()), se))
    smoothed, khat = _psis(filled)
    smoothed = smoothed - logsumexp(smoothed)
    if cut and khat >= KHAT_LIMIT:
        smoothed = np.minimum(smoothed, -0.5 * np.log(count))
        smoothed = smoothed - logsumexp(smoothed)
    ess = float(np.exp(-logsumexp(2 * smoothed)))
    return Importance(float(khat), ess, smoothed, _evidence(filled, smoothed, ess))


def khat_of_mean(values: Array) -> float:
    """k-hat of the heavier tail of draws ``(S,)``: above 0.7 a few rare draws decide their mean, and its standard error
    from draws that hold none of them is far too small. Constant draws give 0.

    Source: Vehtari, Simpson, Gelman, Yao, Gabry (2024), JMLR 25(72), whose k-hat serves any Monte Carlo estimate.
    """
    if not np.isfinite(values).all():
        return float("inf")
    if np.ptp(values) == 0:
        return 0.0
    with np.errstate(divide="ignore"):  # the lowest draw is a weight of zero
        return max(importance(np.log(tail - tail.min())).khat for tail in (values, -values))


def mean_and_se(values: Tensor | Array) -> Estimate:
    """The mean of independent values ``(S,)`` and its standard error, which is NaN for a single one."""
    count = len(values)
    if count < 2:
        return Estimate(float(values.mean()), math.nan)
    sd = values.std(ddof=1) if isinstance(values, np.ndarray) else values.std()
    return Estimate(float(values.mean()), float(sd) / math.sqrt(count))


def _evidence(raw: Array, smoothed: Array, ess: float) -> Estimate:
    """Smoothing changes the largest weights alone, so that any of the others tells what all were divided by."""
    count = len(raw)
    total = float(np.median((raw - smoothed)[raw <= np.median(raw)]))
    return Estimate(total - np.log(count), float(np.sqrt(max(0.0, 1 / ess - 1 / count) * count / (count - 1))))


def _psis(log_weights: Array) -> tuple[Array, float]:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)  # ArviZ 0.23 announces 1.x at import
            from arviz import psislw
    except ImportError:
        return _psis_of_1x(log_weights)
    with np.errstate(over="ignore"):  # of weights too heavy for a tail, whose k-hat is large all the same
        smoothed, khat = psislw(log_weights.copy())
    return np.asarray(smoothed, dtype=np.float64), float(np.asarray(khat))


def _psis_of_1x(log_weights: Array) -> tuple[Array, float]:
    """ArviZ 1.x keeps its numeric core apart. It rounds the tail's length down where 0.x rounds up: k-hat moves by .02."""
    from arviz_stats.base import array_stats

    count = len(log_weights)
    tail = np.sort(log_weights)[-max(1, int(min(count / 5, 3 * count**0.5))) :]
    if len(tail) < 5 or np.ptp(tail) == 0:
        return log_weights, float("inf")  # as in 0.x; 1.x raises
    smoothed, khat = array_stats.psislw(-log_weights)  # it takes log likelihoods, whose importance weights are 1 / p
    return np.asarray(smoothed, dtype=np.float64), float(np.asarray(khat))


def logsumexp(values: Array) -> float:
    """log of the sum of exponentials of ``(S,)``, without overflow."""
    top = values.max()
    return float(top + np.log(np.exp(values - top).sum()))
