"""The default optimizer: one rate for the weights of networks, another for all else, in every tier and across files."""

from __future__ import annotations

import functools

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

import vipack as vi
from vipack.engine.optimizers.default_optimizer import LEARNING_RATE, NETWORK_RATE, CosineRate
from vipack.training.recovery import slower

X = torch.rand(40, 6, generator=torch.Generator().manual_seed(0)).round()
STEPS = 24


class Pair(nn.Module):
    """A small VAE with one parameter that is no weight of a network."""

    def __init__(self, width=8):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.encoder = nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 4))
            self.decoder = nn.Linear(2, 6)

    def model(self, x):
        pyro.module("decoder", self.decoder)
        offset = pyro.param("offset", torch.zeros(6))
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z) + offset).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("rows", len(x)):
            loc, log_scale = self.encoder(x).chunk(2, dim=-1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def fitted(engine="traced", steps=STEPS, width=8, **options):
    pair = Pair(width)
    return vi.fit(
        pair.model, pair.guide, data=X, batch_size=10, steps=steps, seed=1, engine=engine, progress=False, **options
    )


def two_rates(parameters, num_steps=STEPS):
    """What the default is, written by hand; `offset` is the model's only number."""
    offset = [p for p in parameters if p.shape == (6,) and p.eq(0).all()]
    weights = [p for p in parameters if not any(p is other for other in offset)]
    groups = [{"params": offset, "lr": LEARNING_RATE}, {"params": weights, "lr": NETWORK_RATE}]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
    return optimizer, LambdaLR(optimizer, [CosineRate(0, num_steps)] * 2)


def one_rate(parameters, num_steps=STEPS):
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, betas=(0.9, 0.99))
    return optimizer, LambdaLR(optimizer, CosineRate(0, num_steps))


def assert_same(one, other):
    assert one.losses.tolist() == other.losses.tolist()
    for name, value in one.params.items():
        assert torch.equal(value, other.params[name]), name


@pytest.fixture(scope="module")
def eager():
    return fitted("eager")


def test_it_is_adam_with_two_rates(eager):
    assert_same(eager, fitted("eager", optim=two_rates))


@pytest.mark.parametrize("engine", ["traced", "interpreted", pytest.param("compiled", marks=pytest.mark.slow)])
def test_every_tier_takes_the_same_steps(engine, eager):
    fit = fitted(engine)
    assert fit.engine.tier == engine, fit.engine
    np.testing.assert_allclose(fit.losses, eager.losses, rtol=1e-5)
    torch.testing.assert_close(fit.params, eager.params, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("engine", ["eager", "traced"])
def test_without_networks_it_is_adam_at_one_rate_bit_for_bit(engine):
    def model(x):
        w = pyro.sample("w", dist.Normal(torch.zeros(6), 1.0).to_event(1))
        scale = pyro.param("scale", torch.ones(6), constraint=dist.constraints.positive)
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(w, scale).to_event(1), obs=x)

    fits = [
        vi.fit(model, AutoNormal, data=X, steps=STEPS, engine=engine, progress=False, optim=optim)
        for optim in (None, one_rate)
    ]
    assert_same(*fits)


@pytest.mark.parametrize("engine", ["eager", "traced"])
@pytest.mark.parametrize("form", ["save", "checkpoint"])
def test_a_run_goes_on_bit_for_bit(form, engine, tmp_path):
    whole = fitted(engine)
    stop = vi.Every(1, lambda progress: progress.step == 9)
    path, pair = tmp_path / "fit.pt", Pair()
    if form == "save":
        fitted(engine, callbacks=stop).save(path)
        again = vi.load(path, pair.model, pair.guide)
        again.resume()
        np.testing.assert_allclose(again.losses, whole.losses, rtol=1e-5)
        torch.testing.assert_close(again.params, whole.params, rtol=1e-5, atol=1e-6)
    else:
        fitted(engine, callbacks=stop, checkpoint=path)
        content = torch.load(path, weights_only=True)
        content["stopped"] = ["INTERRUPTED", "by the test"]
        torch.save(content, path)
        assert_same(fitted(engine, checkpoint=path), whole)


