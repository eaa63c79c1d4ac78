"""Programs whose pages the tests look at."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn


def schools(y, sigma):
    """Eight schools, <b>non-centred</b> & escaped."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * z)
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)


def crossed(y):
    """Two plates that cross."""
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    rows, columns = pyro.plate("rows", 3, dim=-2), pyro.plate("columns", 4, dim=-1)
    with rows:
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
    with columns:
        b = pyro.sample("b", dist.Normal(0.0, scale))
    with rows, columns:
        pyro.sample("y", dist.Normal(a + b, 1.0), obs=y)


class Autoencoder(nn.Module):
    """A small VAE of 16 pixels, written by hand."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(16, 4), nn.Linear(2, 16)

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("rows", len(x)):
            loc, log_scale = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))
