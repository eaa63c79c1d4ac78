"""A normal posterior known exactly, and guides that are off it by known amounts."""

import math

import pyro
import pyro.distributions as dist
import torch

import vipack as vi

DIM = 5
DATA = torch.tensor([0.5, -0.5, 1.0, 0.0, 2.0])
SD = math.sqrt(0.5)


def model(x):
    """z | x ~ Normal(x / 2, sqrt(1/2)) in each of five dimensions."""
    z = pyro.sample("z", dist.Normal(torch.zeros(DIM), 1.0).to_event(1))
    pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def off_by(shift=0.0, factor=1.0):
    """The posterior, its first mean moved by so many sds and its first sd multiplied."""
    first = torch.arange(DIM) == 0

    def guide(x):
        loc = x / 2 + torch.where(first, shift * SD, 0.0)
        pyro.sample("z", dist.Normal(loc, torch.where(first, SD * factor, SD)).to_event(1))

    return guide


def fit_of(shift=0.0, factor=1.0):
    return vi.fit(model, off_by(shift, factor), data=DATA, steps=0)


def divergence(shift=0.0, factor=1.0):
    """KL(q || p), in nats."""
    return (factor**2 + shift**2 - 1) / 2 - math.log(factor)
