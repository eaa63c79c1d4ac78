"""The exact means, sds, tail quantiles and evidence of posteriors, from the marginals of their elements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize

from benchmarks.estimates import NO_EVIDENCE, Reference
from vipack.types import Estimate

__all__ = ["LEVELS", "Marginal", "truth"]

LEVELS = (0.05, 0.95)


@dataclass(frozen=True)
class Marginal:
    """Of one element: mean, sd and quantiles at :data:`LEVELS`."""

    mean: float
    sd: float
    quantiles: tuple[float, float]

    @classmethod
    def of(cls, distribution: Any) -> list[Marginal]:
        """Those of a frozen distribution of SciPy's, which may be of several elements."""
        mean, sd = np.atleast_1d(distribution.mean()), np.atleast_1d(distribution.std())
        low, high = (np.broadcast_to(distribution.ppf(level), mean.shape) for level in LEVELS)
        return [cls(float(m), float(s), (float(a), float(b))) for m, s, a, b in zip(mean, sd, low, high, strict=True)]

    @classmethod
    def by_cdf(
        cls, mean: float, sd: float, cdf: Callable[[float], float], support: tuple[float, float] = (-np.inf, np.inf)
    ) -> Marginal:
        """Where quantiles are those of a function that rises from 0 to 1."""
        low, high = max(support[0], mean - 60 * sd), min(support[1], mean + 60 * sd)
        found = [
            float(optimize.brentq(lambda x, level=level: cdf(x) - level, low, high, xtol=1e-10)) for level in LEVELS
        ]
        return cls(float(mean), float(sd), (found[0], found[1]))

    @classmethod
    def on_grid(cls, values: np.ndarray, share: np.ndarray) -> Marginal:
        """Of a fine grid ``(N,)``, evenly spaced or not, by each point's share of the mass."""
        mean = float(share @ values)
        cumulated = share.cumsum() - 0.5 * share
        low, high = np.interp(LEVELS, cumulated, values)
        return cls(mean, float(np.sqrt(share @ (values - mean) ** 2)), (float(low), float(high)))


def truth(log_evidence: float | None = None, **sites: Marginal | Sequence[Marginal]) -> Reference:
    """By site; those of a vector are a sequence.

    Args:
        log_evidence: in nats; None where it is not known.
    """
    names: list[str] = []
    marginals: list[Marginal] = []
    for site, each in sites.items():
        if isinstance(each, Marginal):
            names.append(site)
            marginals.append(each)
        else:
            names += [f"{site}[{i + 1}]" for i in range(len(each))]
            marginals += each
    quantiles = {level: np.array([m.quantiles[i] for m in marginals]) for i, level in enumerate(LEVELS)}
    evidence = NO_EVIDENCE if log_evidence is None else Estimate(float(log_evidence), 0.0)
    return Reference(
        tuple(names), np.array([m.mean for m in marginals]), np.array([m.sd for m in marginals]), quantiles, evidence
    )
