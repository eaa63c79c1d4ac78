"""A Gaussian process with a squared-exponential kernel; the function itself is summed out."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from benchmarks.posteriordb_models.posterior import Posterior, column

__all__ = ["POSTERIORS", "regression"]


def regression(x: Tensor, y: Tensor) -> None:
    rho = pyro.sample("rho", dist.Gamma(25.0, 4.0))
    alpha = pyro.sample("alpha", dist.HalfNormal(2.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    kernel = alpha**2 * torch.exp(-0.5 * ((x[:, None] - x) / rho) ** 2)
    # sigma stands for the noise's variance here, as it does in the Stan program.
    cov = kernel + sigma * torch.eye(len(x))
    pyro.sample("y", dist.MultivariateNormal(torch.zeros(len(x)), cov), obs=y)


def _read(file):
    return {"x": column(file["x"]), "y": column(file["y"])}


POSTERIORS = [Posterior("gp_pois_regr-gp_regr", regression, _read)]
