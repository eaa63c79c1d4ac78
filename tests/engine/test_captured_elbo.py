"""``vipack.CapturedELBO`` beside Pyro's own ``differentiable_loss``, in training loops that users write themselves."""

from __future__ import annotations

import copy
import pickle

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import SVI, ReweightedWakeSleep, Trace_ELBO, TraceEnum_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroParam
from torch import nn

import vipack as vi
from vipack.errors import UsageError

X = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
Y = X[:, 0] * 2 + 1


class Regression(PyroModule):
    def __init__(self):
        super().__init__()
        self.linear = PyroModule[nn.Linear](2, 1)
        self.norm = nn.BatchNorm1d(2)
        self.noise = PyroParam(torch.tensor(1.0), dist.constraints.positive)
        self.idle = nn.Parameter(torch.tensor(1.0))

    def forward(self, x, y, weight=1.0):
        shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)), poutine.scale(scale=weight):
            pyro.sample("y", dist.Normal(self.linear(self.norm(x))[:, 0] + shift, self.noise), obs=y)


def trained(elbo, *, steps=40, zero_first=True, change=None, twice=False, wrapped=False, start=None):
    """Losses, gradients of the last step, and everything that training leaves."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    model = Regression()
    guide = AutoNormal(model)
    guide(X, Y)
    parameters = {**dict(model.named_parameters()), **dict(guide.named_parameters())}
    if start is not None:
        for value in parameters.values():
            value.grad = torch.full_like(value, start)
    optimizer = torch.optim.Adam(parameters.values(), lr=0.02)
    losses = []
    for step in range(steps):
        if zero_first and (step or start is None):
            optimizer.zero_grad()
        given = poutine.scale(model, 0.5) if wrapped else model
        weight = 1.0 if change is None else change(step, model)
        loss = elbo.differentiable_loss(given, guide, X, Y, weight=weight)
        (2 * loss).backward()
        if twice:
            elbo.differentiable_loss(given, guide, X[:10], Y[:10]).backward()
        optimizer.step()
        losses.append(loss.item())
        if not zero_first:
            optimizer.zero_grad(set_to_none=step % 2 == 0)
    gradients = {name: None if value.grad is None else value.grad.clone() for name, value in parameters.items()}
    left = {**model.state_dict(), **guide.state_dict()}
    return torch.tensor(losses), gradients, left, torch.rand(3)


def assert_same(found, expected):
    torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-4)
    assert {k: v is None for k, v in found[1].items()} == {k: v is None for k, v in expected[1].items()}
    for mine, theirs in zip(found[1:3], expected[1:3], strict=True):
        for name, value in theirs.items():
            if value is not None:
                torch.testing.assert_close(mine[name], value, rtol=1e-3, atol=1e-4, msg=name)
    assert torch.equal(found[3], expected[3])


def freeze(step, model):
    model.linear.bias.requires_grad_(step < 20)
    return 1.0


def evaluate(step, model):
    model.train(step < 20)
    return 1.0


LOOPS = {
    "as documented": {},
    "gradients put to zero afterwards": {"zero_first": False},
    "two losses, one gradient": {"twice": True},
    "a handler made anew": {"wrapped": True},
    "an annealed weight": {"change": lambda step, model: min(1.0, (step + 1) / 20)},
    "a frozen parameter": {"change": freeze},
    "a network in evaluation mode": {"change": evaluate},
    "gradients from before": {"start": 3.0},
}


@pytest.mark.parametrize("name", LOOPS)
def test_losses_and_gradients_are_pyros(name):
    elbo = vi.CapturedELBO(Trace_ELBO(), engine="traced")
    assert_same(trained(elbo, **LOOPS[name]), trained(Trace_ELBO(), **LOOPS[name]))
    assert elbo.engine.steps["traced"] >= 15, elbo.engine


def test_natively():
    elbo = vi.CapturedELBO(Trace_ELBO(num_particles=3, vectorize_particles=True), engine="interpreted")
    assert_same(trained(elbo), trained(Trace_ELBO(num_particles=3, vectorize_particles=True)))
    assert elbo.engine.steps["interpreted"] >= 30, elbo.engine


@pytest.fixture
def local_parameters():
    with pyro.settings.context(module_local_params=True):
        yield


@pytest.mark.usefixtures("local_parameters")
def test_as_a_module_with_parameters_of_its_own():
    def run(elbo):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        model = Regression()
        guide = AutoNormal(model)
        guide(X, Y)
        module = elbo(model, guide)
        module(X, Y)
        optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
        losses = []
        for _ in range(30):
            optimizer.zero_grad()
            loss = module(X, Y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        gradients = {name: value.grad for name, value in module.named_parameters()}
        assert not list(pyro.get_param_store().keys())
        return torch.tensor(losses), gradients, module.state_dict(), torch.rand(3)

    elbo = vi.CapturedELBO(Trace_ELBO(), engine="traced")
    assert_same(run(elbo), run(Trace_ELBO()))
    assert elbo.engine.steps["traced"] >= 25, elbo.engine


@pytest.mark.usefixtures("local_parameters")
def test_two_modules_with_one_name_stay_with_pyro():
    class Guide(PyroModule):
        def __init__(self):
            super().__init__()
            self.noise = PyroParam(torch.tensor(0.5), dist.constraints.positive)

        def forward(self, x, y):
            return pyro.sample("shift", dist.Normal(0.0, self.noise))

    model, guide = Regression(), Guide()
    elbo = vi.CapturedELBO(Trace_ELBO(), engine="traced")
    for _ in range(5):
        elbo(model, guide)(X, Y).backward()
    assert "both have one named 'noise'" in elbo.engine.reason
    assert float(guide.noise) == pytest.approx(0.5)
    assert float(model.noise) == pytest.approx(1.0)


def test_without_gradients_it_is_pyros_loss():
    model = Regression()
    guide = AutoNormal(model)
    elbo = vi.CapturedELBO(Trace_ELBO(), engine="traced")
    for _ in range(5):
        elbo.differentiable_loss(model, guide, X, Y)
    with torch.no_grad():
        pyro.set_rng_seed(1)
        found = elbo.differentiable_loss(model, guide, X, Y)
        pyro.set_rng_seed(1)
        assert torch.equal(found, Trace_ELBO().differentiable_loss(model, guide, X, Y))
    assert "gradients are switched off" in elbo.engine.reason


def test_it_serves_where_an_objective_is_asked_for():
    elbo = vi.CapturedELBO(TraceEnum_ELBO(max_plate_nesting=1), engine="traced")
    model = Regression()
    guide = AutoNormal(model)
    guide(X, Y)
    losses = []
    for make, loss in ((SVI, elbo), (vi.SVI, elbo), (SVI, TraceEnum_ELBO(max_plate_nesting=1))):
        pyro.clear_param_store()
        pyro.set_rng_seed(2)
        svi = make(model, guide, pyro.optim.SGD({"lr": 0.0}), loss)
        losses.append((svi.step(X, Y), svi.evaluate_loss(X, Y)))
    assert losses[0] == pytest.approx(losses[2])
    assert losses[1] == pytest.approx(losses[2])
    for other in (copy.deepcopy(elbo), pickle.loads(pickle.dumps(elbo))):
        assert float(other.differentiable_loss(model, guide, X, Y)) > 0


@pytest.mark.parametrize("wrong", [None, Trace_ELBO, ReweightedWakeSleep()])
def test_what_has_no_differentiable_loss_is_told(wrong):
    with pytest.raises(UsageError, match=r"vipack\.CapturedELBO\(pyro\.infer\.Trace_ELBO\(\)\)"):
        vi.CapturedELBO(wrong)
