"""Hooks on the gradients of parameters are called as ``pyro.infer.SVI`` calls them, and what they return is the gradient."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO

import vipack as vi
from vipack.engine import svi as svi_module
from vipack.engine import tiers

X = torch.linspace(-1, 1, 20)
Y = 2 * X + 0.3


def model(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    scale = pyro.param("scale", torch.tensor(0.5), constraint=dist.constraints.positive)
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(w * x, scale), obs=y)


def guide(x, y):
    pyro.sample("w", dist.Normal(pyro.param("loc", torch.tensor(0.5)), pyro.param("spread", torch.tensor(0.3))))


def unconstrained(name):
    return dict(pyro.get_param_store().named_parameters())[name]


def noting(name, seen):
    unconstrained(name).register_hook(lambda gradient: seen.append((name, gradient.item())))


def clamping(name, seen):
    unconstrained(name).register_hook(lambda gradient: gradient.clamp(-1.0, 1.0))


def keeping(name, seen):
    unconstrained(name).register_hook(lambda gradient: seen.append((name, gradient)))


def after(name, seen):
    unconstrained(name).register_post_accumulate_grad_hook(lambda value: seen.append((name, float(value.grad))))


def told(make, hook, steps=40, hooked_at=1, removed_at=None, program=model, **options):
    """Losses, what hooks have seen, and the parameters at the end."""
    pyro.clear_param_store()
    pyro.set_rng_seed(4)
    svi = make(program, guide, pyro.optim.ClippedAdam({"lr": 0.05, "clip_norm": 5.0}), Trace_ELBO(), **options)
    losses, seen = [], []
    for i in range(steps):
        if i == hooked_at:
            for name in ("loc", "scale"):
                hook(name, seen)
        if i == removed_at:
            for name in ("loc", "scale"):
                unconstrained(name)._backward_hooks.clear()
        losses.append(svi.step(X, Y))
    values = {name: value.detach().clone() for name, value in pyro.get_param_store().items()}
    return losses, [(name, float(value)) for name, value in seen], values, svi


@pytest.fixture(autouse=True)
def early(monkeypatch):
    for module in (tiers, svi_module):
        monkeypatch.setattr(module, "TRACE_STEPS", 5)


@pytest.mark.parametrize("engine", ["auto", "traced", "interpreted"])
@pytest.mark.parametrize("hook", [noting, clamping, keeping, after])
def test_hooks_see_every_gradient_once_and_may_replace_it(hook, engine):
    losses, seen, values, _ = told(SVI, hook)
    own_losses, own_seen, own_values, svi = told(vi.SVI, hook, engine=engine)
    assert own_losses == pytest.approx(losses, rel=1e-4)
    assert len(own_seen) == len(seen)
    for name in ("loc", "scale"):
        of_name = [[value for each, value in pairs if each == name] for pairs in (own_seen, seen)]
        assert of_name[0] == pytest.approx(of_name[1], rel=1e-3, abs=1e-4)
    torch.testing.assert_close(own_values, values, rtol=1e-3, atol=1e-4)
    assert svi.engine.steps.get("eager", 0) <= 8, svi.engine


def test_hooks_may_come_and_go_during_a_run():
    losses, seen, values, _ = told(SVI, noting, hooked_at=15, removed_at=25)
    own_losses, own_seen, own_values, svi = told(vi.SVI, noting, hooked_at=15, removed_at=25, engine="traced")
    assert own_losses == pytest.approx(losses, rel=1e-4)
    assert len(own_seen) == len(seen) == 20
    torch.testing.assert_close(own_values, values, rtol=1e-3, atol=1e-4)
    assert svi.engine.steps["traced"] >= 30


def test_a_program_that_adds_a_hook_at_every_run_stays_with_pyro():
    def adding(x, y):
        loc = pyro.param("loc", torch.tensor(0.5))
        loc.register_hook(lambda gradient: 0.9 * gradient)
        model(x, y)

    losses, _, values, _ = told(SVI, noting, program=adding)
    own_losses, _, own_values, svi = told(vi.SVI, noting, program=adding, engine="traced")
    assert own_losses == pytest.approx(losses, rel=1e-6)
    torch.testing.assert_close(own_values, values)
    assert "once more" in svi.engine.reason
