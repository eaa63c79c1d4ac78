"""Losses other than Pyro's classes: functions, and objectives of several numbers."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import SVI, ReweightedWakeSleep, Trace_ELBO

import vipack as vi
from tests.engine.capture.test_reads import assert_same

X = torch.randn(20, generator=torch.Generator().manual_seed(0)) + 1.0
WEIGHT = {"kl": 1.0}


def model(x):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(x):
    loc = pyro.param("loc", torch.tensor(0.1))
    pyro.sample("z", dist.Normal(loc, pyro.param("scale", torch.tensor(0.5), constraint=dist.constraints.positive)))


def simple_elbo(model, guide, *args):
    """As Pyro's tutorial on customised losses has it."""
    guide_trace = poutine.trace(guide).get_trace(*args)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args)
    return -(model_trace.log_prob_sum() - WEIGHT["kl"] * guide_trace.log_prob_sum())


def regularised(model, guide, *args):
    loss = Trace_ELBO().differentiable_loss(model, guide, *args)
    return loss + 0.1 * pyro.param("loc").pow(2) + pyro.param("of the loss", torch.tensor(1.0)).pow(2)


class Boosting:
    """A relative ELBO, whose components grow as in Pyro's tutorial on boosting."""

    def __init__(self):
        self.components = 1

    def __call__(self, model, guide, *args):
        return simple_elbo(model, guide, *args) * self.components


def with_its_own_gradients(model, guide, *args):
    loss = simple_elbo(model, guide, *args)
    (2 * loss).backward()
    return loss


LOSSES = {
    "a function": lambda: {"loss": simple_elbo},
    "a method": lambda: {"loss": Trace_ELBO().differentiable_loss},
    "a parameter of its own": lambda: {"loss": regularised},
    "an object": lambda: {"loss": Boosting()},
    "loss_and_grads": lambda: {"loss": simple_elbo, "loss_and_grads": with_its_own_gradients},
}


def run(make, loss, steps=30, change=None, **options):
    WEIGHT["kl"] = 1.0
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    svi = make(model, guide, pyro.optim.Adam({"lr": 0.05}), **loss, **options)
    losses = []
    for step in range(steps):
        if change is not None and step == steps // 2:
            change(loss)
        losses.append(svi.step(X))
    return losses, {name: value.detach().clone() for name, value in pyro.get_param_store().items()}, svi


@pytest.mark.parametrize(("name", "engine"), [*((name, "traced") for name in LOSSES), ("a function", "interpreted")])
def test_functions_are_captured(name, engine):
    found = run(vi.SVI, LOSSES[name](), engine=engine)
    assert_same(found, run(SVI, LOSSES[name]()))
    assert found[2].engine.steps[engine] == 28, found[2].engine


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("a function", lambda loss: WEIGHT.update(kl=0.2)),
        ("an object", lambda loss: setattr(loss["loss"], "components", 3)),
    ],
)
def test_what_a_function_reads_may_change(name, change):
    found = run(vi.SVI, LOSSES[name](), change=change, engine="traced")
    assert_same(found, run(SVI, LOSSES[name](), change=change))
    assert found[2].engine.steps["traced"] >= 24


def test_a_function_that_counts_its_calls_stays_with_pyro():
    def counting():
        calls = []

        def loss(model, guide, *args):
            calls.append(1)
            return simple_elbo(model, guide, *args) * min(1.0, len(calls) / 20)

        return {"loss": loss}

    found = run(vi.SVI, counting(), engine="traced")
    assert_same(found, run(SVI, counting()))
    assert found[2].engine.steps == {"eager": 30}


def test_several_losses_are_returned_as_pyro_returns_them():
    found = run(vi.SVI, {"loss": ReweightedWakeSleep()}, steps=8, engine="traced")
    expected = run(SVI, {"loss": ReweightedWakeSleep()}, steps=8)
    assert all(isinstance(loss, tuple) for loss in found[0])
    np.testing.assert_array_equal(found[0], expected[0])
    assert "a tuple of several numbers" in found[2].engine.reason
