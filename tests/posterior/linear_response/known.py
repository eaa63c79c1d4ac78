"""Models whose mean-field optimum and posterior covariance are known, with guides that stand at the optimum."""

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints

import vipack as vi

PRIOR = torch.tensor([[1.0, 0.9, 0.3], [0.9, 2.0, 0.2], [0.3, 0.2, 0.5]], dtype=torch.float64)
X = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
PRECISION = PRIOR.inverse() + torch.eye(3, dtype=torch.float64)
COVARIANCE = PRECISION.inverse()
MEAN = COVARIANCE @ X


def gaussian(x):
    z = pyro.sample("z", dist.MultivariateNormal(torch.zeros(3, dtype=x.dtype), PRIOR.to(x.dtype)))
    pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def normals(x):
    """The mean-field optimum of a Gaussian: its mean, and the precision's diagonal."""
    loc = pyro.param("loc", MEAN.to(x.dtype))
    scale = pyro.param("scale", PRECISION.diagonal().rsqrt().to(x.dtype), constraint=constraints.positive)
    pyro.sample("z", dist.Normal(loc, scale).to_event(1))


def gaussian_fit(dtype=torch.float64, model=gaussian, guide=normals, **options):
    return vi.fit(model, guide, data=X.to(dtype), steps=0, progress=False, **options)
