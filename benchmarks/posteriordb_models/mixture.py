"""Two normals of unknown place, width and share; keeping the means in order tells which is which."""

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from benchmarks.posteriordb_models.posterior import Posterior, column

__all__ = ["POSTERIORS", "two_normals"]


def two_normals(y: Tensor) -> None:
    mu = pyro.sample("mu", dist.ImproperUniform(constraints.ordered_vector, (), (2,)))
    pyro.factor("mu_prior", dist.Normal(0.0, 2.0).log_prob(mu).sum())
    sigma = pyro.sample("sigma", dist.HalfNormal(2.0).expand([2]).to_event(1))
    theta = pyro.sample("theta", dist.Beta(5.0, 5.0))
    share = dist.Categorical(torch.stack([theta, 1 - theta]))
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.MixtureSameFamily(share, dist.Normal(mu, sigma)), obs=y)


def _read(file):
    return {"y": column(file["y"])}


POSTERIORS = [Posterior("low_dim_gauss_mix-low_dim_gauss_mix", two_normals, _read)]
