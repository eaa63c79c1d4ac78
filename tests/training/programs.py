"""Small programs of many kinds, for tests that run one fit in two ways and want the same bits."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoIAFNormal, AutoMultivariateNormal, AutoNormal
from torch import nn
from torch.distributions import constraints
from torch.utils.data import DataLoader, TensorDataset

X = torch.randn(30, generator=torch.Generator().manual_seed(0)) + 2.0
TABLE = torch.randn(30, 4, generator=torch.Generator().manual_seed(1))
COUNTS = torch.arange(24.0).remainder(5)

SHARED_ADAM = pyro.optim.Adam({"lr": 0.05, "betas": (0.8, 0.9)})
SHARED_SCHEDULE = pyro.optim.ExponentialLR({"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.05}, "gamma": 0.9})
SHARED_ELBO = TraceMeanField_ELBO(num_particles=2)
SHARED_ENUM = TraceEnum_ELBO()


def normal(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(5.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu, sigma), obs=x)


def guide_from(start: float) -> Callable[..., Any]:
    """Guides whose parameters have the same names and different first values."""

    def guide(x):
        loc = pyro.param("loc", torch.tensor(start))
        scale = pyro.param("scale", torch.tensor(0.5 + start), constraint=constraints.positive)
        pyro.sample("mu", dist.Normal(loc, scale))
        pyro.sample("sigma", dist.LogNormal(pyro.param("log_sigma", torch.tensor(0.0)), 0.2))

    return guide


def local(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)


def mixture(x):
    weight = pyro.sample("weight", dist.Beta(1.0, 1.0))
    locs = pyro.sample("locs", dist.Normal(torch.tensor([0.0, 4.0]), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(weight), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(locs[..., 0] + z * (locs[..., 1] - locs[..., 0]), 1.0), obs=x)


def jittered(x):
    """Draws from NumPy's and Python's generators, which a run must keep too."""
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    noise = np.random.normal() * 0.01 + random.gauss(0.0, 0.01)  # noqa: NPY002
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu + noise, 1.0), obs=x)


class Decoder(nn.Module):
    """With dropout and batch normalisation: random numbers and buffers of its own."""

    def __init__(self) -> None:
        super().__init__()
        layers = (nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, 4))
        self.layers = nn.Sequential(*layers)

    def forward(self, z):
        return self.layers(z)


class VAE:
    """A model and an amortised guide around a decoder that may be another VAE's too."""

    def __init__(self, decoder: nn.Module) -> None:
        self.decoder = decoder
        self.encoder = nn.Linear(4, 4)

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 0.5).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            loc, log_scale = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


with torch.random.fork_rng(devices=[]):
    torch.manual_seed(3)
    _decoder = Decoder()
    VAES = VAE(_decoder), VAE(_decoder)


def momentum(params):
    optimizer = torch.optim.SGD(params, lr=1e-3, momentum=0.9)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)


# name -> arguments of vi.fit but for steps and seed
RECIPES: dict[str, dict[str, Any]] = {
    "AutoNormal": {"model": normal, "guide": AutoNormal, "data": X},
    "full rank": {"model": normal, "guide": AutoMultivariateNormal, "data": X, "optim": SHARED_ADAM},
    "flow": {"model": normal, "guide": functools.partial(AutoIAFNormal, hidden_dim=[8]), "data": X},
    "by hand from 0": {"model": normal, "guide": guide_from(0.0), "data": X, "optim": SHARED_ADAM},
    "by hand from 1": {"model": normal, "guide": guide_from(1.0), "data": X, "optim": SHARED_SCHEDULE},
    "shared loss": {"model": normal, "guide": AutoNormal, "data": X, "loss": SHARED_ELBO, "optim": SHARED_SCHEDULE},
    "minibatches": {"model": normal, "guide": AutoNormal, "data": X, "batch_size": 8, "loss": SHARED_ELBO},
    "Dataset": {"model": normal, "guide": AutoNormal, "data": TensorDataset(X), "batch_size": 7},
    "DataLoader": {
        "model": normal,
        "guide": AutoNormal,
        "data": DataLoader(TensorDataset(X), batch_size=8, shuffle=True),
        "optim": momentum,
    },
    "local latents": {"model": local, "guide": AutoNormal, "data": X, "batch_size": 8},
    "mixture": {"model": mixture, "guide": AutoNormal, "data": X, "loss": SHARED_ENUM},
    "mixture in batches": {"model": mixture, "guide": AutoNormal, "data": X, "loss": SHARED_ENUM, "batch_size": 10},
    "NumPy's noise": {"model": jittered, "guide": AutoNormal, "data": X, "loss": Trace_ELBO(num_particles=2)},
    "float64": {"model": normal, "guide": AutoNormal, "data": X, "dtype": torch.float64, "optim": SHARED_ADAM},
    "VAE": {"model": VAES[0].model, "guide": VAES[0].guide, "data": TABLE, "optim": SHARED_ADAM},
    "VAE in batches": {"model": VAES[0].model, "guide": VAES[0].guide, "data": TABLE, "batch_size": 10},
    "VAE of the same decoder": {"model": VAES[1].model, "guide": VAES[1].guide, "data": TABLE, "batch_size": 10},
}
