"""Programs around neural networks: amortised guides, layers with buffers, Bayesian weights."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import nn
from torch.distributions import constraints


class Autoencoder:
    """The parts as plain modules that ``pyro.module`` registers."""

    def __init__(self, *inside: nn.Module) -> None:
        self.encoder = nn.Sequential(nn.Linear(12, 8), *inside, nn.ReLU(), nn.Linear(8, 4))
        self.decoder = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 12))

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("rows", len(x)):
            loc, log_scale = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


class Decoder(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.decode = PyroModule[nn.Linear](2, 12)
        self.slope = PyroParam(torch.tensor(1.0), constraint=constraints.positive)

    def forward(self, x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.slope * self.decode(z)).to_event(1), obs=x)


class Encoder(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.encode = PyroModule[nn.Linear](12, 4)

    def forward(self, x):
        with pyro.plate("rows", len(x)):
            loc, log_scale = self.encode(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


class BayesianNetwork(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = PyroModule[nn.Linear](3, 4)
        self.hidden.weight = PyroSample(dist.Normal(0.0, 1.0).expand([4, 3]).to_event(2))
        self.hidden.bias = PyroSample(dist.Normal(0.0, 1.0).expand([4]).to_event(1))
        self.out = PyroModule[nn.Linear](4, 1)

    def forward(self, x, y):
        mean = self.out(torch.tanh(self.hidden(x))).squeeze(-1)
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(mean, 0.5), obs=y)


class Recurrent(nn.Module):
    """A guide that reads a series with an RNN."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(1, 4)
        self.head = nn.Linear(4, 2)

    def model(self, x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("steps", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, x):
        pyro.module("recurrent", self)
        h = torch.zeros(1, 4)
        for value in x[:5]:
            h = self.cell(value.reshape(1, 1), h)
        loc, log_scale = self.head(h)[0]
        pyro.sample("z", dist.Normal(loc, log_scale.exp()))


with torch.random.fork_rng(devices=[]):
    torch.manual_seed(11)
    PLAIN = Autoencoder()
    NORMALISED = Autoencoder(nn.BatchNorm1d(8))
    DROPPING = Autoencoder(nn.Dropout(0.2))
    DECODER, ENCODER = Decoder(), Encoder()
    NETWORK = BayesianNetwork()
    RECURRENT = Recurrent()
