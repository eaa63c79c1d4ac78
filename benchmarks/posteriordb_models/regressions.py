"""Linear regressions on raw scales: coefficients of very different size, correlated up to .99, with flat priors.

The columns of X are as the survey or the experiment gave them, neither centred nor scaled: a guide that starts near zero
with unit scales has far to go.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from benchmarks.posteriordb_models.posterior import Posterior, column

__all__ = ["POSTERIORS", "flat_regression", "kidscore"]


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


def _read_kidiq(file):
    high_school, iq = column(file["mom_hs"]), column(file["mom_iq"])
    return {"X": _design(high_school, iq, high_school * iq), "y": column(file["kid_score"])}


def _read_mesquite(file):
    sizes = ["diam1", "diam2", "canopy_height", "total_height", "density"]
    logs = [column(file[name]).log() for name in sizes]
    return {"X": _design(*logs, column(file["group"])), "y": column(file["weight"]).log()}


def _read_earnings(file):
    return {"X": _design(column(file["height"])), "y": column(file["earn"])}


def _read_nes(file):
    age = column(file["age_discrete"])
    groups = [(age == group).double() for group in (2, 3, 4)]
    before, after = ["real_ideo", "race_adj"], ["educ1", "gender", "income"]
    columns = [column(file[n]) for n in before] + groups + [column(file[n]) for n in after]
    return {"X": _design(*columns), "y": column(file["partyid7"])}


def _design(*columns: Tensor) -> Tensor:
    return torch.stack([torch.ones_like(columns[0]), *columns], dim=1)


POSTERIORS = [
    Posterior("kidiq-kidscore_interaction", kidscore, _read_kidiq),
    Posterior("mesquite-logmesquite", flat_regression, _read_mesquite),
    Posterior("earnings-earn_height", flat_regression, _read_earnings),
    Posterior("nes1980-nes", flat_regression, _read_nes),
]
