"""Optimizers that take their steps themselves, on the gradients that a graph gives: ``vipack.SVI`` leaves what Pyro leaves."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO

import vipack as vi

X = torch.linspace(-1, 1, 20)
Y = 2 * X + 0.3


def model(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    scale = pyro.param("scale", torch.tensor(0.5), constraint=dist.constraints.positive)
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(w * x, scale), obs=y)


def guide(x, y):
    pyro.sample("w", dist.Normal(pyro.param("loc", torch.tensor(0.5)), pyro.param("spread", torch.tensor(0.3))))


def told(make, optim, steps, between=None, **options):
    """Losses and parameters after each step on what `steps` gives."""
    pyro.clear_param_store()
    pyro.set_rng_seed(4)
    optim = optim()
    svi = make(model, guide, optim, Trace_ELBO(), **options)
    story = []
    for i, y in enumerate(steps):
        try:
            loss = svi.step(X, y)
        except ValueError:
            loss = None
        values = {name: value.detach().clone() for name, value in pyro.get_param_store().items()}
        story.append((loss, values))
        if between is not None:
            between(optim, i)
    return story, svi


def assert_alike(optim, steps, engine, between=None):
    expected, _ = told(SVI, optim, steps, between)
    found, svi = told(vi.SVI, optim, steps, between, engine=engine)
    for i, ((loss, values), (own_loss, own)) in enumerate(zip(expected, found, strict=True)):
        assert (own_loss is None) == (loss is None), i
        assert loss is None or own_loss == pytest.approx(loss, rel=1e-4, nan_ok=True), i
        torch.testing.assert_close(own, values, rtol=1e-4, atol=1e-5, equal_nan=True, msg=f"step {i}")
    return svi


def adam():
    return pyro.optim.Adam({"lr": 0.01})


def adadelta():
    return pyro.optim.Adadelta({"lr": 0.5})


@pytest.mark.filterwarnings("ignore:Encountered NaN")
@pytest.mark.parametrize("engine", [pytest.param("traced", marks=pytest.mark.slow), "interpreted"])
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_loss_that_is_not_finite_is_followed_by_pyros_update(engine, bad):
    outlier = Y.clone()
    outlier[3] = bad
    with pyro.validation_enabled(False):
        svi = assert_alike(adadelta, [Y] * 5 + [outlier, Y], engine)
    assert svi.engine.steps[engine] >= 4


@pytest.mark.parametrize("engine", [pytest.param("traced", marks=pytest.mark.slow), "interpreted"])
@pytest.mark.parametrize("optim", [adam, adadelta])
def test_missing_values_raise_and_are_followed_by_no_update(engine, optim):
    """As Pyro's validation does; on the tensors of the step before, which a user writes to, and on others."""
    y = Y.clone()

    def spoil(optim, i):
        y[3] = float("nan") if i == 90 else Y[3]

    bad = Y.clone()
    bad[0] = float("nan")
    svi = assert_alike(optim, [y] * 96 + [bad, Y], engine, spoil)
    assert svi.engine.steps[engine] >= 90


@pytest.mark.parametrize("engine", ["traced", "interpreted"])
def test_an_optimizer_whose_options_change_with_every_step_takes_its_own_steps(engine):
    """As under a schedule that cycles the momentum with the rate."""

    def cycle(optim, i):
        for one in optim.optim_objs.values():
            one.param_groups[0]["betas"] = (0.85 + 0.001 * i, 0.99)

    svi = assert_alike(adam, [Y] * 40, engine, cycle)
    assert svi.engine.steps[engine] >= 30, svi.engine
