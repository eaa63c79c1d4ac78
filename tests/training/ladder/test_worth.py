"""A stage is begun only for what it can gain, and ends when it gains nothing more."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import vipack as vi
from tests.training.ladder.programs import X, skewed
from vipack.training.ladder import ladder, rungs
from vipack.training.ladder.effort import Effort
from vipack.training.ladder.rungs import Family, Rung
from vipack.training.stopping import Settled
from vipack.types import StopReason

GENERATOR = torch.Generator().manual_seed(0)


def rung(width, shift=0.0):
    """Draws of a standard normal guide whose posterior is normal too, in two dimensions."""
    u = torch.randn(4_000, 2, generator=GENERATOR, dtype=torch.float64)
    posterior = dist.Normal(torch.tensor([shift, 0.0], dtype=torch.float64), torch.tensor([width, 1.0]).double())
    log_weights = posterior.log_prob(u).sum(-1) - dist.Normal(0.0, 1.0).log_prob(u).sum(-1)
    return Rung(None, Family("gaussian", 2), u, log_weights, 0)


def test_a_small_gap_spares_the_flow_and_says_how_small():
    why = rung(0.97).spared()
    assert "nats at most" in why
    assert "k-hat" in why
    assert "sd" in why


@pytest.mark.parametrize(("width", "shift"), [(0.85, 0.0), (1.0, 0.2), (3.0, 0.0)], ids=["narrow", "moved", "wide"])
def test_what_weights_would_move_is_worth_a_flow(width, shift):
    assert rung(width, shift).spared() == ""


def test_the_gap_is_what_the_exact_divergence_is():
    width = 0.9
    exact = 0.5 * (1 / width**2 - 1) + np.log(width)  # KL(q || p), nats
    assert abs(rung(width).left().gap - exact) < 0.01


def nearly_normal(x):
    z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("row", 60):
        pyro.sample("x", dist.Poisson((1.0 + 0.3 * z.sum()).exp()), obs=torch.full((60,), 3.0, dtype=z.dtype))


def test_a_flow_that_could_gain_little_is_not_begun(monkeypatch):
    monkeypatch.setattr(ladder, "effort_for", lambda surface: Effort(gaussian_steps=100, judged_by=2_000))
    monkeypatch.setattr(Rung, "excellent", lambda rung: False)
    flow = vi.fit(nearly_normal, data=torch.zeros(1), progress=False).stages[2]
    assert (flow.name, flow.steps, flow.kept) == ("flow", 0, False)
    assert "could gain" in flow.reason


def test_a_flow_ends_when_it_gains_nothing_more(monkeypatch):
    monkeypatch.setattr(ladder, "effort_for", lambda surface: Effort(gaussian_steps=100, judged_by=2_000))
    monkeypatch.setattr(Rung, "excellent", lambda rung: False)
    monkeypatch.setattr(rungs, "_LEAST_GAIN", 0.02)
    fit = vi.fit(skewed, data=X[0], progress=False)
    flow = fit.stages[2]
    assert flow.kept
    assert 500 < flow.steps < 4_000
    assert "ended early" in flow.reason
    assert fit.stopped.reason is StopReason.CONVERGED
    assert fit.resume().steps == flow.steps  # nothing is left of the plan


def losses(gain, noise, count=1_200):
    generator = np.random.default_rng(0)
    trend = np.where(np.arange(count) < 2 * count // 3, gain, 0.0)
    return list(trend + noise * generator.standard_normal(count))


def test_settled_asks_whether_a_gain_matters_not_whether_it_is_noise():
    rule = Settled(0.003, 400)
    assert rule(losses(0.0, 0.001), 0.0).reason is StopReason.CONVERGED
    assert rule(losses(0.0, 0.001)[:300], 0.0) is None  # too early
    assert rule(losses(0.01, 0.001), 0.0) is None  # a gain
    assert rule(losses(0.0, 0.5), 0.0) is None  # noise that may hide one
