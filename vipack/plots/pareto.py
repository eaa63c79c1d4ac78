"""The generalised Pareto tail of importance weights, with the scale that a drawing of it needs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Tail", "fit_tail"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Tail:
    """The largest weights, fitted: ``P(w > cutoff + x) = share * (1 + khat x / scale)^(-1 / khat)``.

    Attributes:
        share: of the draws that lie beyond `cutoff`.
    """

    khat: float
    scale: float
    cutoff: float
    share: float

    def survival(self, weights: Array, khat: float | None = None) -> Array:
        """Share of draws beyond `weights` (at least `cutoff`), with another shape if `khat` is given."""
        k = self.khat if khat is None else khat
        x = (weights - self.cutoff) / self.scale
        if abs(k) < 1e-9:
            return self.share * np.exp(-x)
        return self.share * np.maximum(1 + k * x, 0.0) ** (-1 / k)


def fit_tail(weights: Array) -> Tail | None:
    """Fit the largest of S weights; None where there are too few or they do not differ.

    The same k-hat as ArviZ 0.x, whose public functions do not give the scale. The tail is the largest
    min(S / 5, 3 sqrt(S)) weights (Vehtari, Simpson, Gelman, Yao, Gabry 2024, JMLR 25(72), section 2.4); the fit is that
    of Zhang and Stephens (2009), Technometrics 51(3), with the paper's weak prior that draws k-hat towards 0.5.
    """
    ordered = np.sort(weights)
    count = math.ceil(min(len(weights) / 5, 3 * math.sqrt(len(weights))))
    if count + 1 > len(weights):
        return None
    cutoff = float(ordered[-count - 1])
    excess = ordered[ordered > cutoff] - cutoff
    if len(excess) <= 4 or excess[0] == excess[-1]:
        return None
    k, scale = _zhang_stephens(excess)
    return Tail(k, scale, cutoff, len(excess) / len(weights)) if np.isfinite(k) and scale > 0 else None


def _zhang_stephens(excess: Array) -> tuple[float, float]:
    n = len(excess)
    size = 30 + int(math.sqrt(n))
    b = 1 - np.sqrt(size / (np.arange(1, size + 1) - 0.5))
    b = b / (3 * excess[int(n / 4 + 0.5) - 1]) + 1 / excess[-1]
    k = np.log1p(-b[:, None] * excess).mean(1)
    log_likelihood = n * (np.log(-b / k) - k - 1)
    weights = np.exp(log_likelihood - log_likelihood.max())
    weights /= weights.sum()
    weights = np.where(weights >= 10 * np.finfo(float).eps, weights, 0.0)
    mean_b = float((b * weights).sum() / weights.sum())
    shape = float(np.log1p(-mean_b * excess).mean())
    return (n * shape + 10 * 0.5) / (n + 10), -shape / mean_b
