"""In-place operators of a captured graph become others that write nothing, where that gives the same numbers."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import nn
from torch.distributions import constraints
from torch.fx.experimental.proxy_tensor import make_fx

import vipack as vi
from vipack.compat.pytorch import schema_of
from vipack.engine.steps import training_step

X = torch.linspace(-1.0, 1.0, 80).cos().reshape(20, 4)


def clamped(x):
    value = x * 3
    early = value + 1
    value.detach().clamp_(min=0.1)
    return early, value, value.unsqueeze(0) + 1, value.detach() * 2


def clamped_twice(x):
    value = x * 3
    value.detach().clamp_(min=0.1)
    value.detach().clamp_(max=2.0)
    return value.reshape(-1) * 2, value


def draws(x):
    normal, half = torch.empty(3).normal_(), torch.empty(3).bernoulli_()
    dropped = torch.nn.functional.dropout(x, 0.3, True)
    gamma = torch.distributions.Gamma(torch.ones(3), 2.0, validate_args=False).rsample()
    rates = torch.empty(2).uniform_(), torch.empty(2).exponential_(2.0), torch.empty(2).bernoulli_(0.2)
    return normal, half, dropped, gamma, *rates, torch.empty(2).normal_(1.0, 0.5)


def viewed_before(x):
    value = x * 3
    row = value[0]
    value.detach().clamp_(min=0.1)
    return row, value


def written_through_a_view(x):
    value = x * 3
    value[0].mul_(2)
    return (value,)


def written_input(x):
    x.mul_(2)
    return (x,)


def results(function, *inputs):
    torch.manual_seed(3)
    return function(*[value.clone() for value in inputs])


def graph_of(function):
    module = make_fx(function, tracing_mode="fake")(X.clone())
    return module, training_step._is_pure(module)


@pytest.mark.parametrize("function", [clamped, clamped_twice, draws])
def test_what_is_written_in_place_is_made_anew(function):
    expected = results(function, X)
    module, pure = graph_of(function)
    assert pure
    assert not any(getattr(schema_of(node.target), "is_mutable", False) for node in module.graph.nodes)
    module.recompile()
    for found, value in zip(results(module, X), expected, strict=True):
        assert torch.equal(found, value)


@pytest.mark.parametrize("function", [viewed_before, written_through_a_view, written_input])
def test_what_others_may_see_written_is_left_to_the_tracer(function):
    assert not graph_of(function)[1]


class Noisy(torch.nn.Module):
    """Dropout, a clamped draw and statistics of batches."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.5))

    def forward(self, x):
        pyro.module("net", self.net)
        rate = pyro.sample("rate", dist.Gamma(torch.tensor(2.0), 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(rate * self.net(x), 1.0).to_event(1), obs=x)


def clamping(x):
    """A Gamma is drawn inside of the graph, and clamped there."""
    pyro.sample("rate", dist.Gamma(pyro.param("shape", torch.tensor(3.0), constraint=constraints.positive), 1.0))


def stepped(make, guide, **options):
    pyro.clear_param_store()
    pyro.set_rng_seed(1)
    model = Noisy()
    svi = make(model, guide or AutoNormal(model), pyro.optim.Adam({"lr": 0.01}), Trace_ELBO(), **options)
    losses = [svi.step(X) for _ in range(12)]
    return losses, model.net[1].running_var.clone(), svi


@pytest.mark.parametrize(
    ("guide", "engine"),
    [(clamping, "traced"), (clamping, "interpreted"), (None, "traced"), (None, "interpreted"), (None, "compiled")],
)
def test_such_a_program_takes_pyros_steps_and_is_traced_once(guide, engine, monkeypatch, folder):
    sizes, original = [], training_step._traced

    def traced(function, examples):
        module = original(function, examples)
        sizes.append(len(module.graph.nodes))
        return module

    monkeypatch.setattr(training_step, "_traced", traced)
    expected, variance, _ = stepped(SVI, guide)
    losses, found, svi = stepped(vi.SVI, guide, engine=engine)
    assert losses == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(found, variance)
    assert svi.engine.tier == engine
    assert max(sizes) < 90  # nodes: of the optimizer's update, not of the program


LAYERS = {
    "dropout": lambda: nn.Dropout(0.3),
    "alpha dropout": lambda: nn.AlphaDropout(0.3),
    "batch norm": lambda: nn.BatchNorm1d(4),
}


def network(layer):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), LAYERS[layer](), nn.Tanh(), nn.Linear(4, 1))

    def model(x):
        pyro.module("net", net)
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(net(x).squeeze(-1) + w, 1.0), obs=x[:, 0])

    return model


@pytest.mark.parametrize("layer", LAYERS)
def test_networks_that_draw_or_keep_statistics_are_traced_once(layer, monkeypatch):
    enclosed = []
    enclose = training_step._enclosed
    monkeypatch.setattr(training_step, "_enclosed", lambda *given: (enclosed.append(layer), enclose(*given))[1])
    options = {"data": X[:, :3], "steps": 20, "seed": 0, "progress": False}
    found = vi.fit(network(layer), AutoNormal, engine="traced", **options)
    assert found.engine.tier == "traced"
    assert enclosed == [layer]
    expected = vi.fit(network(layer), AutoNormal, engine="eager", **options)
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-4)
