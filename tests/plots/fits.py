"""Small fits to draw; a few steps each, since no test asks whether they converged."""

import functools

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoDelta, AutoNormal

import vipack as vi


@functools.cache
def glm() -> vi.Fit:
    """A vector, a deterministic site, and observations of three kinds."""
    pyro.set_rng_seed(0)
    x = torch.randn(40, 3)

    def model(x, size, count, label):
        w = pyro.sample("w", dist.Normal(0, 1).expand([3]).to_event(1))
        scale = pyro.sample("scale", dist.HalfNormal(1.0))
        with pyro.plate("row", len(x)):
            rate = pyro.deterministic("rate", (x @ w).exp())
            pyro.sample("size", dist.Normal(x @ w, scale), obs=size)
            pyro.sample("count", dist.Poisson(rate), obs=count)
            pyro.sample("label", dist.Bernoulli(logits=x @ w), obs=label)

    data = (x, x[:, 0] + torch.randn(40), torch.arange(40.0) % 4, (torch.arange(40) % 2).float())
    return fit(model, data)


@functools.cache
def masked() -> vi.Fit:
    """Six values of which the last two are placeholders."""

    def model(y):
        mu = pyro.sample("mu", dist.Normal(0, 1))
        with pyro.plate("row", len(y)), pyro.poutine.mask(mask=torch.arange(6) < 4):
            pyro.sample("y", dist.Normal(mu, 1), obs=y)

    return fit(model, torch.tensor([1.0, 2.0, 3.0, 4.0, 999.0, 999.0]))


@functools.cache
def rows() -> vi.Fit:
    """Every latent belongs to a row, as in a VAE."""

    def model(x):
        with pyro.plate("row", len(x)):
            z = pyro.sample("z", dist.Normal(0, 1))
            pyro.sample("x", dist.Normal(z, 1), obs=x)

    return fit(model, torch.linspace(-2, 2, 9))


@functools.cache
def point() -> vi.Fit:
    def model(y):
        mu = pyro.sample("mu", dist.Normal(0, 1))
        with pyro.plate("row", len(y)):
            pyro.sample("y", dist.Normal(mu, 1), obs=y)

    return fit(model, torch.tensor([1.0, 2.0]), AutoDelta)


def fit(model, data, guide=AutoNormal) -> vi.Fit:
    return vi.fit(model, guide, data=data, steps=30, progress=False)
