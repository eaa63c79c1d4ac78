"""Annealed importance sampling of observations, held against a model whose log p(x) is known."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import vipack as vi
from tests.posterior.linear_vae import exact, observations, trained
from vipack.errors import UsageError
from vipack.posterior import RowEvidence
from vipack.posterior.annealing import Annealing, Sandwich

NEW = observations(150, 99)


@pytest.fixture(scope="module")
def poor() -> vi.Fit:
    return trained(150)


@pytest.fixture(scope="module")
def annealed(poor) -> RowEvidence:
    return poor.annealed_evidence(data=NEW, num_chains=16, num_temperatures=60)


def test_it_comes_nearer_than_many_times_as_many_particles(poor, annealed):
    sampled = poor.log_evidence(1_000, data=NEW)
    lacks, lacked = (float(exact(NEW).mean()) - answer.rows.mean() for answer in (annealed, sampled))
    assert lacks < 0.05
    assert lacked > 2 * max(lacks, 0.02)
    assert annealed.interval[0] < float(exact(NEW).mean()) < annealed.interval[1]
    assert "16 annealed chains" in str(annealed)


def test_it_is_right_for_each_observation(annealed):
    z = (annealed.rows - exact(NEW).numpy()) / np.maximum(annealed.row_se, 0.02)
    assert np.abs(np.median(z)) < 0.3
    assert (np.abs(z) < 3).mean() > 0.95


def test_the_seed_decides(poor):
    def of(seed):
        return poor.annealed_evidence(data=NEW[:5], num_chains=4, num_temperatures=5, seed=seed).rows

    np.testing.assert_array_equal(of(1), of(1))
    assert (of(1) != of(2)).all()


def test_simulated_observations_are_bounded_from_both_sides(poor):
    bounds = poor.simulated_evidence(200, num_chains=16, num_temperatures=60, seed=5)
    assert isinstance(bounds, Sandwich)
    x = poor.generate(200, seed=5)["x"]
    truth = exact(x).numpy()
    below, above = bounds.lower - truth, bounds.upper - truth
    assert -0.1 < below.mean() < 2 * below.std() / 200**0.5
    assert 0.1 > above.mean() > -2 * above.std() / 200**0.5
    assert bounds.gap.value == pytest.approx((bounds.upper - bounds.lower).mean())
    assert "200 simulated" in str(bounds)


@pytest.mark.parametrize("bad", [{"num_chains": 0}, {"num_temperatures": 1.5}, {"num_leapfrog": True}])
def test_options_are_checked(bad):
    with pytest.raises(UsageError, match=next(iter(bad))):
        Annealing(**bad)


def test_latents_that_cannot_be_moved_everywhere_are_named():
    def model(x):
        with pyro.plate("data", len(x)):
            r = pyro.sample("r", dist.LogNormal(0.0, 1.0))
            pyro.sample("x", dist.Normal(r, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("r", dist.LogNormal(x, 0.5))

    fit = vi.fit(model, guide, data=torch.ones(6), steps=0)
    with pytest.raises(UsageError, match="'r' is a LogNormal"):
        fit.annealed_evidence()


def test_several_latents_and_plates_beside_the_rows():
    """Two latents of other shapes, of which one stands in a plate of columns."""

    def model(x):
        with pyro.plate("data", len(x), dim=-2):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            with pyro.plate("columns", 3, dim=-1):
                b = pyro.sample("b", dist.Normal(a, 1.0))
                pyro.sample("x", dist.Normal(b, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("a", dist.Normal(x.mean(-1, keepdim=True) / 2, 0.8))
            with pyro.plate("columns", 3, dim=-1):
                pyro.sample("b", dist.Normal(x / 2, 0.8))

    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    answer = vi.fit(model, guide, data=x, steps=0).annealed_evidence(num_temperatures=40)
    truth = dist.MultivariateNormal(torch.zeros(3), 2 * torch.eye(3) + 1.0).log_prob(x)
    assert answer.rows.mean() == pytest.approx(float(truth.mean()), abs=0.05)


def test_latents_without_dimensions():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 3, 1.0))

    x = torch.linspace(-2.0, 2.0, 30)
    fit = vi.fit(model, guide, data=x, steps=0)
    truth = dist.Normal(0.0, 2**0.5).log_prob(x)
    assert fit.annealed_evidence(num_temperatures=40).rows.mean() == pytest.approx(float(truth.mean()), abs=0.05)
    assert fit.simulated_evidence(20, num_temperatures=20).gap.value == pytest.approx(0.0, abs=0.2)
    assert vi.vae.evaluate(fit, x, num_particles=50, progress=False).gaps.approximation.value == pytest.approx(
        0.0, abs=0.03
    )
