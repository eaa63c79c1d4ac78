"""A run that ended worse than it was is never returned without a word, and noise is no worsening."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

import vipack as vi
from vipack.errors import DivergenceWarning
from vipack.objectives import BetaELBO
from vipack.training.worsening import worsening

SEEDS = range(150)
LENGTHS = (300, 1_000, 4_000)


def correlated(rng, count, share):
    noise = rng.normal(size=count)
    for step in range(1, count):
        noise[step] += share * noise[step - 1]
    return noise * np.sqrt(1 - share**2)


STEADY = {
    "noise": lambda rng, t: 5 * rng.normal(size=len(t)),
    "heavy tails": lambda rng, t: 5 * rng.standard_t(3, len(t)),
    "skewed": lambda rng, t: np.exp(1.5 * rng.normal(size=len(t))),
    "spikes": lambda rng, t: rng.normal(size=len(t)) + 1_000 * (rng.random(len(t)) < 0.002),
    "descent": lambda rng, t: 500 * np.exp(-10 * t) + 5 * rng.normal(size=len(t)),
    "slow descent": lambda rng, t: -5 * t + 5 * rng.normal(size=len(t)),
    "noise that fades": lambda rng, t: (5.05 - 5 * t) * rng.normal(size=len(t)),
    "noise that lasts": lambda rng, t: 5 * correlated(rng, len(t), 0.6),
    "batches in turn": lambda rng, t: 5 * np.sin(np.arange(len(t)) * 2 * np.pi / 23) + rng.normal(size=len(t)),
    "no noise": lambda rng, t: np.exp(-5 * t) + 1e-3 * np.sin(np.arange(len(t)) / 7),
}
WORSE = {
    "a jump": lambda t: 20.0 * (t > 0.6),
    "a collapse": lambda t: 100.0 * (t > 0.3),
    "an explosion": lambda t: np.exp(20 * np.clip(t - 0.5, 0, None)) - 1,
    "a steady rise": lambda t: 60 * t,
    "a fall and a rise": lambda t: 300 * np.abs(t - 0.4),
}


@pytest.mark.parametrize("num_steps", LENGTHS)
@pytest.mark.parametrize("name", STEADY)
def test_noise_is_no_worsening(name, num_steps):
    times = np.arange(num_steps) / num_steps
    found = [worsening(100 + STEADY[name](np.random.default_rng(seed), times)) for seed in SEEDS]
    assert found == [None] * len(SEEDS)


@pytest.mark.parametrize("num_steps", LENGTHS)
@pytest.mark.parametrize("name", WORSE)
def test_what_lasts_to_the_end_is_seen_through_noise(name, num_steps):
    times = np.arange(num_steps) / num_steps
    for seed in range(20):
        losses = 100 + WORSE[name](times) + 3 * np.random.default_rng(seed).normal(size=num_steps)
        found = worsening(losses)
        assert found is not None
        assert found.rise > 10
        first, last = found.steps
        assert losses[first - 1 : last].mean() == pytest.approx(found.best, abs=1)


@pytest.mark.parametrize("losses", [[], [1.0] * 50, np.arange(120.0)])
def test_of_a_short_run_nothing_is_said(losses):
    assert worsening(losses) is None


X = torch.full((10,), 2.0)
ADAM = functools.partial(torch.optim.Adam, lr=0.02)


def model(x):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(w, 1.0), obs=x)


def misleading(x):
    """The gradient always says that w should grow, and beyond 3 that makes the loss rise and rise."""
    w = pyro.sample("w", dist.Normal(0.0, 10.0))
    there = w.detach()
    pyro.factor("x", 10 * (w - there) - 100 * torch.relu(there - 3.0) + 0 * x.sum())


@pytest.mark.parametrize("options", [{}, {"stop": vi.TimeLimit(1e9)}])
def test_a_run_that_ended_worse_says_so(options):
    with pytest.warns(DivergenceWarning, match=r"ended worse than it was.*Lower the learning rate"):
        vi.fit(misleading, AutoNormal, data=X, optim=ADAM, steps=600, progress=False, **options)


def test_a_run_that_is_resumed_says_so():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = vi.fit(misleading, AutoNormal, data=X, optim=ADAM, steps=100, progress=False)
    with pytest.warns(DivergenceWarning, match="ended worse"):
        fit.resume(500)


def test_a_loss_that_rises_by_its_own_schedule_is_no_worsening():
    def warm_up(step):
        return min(1.0, step / 300)

    fit = vi.fit(model, AutoNormal, data=X, loss=BetaELBO(warm_up), steps=400, progress=False)
    assert worsening(fit.losses) is not None  # it rises, and no warning is an error here
