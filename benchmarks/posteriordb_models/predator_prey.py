"""Hares and lynxes: a differential equation solved inside the model, observed with multiplicative noise."""

import math

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from benchmarks.posteriordb_models.posterior import Posterior, column

__all__ = ["POSTERIORS", "lotka_volterra", "solve"]

SUBSTEPS = 20  # a year; RK4 then agrees with an adaptive solver far below the data's noise


def lotka_volterra(y_init: Tensor, y: Tensor) -> None:
    """`y_init` ``(2,)`` and `y` ``(T, 2)``: counts of prey and predator, a year apart."""
    theta = pyro.sample("theta", dist.ImproperUniform(constraints.positive, (), (4,)))
    centre, spread = torch.tensor([1.0, 0.05, 1.0, 0.05]), torch.tensor([0.5, 0.05, 0.5, 0.05])
    pyro.factor("theta_prior", dist.Normal(centre, spread).log_prob(theta).sum())
    z_init = pyro.sample("z_init", dist.LogNormal(math.log(10.0), 1.0).expand([2]).to_event(1))
    sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 1.0).expand([2]).to_event(1))
    log_z = solve(theta, z_init.log(), len(y))
    with pyro.plate("species", 2, dim=-1):
        pyro.sample("y_init", dist.LogNormal(z_init.log(), sigma), obs=y_init)
        with pyro.plate("year", len(y), dim=-2):
            pyro.sample("y", dist.LogNormal(log_z, sigma), obs=y)


def solve(theta: Tensor, log_z: Tensor, years: int, substeps: int = SUBSTEPS) -> Tensor:
    """Log counts ``(years, 2)`` after each year, by Runge-Kutta of order four on the log scale.

    ``du/dt = (theta1 - theta2 v) u`` and ``dv/dt = (-theta3 + theta4 u) v`` are, on that scale, a rate for each species
    plus an effect of the other one's count; and no count can turn negative on the way.
    """
    rate = torch.stack([theta[0], -theta[2]])
    effect = torch.stack([-theta[1], theta[3]])

    def slope(log_z: Tensor) -> Tensor:
        return rate + effect * log_z.exp().flip(-1)

    step = 1 / substeps
    found = []
    for _ in range(years):
        for _ in range(substeps):
            first = slope(log_z)
            second = slope(log_z + step / 2 * first)
            third = slope(log_z + step / 2 * second)
            fourth = slope(log_z + step * third)
            log_z = log_z + step / 6 * (first + 2 * second + 2 * third + fourth)
        found.append(log_z)
    return torch.stack(found)


def _read(file):
    years = list(range(1, len(file["ts"]) + 1))
    if list(file["ts"]) != years:
        raise ValueError(f"ts: expected the years {years[0]} to {years[-1]} one by one, found {file['ts']}.")
    return {"y_init": column(file["y_init"]), "y": column(file["y"])}


POSTERIORS = [Posterior("hudson_lynx_hare-lotka_volterra", lotka_volterra, _read)]
