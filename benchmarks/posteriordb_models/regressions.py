"""Linear regressions on raw scales: coefficients of very different size, correlated up to .99, most with flat priors.

The columns of X are as the survey or the experiment gave them, or as one would rewrite them: centred, standardized, in
logarithms. A guide that starts near zero with unit scales has far to go. One table states all designs.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from scipy import stats
from torch import Tensor

from benchmarks.posteriordb_models.evidence import regression_evidence
from benchmarks.posteriordb_models.posterior import Posterior, column

__all__ = ["POSTERIORS", "flat_regression", "kidscore", "normal_regression", "trend"]


def flat_regression(X: Tensor, y: Tensor) -> None:
    """Flat priors throughout, on sigma's own scale too."""
    beta = pyro.sample("beta", dist.ImproperUniform(constraints.real, (), (X.shape[1],)))
    sigma = pyro.sample("sigma", dist.ImproperUniform(constraints.positive, (), ()))
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.Normal(X @ beta, sigma), obs=y)


def kidscore(X: Tensor, y: Tensor) -> None:
    beta = pyro.sample("beta", dist.ImproperUniform(constraints.real, (), (X.shape[1],)))
    sigma = pyro.sample("sigma", dist.HalfCauchy(2.5))
    with pyro.plate("child", len(y)):
        pyro.sample("kid_score", dist.Normal(X @ beta, sigma), obs=y)


def normal_regression(X: Tensor, y: Tensor) -> None:
    beta = pyro.sample("beta", dist.Normal(0.0, 10.0).expand([X.shape[1]]).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(10.0))
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.Normal(X @ beta, sigma), obs=y)


def trend(x: Tensor, y: Tensor, pmualpha: Tensor, psalpha: Tensor, pmubeta: Tensor, psbeta: Tensor) -> None:
    """A line over years, which start near 4,000: alpha and beta are correlated to within 1e-5 of -1."""
    alpha = pyro.sample("alpha", dist.Normal(pmualpha, psalpha))
    beta = pyro.sample("beta", dist.Normal(pmubeta, psbeta))
    sigma = pyro.sample("sigma", dist.ImproperUniform(constraints.positive, (), ()))
    with pyro.plate("year", len(y)):
        pyro.sample("y", dist.Normal(alpha + beta * x, sigma), obs=y)


# A column of a design: a name in the data file, or what makes one of the file's contents.
Column = str | Callable[[Mapping[str, Any]], Tensor]


def _values(file: Mapping[str, Any], term: Column) -> Tensor:
    return column(file[term]) if isinstance(term, str) else term(file)


def _design(outcome: Column, *terms: Column) -> Callable[[Mapping[str, Any]], dict[str, Tensor]]:
    """Reads the outcome, and X: a column of ones, then one of each term."""

    def read(file: Mapping[str, Any]) -> dict[str, Tensor]:
        y = _values(file, outcome)
        return {"X": torch.stack([torch.ones_like(y), *(_values(file, t) for t in terms)], dim=1), "y": y}

    return read


def _log(*names: str) -> Column:
    """The logarithm of the product of columns."""
    return lambda file: torch.stack([column(file[name]) for name in names]).log().sum(0)


def _log_ratio(above: str, below: str) -> Column:
    return lambda file: (column(file[above]) / column(file[below])).log()


def _level(name: str, level: int) -> Column:
    """One where a column has this level, else zero."""
    return lambda file: (column(file[name]) == level).double()


def _minus(term: Column, centre: float) -> Column:
    return lambda file: _values(file, term) - centre


def _centred(term: Column) -> Column:
    return lambda file: _values(file, term) - _values(file, term).mean()


def _standardized(term: Column, num_sds: int = 1) -> Column:
    """Centred, in units of so many sds."""
    return lambda file: _values(file, _centred(term)) / (num_sds * _values(file, term).std())


def _with_product(first: Column, second: Column) -> tuple[Column, Column, Column]:
    """Two columns and their interaction."""
    return first, second, lambda file: _values(file, first) * _values(file, second)


def _read_matrix(file: Mapping[str, Any]) -> dict[str, Tensor]:
    return {"X": column(file["X"]), "y": column(file["y"])}


def _read_trend(file: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: column(file[name]) for name in ("x", "y", "pmualpha", "psalpha", "pmubeta", "psbeta")}


def _flat_evidence(X: Tensor, y: Tensor) -> float:
    return regression_evidence(X, y, np.zeros_like)


