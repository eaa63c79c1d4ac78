"""Every guide, one line each, and a model whose latents have supports of every kind."""

from functools import partial

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer import autoguide
from pyro.infer.autoguide import AutoGuideList
from torch import nn

from vipack.guides import Amortized, Flow, Mixture, Structured, Whitened

__all__ = ["GUIDES", "POINTS", "Y", "flat", "flat_data", "model"]

Y = torch.tensor([0.3, 1.2, -0.4, 0.9], dtype=torch.float64)


def model(y):
    """A pair, a positive global, and a number in (0, 1) for each row of y."""
    pair = pyro.sample("pair", dist.Normal(torch.zeros(2, dtype=y.dtype), 1.0).to_event(1))
    width = pyro.sample("width", dist.HalfCauchy(torch.ones((), dtype=y.dtype)))
    with pyro.plate("rows", len(y)):
        share = pyro.sample("share", dist.Beta(2 * torch.ones((), dtype=y.dtype), 3.0))
        pyro.sample("y", dist.Normal(pair.sum(-1) + share, width), obs=y)


def flat(x, y):
    """Flat priors on real, positive and ordered supports."""
    slope = pyro.sample("slope", dist.ImproperUniform(constraints.real, (), ()))
    width = pyro.sample("width", dist.ImproperUniform(constraints.positive, (), ()))
    cuts = pyro.sample("cuts", dist.ImproperUniform(constraints.ordered_vector, (), (2,)))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(slope * x, width), obs=y)
        pyro.sample("level", dist.OrderedLogistic(slope * x, cuts), obs=(y > 0).long() + (y > 1).long())


X = torch.linspace(-1, 1, 12, dtype=torch.float64)
flat_data = (X, X + torch.sin(7 * X))


class Rows(nn.Module):
    """Location and scale of ``share`` from y."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(1, 2).double()

    def forward(self, y):
        loc, raw = self.net(y[:, None]).unbind(-1)
        return loc, raw.exp()


def whitening(size):
    return {"loc": torch.zeros(size, dtype=torch.float64), "scale": 0.2 * torch.ones(size, dtype=torch.float64)}


def listed(program):
    guide = AutoGuideList(program)
    names = ["pair", "width", "share"] if program is model else ["slope", "width", "cuts"]
    guide.append(autoguide.AutoDiagonalNormal(poutine.block(program, hide=names[1:])))
    guide.append(autoguide.AutoNormal(poutine.block(program, hide=names[:1])))
    return guide


def structured(program):
    return autoguide.AutoStructured(
        program,
        conditionals={"pair": "mvn", "width": "normal", "share": "normal"},
        dependencies={"width": {"pair": "linear"}},
    )


# name -> a function of the model that gives what is passed to vipack.fit
GUIDES = {
    "AutoNormal": lambda _: autoguide.AutoNormal,
    "AutoDiagonalNormal": lambda _: autoguide.AutoDiagonalNormal,
    "AutoMultivariateNormal": lambda _: autoguide.AutoMultivariateNormal,
    "AutoLowRankMultivariateNormal": lambda _: autoguide.AutoLowRankMultivariateNormal,
    "AutoIAFNormal": lambda _: partial(autoguide.AutoIAFNormal, hidden_dim=[8]),
    "AutoGaussian": lambda _: autoguide.AutoGaussian,
    "AutoStructured": structured,
    "AutoGuideList": listed,
    "AutoNormalMessenger": lambda _: autoguide.AutoNormalMessenger,
    "AutoHierarchicalNormalMessenger": lambda m: partial(
        autoguide.AutoHierarchicalNormalMessenger, hierarchical_sites=["share"] if m is model else []
    ),
    "AutoRegressiveMessenger": lambda _: autoguide.AutoRegressiveMessenger,
    "Flow": lambda _: partial(Flow, num_layers=4),
    "Flow of splines": lambda _: partial(Flow, num_layers=2, kind="spline"),
    "Mixture": lambda m: Mixture(
        m, [autoguide.AutoDiagonalNormal(m, init_scale=0.2), autoguide.AutoMultivariateNormal(m)]
    ),
    "Structured": lambda _: Structured,
    "Whitened": lambda m: Whitened(m, **whitening(7 if m is model else 4)),
    "Whitened flow": lambda m: Whitened(m, partial(Flow, num_layers=2), **whitening(7 if m is model else 4)),
    "Amortized": lambda m: Amortized(m, Rows(), ["share"]),
    "AutoDelta": lambda _: autoguide.AutoDelta,
    "AutoLaplaceApproximation": lambda _: autoguide.AutoLaplaceApproximation,
}
POINTS = {"AutoDelta", "AutoLaplaceApproximation"}
