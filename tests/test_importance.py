"""Pareto-smoothed importance weights: as ArviZ makes them, and sensible where it cannot."""

import math

import arviz as az
import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from vipack.diagnostics import importance
from vipack.importance import khat_of_mean


def pareto_tailed(shape, size=4_000, seed=0):
    """Log weights whose tail index is `shape`."""
    return shape * np.random.default_rng(seed).exponential(size=size)


@pytest.mark.parametrize("shape", [0.1, 0.5, 0.9, 1.5])
@pytest.mark.parametrize("size", [200, 4_000])
def test_khat_and_weights_are_arvizs(shape, size):
    """But for weights that smoothing does not tame, which are cut at the square root of their number."""
    log_weights = pareto_tailed(shape, size)
    found = importance(log_weights)
    smoothed, khat = az.psislw(log_weights.copy())
    expected = smoothed - logsumexp(smoothed)
    if khat >= 0.7:
        expected = np.minimum(expected, np.log(size**0.5 / size))
    assert found.khat == pytest.approx(float(khat))
    np.testing.assert_allclose(found.log_weights, expected - logsumexp(expected))
    plain = importance(log_weights, cut=False)
    np.testing.assert_allclose(plain.log_weights, smoothed - logsumexp(smoothed))
    assert plain.khat == found.khat
    assert shape < 1.5 or found.log_weights.max() < (smoothed - logsumexp(smoothed)).max()


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.8, 1.2])
def test_khat_estimates_the_tail_index(shape):
    """Its standard error is about (1 + k) / sqrt(M) with M = 190 draws in the tail of 4,000."""
    khats = [importance(pareto_tailed(shape, seed=seed)).khat for seed in range(20)]
    assert np.mean(khats) == pytest.approx(shape, abs=4 * (1 + shape) / math.sqrt(190 * 20) + 0.05)


def test_weights_are_normalised_and_ess_is_theirs():
    found = importance(torch.from_numpy(pareto_tailed(0.4)))
    weights = np.exp(found.log_weights)
    assert weights.sum() == pytest.approx(1.0)
    assert found.ess == pytest.approx(1 / (weights**2).sum())
    assert 0 < found.ess_share == found.ess / 4_000 < 1


@pytest.mark.parametrize("constant", [0.0, -1e4, 700.0])
def test_constant_weights_are_perfect(constant):
    found = importance(np.full(1_000, constant))
    assert (found.khat, found.ess) == (0.0, 1_000.0)
    np.testing.assert_allclose(found.log_weights, -math.log(1_000))


def test_a_shift_of_the_log_weights_changes_nothing():
    log_weights = pareto_tailed(0.6)
    one, other = importance(log_weights), importance(log_weights - 12_345.0)
    assert other.khat == pytest.approx(one.khat, abs=1e-4)
    assert other.ess == pytest.approx(one.ess, rel=1e-4)


@pytest.mark.parametrize("zero", [-math.inf, math.nan])
def test_draws_without_a_density_weigh_nothing(zero):
    log_weights = pareto_tailed(0.4)
    log_weights[::10] = zero
    found = importance(log_weights)
    assert np.exp(found.log_weights[::10]).max() < 1e-30
    assert math.isfinite(found.khat)
    assert found.ess < 0.9 * len(log_weights)
    assert np.exp(found.log_weights).sum() == pytest.approx(1.0)


def test_with_no_density_anywhere_nothing_is_certified():
    found = importance(np.full(100, -math.inf))
    assert (found.khat, found.ess) == (math.inf, 0.0)


def test_the_weights_given_are_not_changed():
    log_weights = torch.from_numpy(pareto_tailed(0.4))
    before = log_weights.clone()
    importance(log_weights)
    assert torch.equal(log_weights, before)


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("shape", [0.2, 0.5, 1.0])
def test_the_khat_of_a_mean_is_that_of_the_heavier_tail(shape, side):
    rng = np.random.default_rng(0)
    values = 5.0 + side * np.r_[rng.pareto(1 / shape, size=20_000), -rng.exponential(size=20_000)]
    assert khat_of_mean(values) == pytest.approx(shape, abs=4 * (1 + shape) / math.sqrt(600) + 0.05)


def test_a_mean_of_constants_or_of_what_is_no_number():
    assert khat_of_mean(np.full(100, 3.0)) == 0
    assert khat_of_mean(np.r_[np.zeros(99), -np.inf]) == math.inf
    assert khat_of_mean(np.r_[np.zeros(99), np.nan]) == math.inf
