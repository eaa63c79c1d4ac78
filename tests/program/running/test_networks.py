"""Weights of networks are told from the numbers of a variational distribution, wherever a module stands."""

from __future__ import annotations

import functools

import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as T
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoDiagonalNormal, AutoGuideList, AutoIAFNormal, AutoNormal, AutoNormalMessenger
from pyro.nn import PyroModule, PyroParam
from torch import nn
from torch.distributions import constraints

import vipack as vi
from vipack.program import Arguments, Program, make_guide

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


class Scaled(nn.Module):
    """A layer of the user's own, with a parameter of its own."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.factor = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return self.factor * self.inner(x)


class Guide(PyroModule):
    """Location and scale of its own, and a network for the rest."""

    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(4))
        self.scale = PyroParam(torch.ones(4), constraints.positive)
        self.shifts = nn.ParameterList([nn.Parameter(torch.zeros(4))])
        self.layer = PyroModule[nn.Linear](4, 4)

    def forward(self, x):
        loc = self.loc + self.shifts[0] + self.layer(x).mean(0)
        pyro.sample("w", dist.Normal(loc, self.scale).to_event(1))


class Pair(nn.Module):
    """Model and guide as methods, with a number of its own."""

    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(4))
        self.network = nn.Linear(4, 4)

    def model(self, x):
        model(x)

    def guide(self, x):
        pyro.module("pair", self)
        pyro.sample("w", dist.Normal(self.loc + self.network(x).mean(0), 1.0).to_event(1))


def model(x):
    w = pyro.sample("w", dist.Normal(torch.zeros(4), 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(w, 1.0).to_event(1), obs=x)


def local(x):
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        w = pyro.sample("w", dist.Normal(torch.zeros(4), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(w, scale).to_event(1), obs=x)


def with_network(network):
    """A guide that registers a network and uses it for its location."""

    def guide(x):
        pyro.module("net", network)
        pyro.sample("w", dist.Normal(network(x).reshape(-1, 4).mean(0), pyro.param("scale", torch.ones(4))).to_event(1))

    return guide


def with_transform(transform):
    def guide(x):
        pyro.module("flow", transform)
        base = dist.Normal(torch.zeros(4), 1.0).to_event(1)
        pyro.sample("w", dist.TransformedDistribution(base, [transform]))

    return guide


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells = nn.GRU(1, 4, batch_first=True)

    def forward(self, x):
        return self.cells(x[..., None])[0][:, -1]


def weights(guide, program_model=model):
    """Names of the weights of networks, and of the other parameters."""
    program = Program(program_model, make_guide(program_model, guide), dtype=torch.float32, device=torch.device("cpu"))
    program.initialise(Arguments((X,)))
    of_networks = {id(value) for value in program.parameters.of_networks()}
    names = program.parameters.unconstrained
    return {n for n, v in names.items() if id(v) in of_networks}, {
        n for n, v in names.items() if id(v) not in of_networks
    }


def names_of(module, prefix):
    return {f"{prefix}{name}" for name, _ in module.named_parameters()}


@pytest.mark.parametrize(
    "network",
    [
        nn.Linear(4, 4),
        nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.PReLU(), nn.Linear(8, 4)),
        nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 4, 2), nn.Flatten(), nn.LayerNorm(4)),
        Recurrent(),
        Scaled(nn.Linear(4, 4)),
        nn.Sequential(Scaled(nn.Identity())),
        nn.MultiheadAttention(4, 1).out_proj,
    ],
    ids=["linear", "norms", "convolution", "recurrent", "layer of the user's own", "only such a layer", "attention"],
)
def test_all_that_a_registered_network_holds_is_a_weight(network):
    found, others = weights(with_network(network))
    assert found == names_of(network, "net$$$")
    assert others == {"scale"}


def test_a_network_of_the_model_is_one_too():
    network = nn.Linear(4, 4)

    def decoder(x):
        pyro.module("net", network)
        w = pyro.sample("w", dist.Normal(torch.zeros(4), 1.0).to_event(1))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(network(w), 1.0).to_event(1), obs=x)

    found, others = weights(AutoNormal, decoder)
    assert found == {"net$$$weight", "net$$$bias"}
    assert others == {"AutoNormal.locs.w", "AutoNormal.scales.w"}
    assert weights(AutoNormal, poutine.scale(functools.partial(decoder), scale=0.5))[0] == found


def test_numbers_that_a_guide_module_holds_itself_are_none():
    assert weights(Guide()) == ({"layer.weight", "layer.bias"}, {"loc", "scale", "shifts$$$0"})


@pytest.mark.parametrize("wrap", [lambda f: f, lambda f: poutine.mask(f, mask=True), functools.partial])
def test_a_guide_that_is_a_method_is_the_module_itself(wrap):
    pair = Pair()
    assert weights(wrap(pair.guide)) == ({"pair$$$network.weight", "pair$$$network.bias"}, {"pair$$$loc"})


@pytest.mark.parametrize(
    "guide",
    [
        AutoNormal,
        AutoDiagonalNormal,
        functools.partial(AutoIAFNormal, hidden_dim=[8]),
        AutoNormalMessenger,
        vi.guides.Flow,
    ],
)
def test_automatic_guides_hold_none(guide):
    assert weights(guide)[0] == set()


def test_the_network_that_an_automatic_guide_was_given_is_one():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 8)

        def forward(self, x):
            loc, scale = self.layer(x).chunk(2, dim=-1)
            return loc, scale.exp()

    found, others = weights(vi.guides.Amortized(local, Encoder(), "w"), local)
    assert {name.rpartition("network")[2] for name in found} == {"$$$layer.weight", "$$$layer.bias"}
    assert others


def test_a_guide_in_a_list_keeps_its_networks():
    class Encoder(PyroModule):
        def __init__(self):
            super().__init__()
            self.layer = PyroModule[nn.Linear](4, 1)

        def forward(self, x):
            return {"scale": pyro.sample("scale", dist.LogNormal(self.layer(x).mean(), 1.0))}

    guides = AutoGuideList(local)
    guides.append(AutoNormal(poutine.block(local, expose=["w"])))
    guides.append(Encoder())
    found, others = weights(guides, local)
    assert {name.rpartition(".")[2] for name in found} == {"weight", "bias"}
    assert len(others) == 2


def test_a_transforms_own_numbers_are_none_and_its_network_is_one():
    assert weights(with_transform(T.Spline(4)))[0] == set()
    assert weights(with_transform(T.Planar(4)))[0] == set()
    flow = T.affine_autoregressive(4, hidden_dims=[8])
    assert weights(with_transform(flow))[0] == names_of(flow, "flow$$$")
