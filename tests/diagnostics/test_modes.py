"""Modes that a guide misses are found where they hold mass, and no others are invented."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal

import vipack as vi
from vipack.diagnostics import Verdict
from vipack.errors import ModelError

WIDE = 20.0


def two_bumps(apart, dim, share):
    """Normal bumps of sd 1 at -apart / 2 and at apart / 2 in each dimension, the second with `share` of the mass."""

    def model():
        z = pyro.sample("z", dist.Normal(torch.zeros(dim), WIDE).to_event(1))
        bumps = [dist.Normal(torch.full((dim,), c), 1.0).to_event(1).log_prob(z) for c in (-apart / 2, apart / 2)]
        prior = dist.Normal(torch.zeros(dim), WIDE).to_event(1).log_prob(z)
        pyro.factor("bumps", torch.logaddexp(bumps[0] + math.log(1 - share), bumps[1] + math.log(share)) - prior)

    return model


def at_first(apart, dim):
    def guide():
        pyro.sample("z", dist.Normal(torch.full((dim,), -apart / 2), 1.0).to_event(1))

    return guide


def at_both(apart, dim, share):
    def guide():
        mixing = dist.Categorical(torch.tensor([1 - share, share]))
        locs = torch.tensor([[-apart / 2], [apart / 2]]).expand(2, dim)
        pyro.sample("z", dist.MixtureSameFamily(mixing, dist.Normal(locs, 1.0).to_event(1)))

    return guide


@pytest.mark.parametrize(
    ("apart", "dim", "share"), [(8.0, 1, 0.45), (2_000.0, 3, 0.45), (8.0, 5, 0.2), (10.0, 2, 0.05)]
)
def test_a_missed_mode_is_found_and_named(apart, dim, share):
    found = vi.fit(two_bumps(apart, dim, share), at_first(apart, dim), data=(), steps=0).diagnose()
    assert found.verdict is Verdict.DISTRUST
    assert "another mode at z = " in found.reasons[0]
    missed = found.modes.missed[0]
    assert torch.allclose(missed.at["z"], torch.full((dim,), apart / 2), atol=0.1)
    # Half of the mode lies in its inner ellipsoid, beside all of what the guide covers.
    assert missed.share == pytest.approx(0.5 * share / (1 - share + 0.5 * share), rel=0.25)
    assert missed.drawn == 0.0


@pytest.mark.parametrize(("dim", "share"), [(1, 0.5), (3, 0.2)])
def test_a_guide_of_both_modes_misses_none(dim, share):
    found = vi.fit(two_bumps(8.0, dim, share), at_both(8.0, dim, share), data=(), steps=0).diagnose()
    assert found.verdict is Verdict.TRUST, str(found)
    assert found.modes.num_modes == 2
    assert found.modes.missed == ()


def test_a_narrow_mode_beside_a_wide_one_is_found_from_slopes_that_the_wide_one_does_not_explain():
    dim, locs, widths = 5, torch.tensor([[0.0], [60.0]]), torch.tensor([[3.0], [1.0]])
    bumps = dist.MixtureSameFamily(
        dist.Categorical(torch.tensor([0.3, 0.7])), dist.Normal(locs.expand(2, dim), widths.expand(2, dim)).to_event(1)
    )
    prior = dist.Normal(torch.zeros(dim), 100.0).to_event(1)

    def model():
        z = pyro.sample("z", prior)
        pyro.factor("bumps", bumps.log_prob(z) - prior.log_prob(z))

    def guide():
        pyro.sample("z", dist.Normal(torch.zeros(dim), 3.0).to_event(1))

    for seed in range(3):  # random starts lie on the narrow one's side in one case of 250
        found = vi.fit(model, guide, data=(), steps=0).diagnose(seed=seed)
        assert found.verdict is Verdict.DISTRUST, str(found)
        assert torch.allclose(found.modes.missed[0].at["z"], torch.full((dim,), 60.0), atol=0.1)


def improper_in_one_mode():
    z = pyro.sample("z", dist.ImproperUniform(dist.constraints.real, (), ()))
    s = pyro.sample("s", dist.ImproperUniform(dist.constraints.positive, (), ()))
    here = dist.Normal(0.0, 1.0).log_prob(z) + dist.LogNormal(0.0, 0.3).log_prob(s)
    pyro.factor("modes", torch.logaddexp(here, dist.Normal(20.0, 1.0).log_prob(z) - s.log() - 5))


def test_a_posterior_that_is_improper_in_another_mode_is_not_certified():
    found = vi.fit(improper_in_one_mode, data=(), seed=0).diagnose()
    assert found.verdict is Verdict.DISTRUST
    assert "seems improper" in found.reasons[0]
    assert "'s'" in found.reasons[0]


def test_a_tail_that_ceases_to_fall_is_improper_however_low():
    def model():
        z = pyro.sample("z", dist.ImproperUniform(dist.constraints.real, (), ()))
        level = torch.where(z > 50, -3.0, -1e4)
        pyro.factor("tail", torch.logaddexp(dist.Normal(0.0, 1.0).log_prob(z), level))

    with pytest.raises(ModelError, match=r"seems improper: .* 'z' .*falls no further"):
        vi.fit(model, data=(), seed=0)


def spike_and_slab():
    slab = dist.Normal(0.0, 1.0)
    z = pyro.sample("z", slab)
    pyro.factor("spike", torch.logaddexp(dist.Normal(0.0, 1e-3).log_prob(z), slab.log_prob(z)) - slab.log_prob(z))


@pytest.mark.parametrize("apart", [30.0, 100.0, 300.0, 1_000.0, 10_000.0])
def test_another_mode_far_away_is_no_level_tail(apart):
    assert vi.fit(two_bumps(apart, 1, 0.4), data=(), seed=0).stages[0].kept


def test_a_slab_below_a_spike_is_no_level_tail():
    assert vi.fit(spike_and_slab, data=(), seed=0).stages[0].kept


@pytest.mark.parametrize("tail", [dist.Cauchy(0.0, 1.0), dist.StudentT(0.5, 0.0, 1.0), dist.Laplace(0.0, 1.0)])
def test_heavy_tails_are_proper(tail):
    def model():
        pyro.sample("z", tail)
        nothing_observed()

    assert vi.fit(model, data=(), seed=0).stages[0].kept


def test_a_mode_of_little_mass_raises_no_alarm():
    found = vi.fit(two_bumps(10.0, 2, 0.005), at_first(10.0, 2), data=(), steps=0).diagnose()
    assert found.verdict is Verdict.TRUST
    assert found.modes.missed == ()


def nothing_observed():
    pyro.factor("nothing", torch.zeros(()))


def banana():
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(x**2, 0.5))
    nothing_observed()


def funnel():
    s = pyro.sample("s", dist.Normal(0.0, 0.5))
    pyro.sample("z", dist.Normal(torch.zeros(3), s.exp()).to_event(1))
    nothing_observed()


def gamma():
    pyro.sample("tau", dist.Gamma(3.0, 1.0))
    nothing_observed()


@pytest.mark.parametrize("model", [banana, funnel, gamma])
def test_one_mode_of_an_odd_shape_raises_no_alarm(model):
    found = vi.fit(model, AutoMultivariateNormal, data=(), steps=400).diagnose()
    assert found.modes is None or found.modes.missed == (), str(found)


def test_the_search_can_be_left_out():
    fit = vi.fit(two_bumps(8.0, 1, 0.5), at_first(8.0, 1), data=(), steps=0)
    found = vi.diagnostics.diagnose(fit.posterior, modes=False)
    assert found.modes is None
    assert found.verdict is Verdict.TRUST