def test_a_file_of_one_rate_goes_on_at_that_rate(tmp_path):
    path = tmp_path / "fit.pt"
    stop = vi.Every(1, lambda progress: progress.step == 9)
    fitted("eager", optim=one_rate, callbacks=stop, checkpoint=path)
    content = torch.load(path, weights_only=True)
    content["stopped"], content["fingerprint"]["optimizer"] = ["INTERRUPTED", "by the test"], "default"
    torch.save(content, path)
    again = fitted("eager", checkpoint=path)
    assert_same(again, fitted("eager", optim=one_rate))
    again.resume(STEPS)
    assert again.steps == 2 * STEPS
    assert np.isfinite(again.losses).all()


def test_a_run_that_is_slowed_down_keeps_both_rates_in_proportion():
    trainer = fitted("eager", steps=5)._trainer
    before = [group["lr"] for group in trainer.optimizer.state()["state"]["param_groups"]]
    after = slower(trainer.optimizer, trainer.program.parameters).state()["state"]["param_groups"]
    assert [group["lr"] for group in after] == [pytest.approx(rate / 4) for rate in before]
    assert [len(group["params"]) for group in after] == [1, 6]


def test_a_longer_run_lets_both_rates_fall_anew():
    fit = fitted("eager", steps=5)
    fit.resume(10)
    rates = [group["lr"] for group in fit._trainer.optimizer.state()["state"]["param_groups"]]
    assert rates == [pytest.approx(0.01 * LEARNING_RATE), pytest.approx(0.01 * NETWORK_RATE)]


def test_several_starts_take_the_steps_of_one(eager):
    together = fitted("traced", restarts=2, width=300)  # a layer of 1,800 weights, and one of 20,000 by itself
    alone = fitted("traced", width=300)
    assert "side by side" not in together.engine.reason
    np.testing.assert_allclose(together.restarts[0], alone.elbo(500).value, rtol=0.02)


@pytest.mark.parametrize("optim", [None, functools.partial(one_rate, num_steps=STEPS)])
def test_a_large_layer_beside_others_moves_the_schedule_once_a_step(optim):
    """A layer of many weights is updated by itself, and so asks for its rate by itself."""

    def model(x):
        network = big
        pyro.module("network", network)
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Bernoulli(logits=network(x)).to_event(1), obs=x)

    def guide(x):
        pass

    with torch.random.fork_rng():
        torch.manual_seed(0)
        big = nn.Sequential(nn.Linear(6, 3_000), nn.Tanh(), nn.Linear(3_000, 6))
    options = {"data": X, "steps": STEPS, "engine": "traced", "progress": False, "optim": optim}
    alone, together = vi.fit(model, guide, **options), vi.fit(model, guide, restarts=2, **options)
    np.testing.assert_allclose(together.losses, alone.losses, rtol=1e-4, atol=1e-3)


def test_a_network_that_appears_later_has_the_rate_of_networks():
    network = nn.Linear(6, 6)

    def model(x):
        w = pyro.sample("w", dist.Normal(torch.zeros(6), 1.0).to_event(1))
        if pyro.param("count", torch.zeros(())) < -0.05:
            pyro.module("network", network)
            w = w + network(x).mean(0)
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(w + pyro.param("count"), 1.0).to_event(1), obs=x)

    fit = vi.fit(model, AutoNormal, data=X - 5.0, steps=STEPS, engine="eager", progress=False)
    groups = fit._trainer.optimizer.state()["state"]["param_groups"]
    assert [len(group["params"]) for group in groups] == [3, 2]
    assert groups[0]["lr"] / groups[1]["lr"] == pytest.approx(LEARNING_RATE / NETWORK_RATE)
    assert not torch.equal(fit.params["network$$$weight"], network.weight)