def _kidscore_evidence(X: Tensor, y: Tensor) -> float:
    return regression_evidence(X, y, lambda sigma: stats.halfcauchy.logpdf(sigma, scale=2.5))


def _normal_evidence(X: Tensor, y: Tensor) -> float:
    return regression_evidence(X, y, lambda sigma: stats.halfnorm.logpdf(sigma, scale=10), scale=10.0)


def _trend_evidence(x: Tensor, y: Tensor, pmualpha: Tensor, psalpha: Tensor, pmubeta: Tensor, psbeta: Tensor) -> float:
    loc, scale = [float(pmualpha), float(pmubeta)], np.array([float(psalpha), float(psbeta)])
    return regression_evidence(torch.stack([torch.ones_like(x), x], dim=1), y, np.zeros_like, loc, scale)


_SCORE, _SCHOOL, _IQ = "kid_score", "mom_hs", "mom_iq"
_AREA, _VOLUME = _log("diam1", "diam2"), _log("diam1", "diam2", "canopy_height")
_SHAPE, _HEIGHT, _DENSITY = _log_ratio("diam1", "diam2"), _log("total_height"), _log("density")

_KIDS = {
    "kidiq-kidscore_momhs": _design(_SCORE, _SCHOOL),
    "kidiq-kidscore_momiq": _design(_SCORE, _IQ),
    "kidiq-kidscore_momhsiq": _design(_SCORE, _SCHOOL, _IQ),
    "kidiq-kidscore_interaction": _design(_SCORE, *_with_product(_SCHOOL, _IQ)),
}
_FLAT = {
    "kidiq_with_mom_work-kidscore_mom_work": _design(_SCORE, *(_level("mom_work", level) for level in (2, 3, 4))),
    "kidiq_with_mom_work-kidscore_interaction_c": _design(_SCORE, *_with_product(_centred(_SCHOOL), _centred(_IQ))),
    "kidiq_with_mom_work-kidscore_interaction_c2": _design(
        _SCORE, *_with_product(_minus(_SCHOOL, 0.5), _minus(_IQ, 100.0))
    ),
    "kidiq_with_mom_work-kidscore_interaction_z": _design(
        _SCORE, *_with_product(_standardized(_SCHOOL, 2), _standardized(_IQ, 2))
    ),
    "mesquite-logmesquite": _design(
        _log("weight"), _log("diam1"), _log("diam2"), _log("canopy_height"), _HEIGHT, _DENSITY, "group"
    ),
    "mesquite-logmesquite_logvolume": _design(_log("weight"), _VOLUME),
    "mesquite-logmesquite_logva": _design(_log("weight"), _VOLUME, _AREA, "group"),
    "mesquite-logmesquite_logvas": _design(_log("weight"), _VOLUME, _AREA, _SHAPE, _HEIGHT, _DENSITY, "group"),
    "mesquite-logmesquite_logvash": _design(_log("weight"), _VOLUME, _AREA, _SHAPE, _HEIGHT, "group"),
    "earnings-earn_height": _design("earn", "height"),
    "earnings-logearn_height": _design(_log("earn"), "height"),
    "earnings-log10earn_height": _design(lambda file: column(file["earn"]).log10(), "height"),
    "earnings-logearn_height_male": _design(_log("earn"), "height", "male"),
    "earnings-logearn_logheight_male": _design(_log("earn"), _log("height"), "male"),
    "earnings-logearn_interaction_z": _design(_log("earn"), *_with_product(_standardized("height"), "male")),
}
_VOTERS = _design(
    "partyid7",
    "real_ideo",
    "race_adj",
    *(_level("age_discrete", level) for level in (2, 3, 4)),
    "educ1",
    "gender",
    "income",
)

POSTERIORS = [
    *(Posterior(name, kidscore, read, evidence=_kidscore_evidence) for name, read in _KIDS.items()),
    *(Posterior(name, flat_regression, read, evidence=_flat_evidence) for name, read in _FLAT.items()),
    *(Posterior(f"nes{year}-nes", flat_regression, _VOTERS, evidence=_flat_evidence) for year in range(1972, 2004, 4)),
    Posterior("sblri-blr", normal_regression, _read_matrix, evidence=_normal_evidence),
    Posterior("kilpisjarvi_mod-kilpisjarvi", trend, _read_trend, evidence=_trend_evidence),
]
