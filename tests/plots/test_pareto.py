import numpy as np
import pytest
import scipy.stats

from vipack.diagnostics import importance
from vipack.plots.pareto import fit_tail

RNG = np.random.default_rng(0)
LOG_WEIGHTS = {
    "light": RNG.normal(size=1_000),
    "heavy": 2.5 * RNG.normal(size=4_000),
    "student": RNG.standard_t(3, size=500),
    "bounded": np.log(RNG.uniform(size=300)),
    "few": RNG.normal(size=26),
}


def weights(name: str) -> np.ndarray:
    log_weights = LOG_WEIGHTS[name]
    return np.exp(log_weights - log_weights.max())


@pytest.mark.parametrize("name", LOG_WEIGHTS)
def test_khat_is_that_of_diagnostics(name):
    assert fit_tail(weights(name)).khat == pytest.approx(importance(LOG_WEIGHTS[name]).khat, abs=1e-9)


@pytest.mark.parametrize("shape", [0.2, 0.5, 1.0])
def test_the_fit_recovers_shape_and_scale_of_pareto_draws(shape):
    draws = scipy.stats.genpareto(shape, scale=3.0).rvs(40_000, random_state=1)
    tail = fit_tail(draws)
    sd = (1 + shape) / np.sqrt(600)  # of the maximum-likelihood shape from the 600 largest (Smith 1987)
    assert abs(tail.khat - shape) < 4 * sd
    assert tail.share == 600 / 40_000
    # Beyond its cutoff a Pareto is a Pareto of the same shape, and scale grown by shape * cutoff.
    assert tail.scale == pytest.approx(3.0 + shape * tail.cutoff, rel=4 * np.sqrt(2 * (1 + shape) / 600))


def test_survival_starts_at_the_tail_and_is_that_of_scipy():
    tail = fit_tail(weights("heavy"))
    grid = tail.cutoff + np.linspace(0, 5, 7)
    expected = tail.share * scipy.stats.genpareto(tail.khat, loc=tail.cutoff, scale=tail.scale).sf(grid)
    np.testing.assert_allclose(tail.survival(grid), expected)
    assert tail.survival(grid)[0] == pytest.approx(tail.share)
    exponential = tail.share * scipy.stats.expon(loc=tail.cutoff, scale=tail.scale).sf(grid)
    np.testing.assert_allclose(tail.survival(grid, 0.0), exponential)


@pytest.mark.parametrize("values", [np.ones(100), np.arange(4.0), np.r_[np.zeros(99), 1.0], np.array([1.0])])
def test_weights_without_a_tail_have_no_fit(values):
    assert fit_tail(values) is None
