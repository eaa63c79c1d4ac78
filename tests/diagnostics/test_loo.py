"""Leave-one-out from an approximate posterior, against the exact one of a conjugate model."""

import math

import arviz as az
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import AutoNormal
from pyro.poutine import block
from scipy import stats

import vipack as vi
from vipack.diagnostics import loo

N, PRIOR = 20, 3.0
Y = np.random.default_rng(0).normal(1.0, 1.0, N)
DATA = torch.as_tensor(Y, dtype=torch.float32)


def model(y):
    mu = pyro.sample("mu", dist.Normal(0.0, PRIOR))
    with pyro.plate("rows", N):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def off_by(shift=0.0, factor=1.0):
    precision = N + PRIOR**-2

    def guide(y):
        pyro.sample("mu", dist.Normal(y.sum() / precision + shift * precision**-0.5, factor * precision**-0.5))

    return guide


def exact_elpds(y=Y):
    precision = len(y) - 1 + PRIOR**-2
    means = (y.sum() - y) / precision
    return stats.norm(means, math.sqrt(1 + 1 / precision)).logpdf(y)


@pytest.mark.parametrize(("shift", "factor"), [(0.0, 1.0), (0.0, 1.4), (0.5, 1.0), (0.4, 1.3)])
def test_it_is_the_exact_one_whatever_the_guide_is_off_by(shift, factor):
    fits = vi.fit(model, off_by(shift, factor), data=DATA, steps=0)
    found = [loo(fits, num_draws=4_000, seed=seed) for seed in range(5)]
    elpds = np.mean([each.elpds for each in found], axis=0)
    np.testing.assert_allclose(elpds, exact_elpds(), atol=0.02)
    one = found[0]
    assert one.elpd.value == pytest.approx(exact_elpds().sum(), abs=0.1)
    assert one.elpd.se == pytest.approx(exact_elpds().std(ddof=1) * math.sqrt(N), rel=0.05)
    assert one.influential == ()
    assert one.names[:2] == ("y[0]", "y[1]")


def test_the_effective_number_of_parameters_is_about_one():
    assert loo(vi.fit(model, off_by(), data=DATA, steps=0)).effective_parameters == pytest.approx(1.0, abs=0.4)


def test_an_influential_observation_is_named():
    y = DATA.clone()
    y[7] = 12.0
    found = loo(vi.fit(model, off_by(), data=y, steps=0))
    assert found.influential[0] == "y[7]"
    assert "y[7]" in str(found)


@pytest.mark.filterwarnings("ignore:Estimated shape parameter")  # ArviZ's own word on the influential one
def test_with_the_exact_posterior_for_a_guide_it_is_arvizs():
    y = DATA.clone()
    y[7] = 12.0
    fit = vi.fit(model, off_by(), data=y, steps=0, dtype=torch.float64)
    found = loo(fit, num_draws=1_000)
    mu = fit.sample(1_000)["mu"]
    table = fit.posterior.log_likelihood({"mu": mu})["y"].numpy()
    theirs = az.loo(az.from_dict(posterior={"mu": mu.numpy()[None]}, log_likelihood={"y": table[None]}), pointwise=True)
    assert found.khats[7] > 0.8
    np.testing.assert_allclose(found.khats, theirs.pareto_k, atol=1e-6)
    np.testing.assert_allclose(found.elpds, theirs.loo_i, atol=1e-6)
    assert found.effective_parameters == pytest.approx(theirs.p_loo, abs=1e-6)


def test_a_guide_that_weights_cannot_mend_is_said_to_be_one():
    found = loo(vi.fit(model, off_by(6.0, 0.3), data=DATA, steps=0))
    assert found.khat > 0.7
    assert "fit a better guide" in str(found)


def test_masked_observations_are_left_out():
    def masked(y, seen):
        mu = pyro.sample("mu", dist.Normal(0.0, PRIOR))
        with pyro.plate("rows", N):
            pyro.sample("y", dist.Normal(mu, 1.0).mask(seen), obs=y)

    def guide(y, seen):
        precision = N - 5 + PRIOR**-2
        pyro.sample("mu", dist.Normal(y[5:].sum() / precision, precision**-0.5))

    found = loo(vi.fit(masked, guide, data=(DATA, torch.arange(N) >= 5), steps=0))
    assert found.names[0] == "y[5]"
    np.testing.assert_allclose(found.elpds, exact_elpds(Y[5:]), atol=0.05)


def test_what_leave_one_out_cannot_do_is_named():
    def rows(y):
        with pyro.plate("rows", len(y)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    with pytest.raises(vi.errors.UsageError, match="every latent belongs to one row"):
        loo(vi.fit(rows, AutoNormal, data=DATA, steps=2))

    @config_enumerate
    def mixture(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(y)):
            k = pyro.sample("k", dist.Bernoulli(0.5))
            pyro.sample("y", dist.Normal(mu * k, 1.0), obs=y)

    guide = AutoNormal(block(mixture, hide=["k"]))
    with pytest.raises(vi.errors.UsageError, match="no observation has a density of its own"):
        loo(vi.fit(mixture, guide, data=DATA, loss=TraceEnum_ELBO(max_plate_nesting=1), steps=2))
    with pytest.raises(vi.errors.UsageError, match="num_draws: expected an integer of at least 100"):
        loo(vi.fit(model, off_by(), data=DATA, steps=0), num_draws=5)
