"""A straight line with a guide of two parameters, on which optimizers are compared."""

import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints

X = torch.linspace(-1.0, 1.0, 12)
Y = 3 * X + 1


def model(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(w[0] * x + w[1], 0.5), obs=y)


def guide(x, y):
    loc = pyro.param("loc", torch.tensor([0.5, -0.5]))
    scale = pyro.param("scale", torch.ones(2), constraint=constraints.positive)
    pyro.sample("w", dist.Normal(loc, scale).to_event(1))
