"""Short chains move the draws of a wrong guide by what is wrong with it, and leave those of a right one."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

import vipack as vi
from tests.diagnostics.gaussian import DATA, fit_of
from vipack.diagnostics import Verdict, diagnose

OFF = [(0.0, 1.0), (0.5, 1.0), (-1.0, 1.0), (0.0, 0.6), (0.0, 1.6), (0.7, 0.7)]


@pytest.mark.parametrize(("shift", "factor"), OFF)
def test_the_drift_is_what_the_guide_is_off_by(shift, factor):
    found = fit_of(shift, factor).diagnose().drift
    expected_mean, expected_log_sd = np.zeros(5), np.zeros(5)
    expected_mean[0], expected_log_sd[0] = -shift, -math.log(factor)
    assert found.draws.names == ("z[0]", "z[1]", "z[2]", "z[3]", "z[4]")
    np.testing.assert_array_less(np.abs(found.draws.mean - expected_mean), 4.5 * found.draws.mean_se)
    np.testing.assert_array_less(np.abs(found.draws.log_sd - expected_log_sd), 4.5 * found.draws.log_sd_se)
    assert found.draws.sharp(0.02)
    assert 0.6 < found.acceptance < 0.95
    assert not found.stuck


def test_a_seed_decides_the_drift():
    fit = fit_of(0.5)
    one, same, other = (fit.diagnose(seed=seed).drift.draws.mean for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_the_standard_errors_are_the_scatter_over_seeds():
    fit = fit_of()
    found = [fit.diagnose(seed=10 * seed).drift.draws for seed in range(12)]
    for values, errors in (
        (np.array([each.mean for each in found]), np.array([each.mean_se for each in found])),
        (np.array([each.log_sd for each in found]), np.array([each.log_sd_se for each in found])),
    ):
        assert values.std() == pytest.approx(errors.mean(), rel=0.4)  # 60 numbers, not quite independent


@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_one_dimension_thirty_percent_off_is_no_longer_trusted(factor):
    """Its weights are even enough to pass (ESS 90%), but its sd is not right."""

    def one(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        pyro.sample("z", dist.Normal(x / 2, factor * math.sqrt(0.5)))

    found = vi.fit(one, guide, data=torch.tensor(1.0), steps=0).diagnose()
    assert found.verdict is Verdict.CORRECTED, str(found)
    assert "sd of z by a factor" in found.reasons[0]


def test_latents_with_bounds_are_compared_on_their_own_scale():
    """tau ~ Gamma(3, 1), guided by a normal of log tau."""

    def scale():
        pyro.sample("tau", dist.Gamma(3.0, 1.0))
        pyro.factor("nothing", torch.zeros(()))

    fit = vi.fit(scale, AutoNormal, data=(), steps=400)
    found = fit.diagnose()
    tau = fit.sample(50_000)["tau"]
    expected = (3.0 - float(tau.mean())) / math.sqrt(3.0), math.log(math.sqrt(3.0) / float(tau.std()))
    assert found.drift.draws.mean[0] == pytest.approx(expected[0], abs=4.5 * found.drift.draws.mean_se[0])
    assert found.drift.draws.log_sd[0] == pytest.approx(expected[1], abs=4.5 * found.drift.draws.log_sd_se[0])


def test_what_cannot_run_chains_says_so():
    def rows(x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    found = vi.fit(rows, AutoNormal, data=DATA.repeat(10), steps=5).diagnose()
    assert found.drift is None
    assert "rows of data have latents of their own" in found.skipped[0]
    assert "not checked: short chains" in str(found)

    def wide():
        pyro.sample("z", dist.Normal(torch.zeros(1_500), 1.0).to_event(1))
        pyro.factor("nothing", torch.zeros(()))

    found = vi.fit(wide, AutoNormal, data=(), steps=5).diagnose(200)
    assert found.drift is None
    assert "1,500 latent numbers" in found.skipped[0]


def test_a_discrete_latent_in_the_guide_leaves_the_verdict_to_the_weights():
    def coin(x):
        k = pyro.sample("k", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(k, 1.0), obs=x)

    def guide(x):
        pyro.sample("k", dist.Bernoulli(torch.sigmoid(x - 0.5)))

    found = vi.fit(coin, guide, data=torch.tensor(0.7), steps=0).diagnose(1_000)
    assert found.drift is None
    assert "site 'k' is a discrete latent" in found.skipped[0]
    assert found.verdict is Verdict.TRUST


def test_a_model_whose_control_flow_goes_by_values_is_judged_by_its_weights():
    def branching(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0 if float(z) > -50 else 2.0), obs=x)

    def guide(x):
        pyro.sample("z", dist.Normal(x / 2, math.sqrt(0.5)))

    found = vi.fit(branching, guide, data=torch.tensor(1.0), steps=0).diagnose(500)
    assert found.drift is None
    assert "cannot be run for many points at once" in found.skipped[0]
    assert found.verdict is Verdict.TRUST


def test_weights_alone_do_not_certify_one_start_unless_they_are_nearly_even():
    """Of a slow model another mode could have been missed, and nothing would tell."""

    def branching(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0 if float(z) > -50 else 2.0), obs=x)

    def guide(x):
        pyro.sample("z", dist.Normal(x / 2, 1.1))

    fit = vi.fit(branching, guide, data=torch.tensor(1.0), steps=0)
    found = fit.diagnose(500)
    assert found.verdict is Verdict.DISTRUST
    assert "one start" in found.reasons[0]
    assert "restarts=8" in found.advice[0]
    assert not fit.several_starts
    assert diagnose(fit.posterior, num_draws=500, several_starts=True).verdict is Verdict.CORRECTED
    assert diagnose(fit.posterior, num_draws=500, chains=False, modes=False).verdict is Verdict.CORRECTED


def test_five_thousand_latents_are_judged_by_their_weights():
    def wide():
        pyro.sample("z", dist.Normal(torch.zeros(5_000), 1.0).to_event(1))
        pyro.factor("nothing", torch.zeros(()))

    def guide():
        pyro.sample("z", dist.Normal(torch.zeros(5_000), 1.0).to_event(1))

    found = vi.fit(wide, guide, data=(), steps=0).diagnose(500)
    assert found.verdict is Verdict.TRUST
    assert "too many to keep their draws" in found.skipped[0]
