"""A hierarchical model of eight effects, written twice: centred, whose posterior is a funnel, and non-centred."""

import pyro
import pyro.distributions as dist
from torch import Tensor

from benchmarks.posteriordb_models.evidence import eight_schools_evidence
from benchmarks.posteriordb_models.posterior import Posterior, column

__all__ = ["POSTERIORS", "centered", "noncentered"]


def centered(y: Tensor, sigma: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)


def noncentered(y: Tensor, sigma: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(y)):
        theta_trans = pyro.sample("theta_trans", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * theta_trans)
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)


def _read(file):
    return {"y": column(file["y"]), "sigma": column(file["sigma"])}


def _standardised(stan):
    mu, tau = stan["mu"], stan["tau"]
    return {"mu": mu, "tau": tau, "theta_trans": (stan["theta"] - mu[..., None]) / tau[..., None]}


POSTERIORS = [
    Posterior("eight_schools-eight_schools_centered", centered, _read, evidence=eight_schools_evidence),
    Posterior(
        "eight_schools-eight_schools_noncentered", noncentered, _read, _standardised, evidence=eight_schools_evidence
    ),
]
