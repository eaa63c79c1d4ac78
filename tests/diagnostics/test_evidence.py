"""ELBO and log evidence from draws, against an evidence that is known."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from vipack.diagnostics import elbo, log_evidence

REPEATS, DRAWS = 400, 250
LOG_EVIDENCE = -3.7


def log_weights(scale, seed):
    """Of a guide Normal(0, scale) for a posterior Normal(0, 1) with the evidence above."""
    z = np.random.default_rng(seed).normal(0.0, scale, DRAWS)
    return torch.from_numpy(LOG_EVIDENCE + stats.norm(0, 1).logpdf(z) - stats.norm(0, scale).logpdf(z))


@pytest.mark.parametrize("scale", [1.5, 0.9])
def test_the_evidence_estimate_is_unbiased_on_its_own_scale(scale):
    ratios = np.array(
        [math.exp(log_evidence(log_weights(scale, seed)).value - LOG_EVIDENCE) for seed in range(REPEATS)]
    )
    assert abs(ratios.mean() - 1) < 4 * ratios.std() / math.sqrt(REPEATS)


@pytest.mark.parametrize("scale", [1.5, 0.9])
def test_standard_errors_are_the_scatter_of_the_estimates(scale):
    for estimate in (elbo, log_evidence):
        found = [estimate(log_weights(scale, seed)) for seed in range(REPEATS)]
        scatter = np.std([each.value for each in found])
        assert np.mean([each.se for each in found]) == pytest.approx(scatter, rel=0.15)


def test_the_elbo_is_below_the_evidence_by_the_divergence():
    """KL(N(0, s) || N(0, 1)) = (s**2 - 1) / 2 - log s."""
    scale = 1.5
    found = [elbo(log_weights(scale, seed)).value for seed in range(REPEATS)]
    expected = LOG_EVIDENCE - ((scale**2 - 1) / 2 - math.log(scale))
    assert np.mean(found) == pytest.approx(expected, abs=4 * np.std(found) / math.sqrt(REPEATS))


def test_equal_weights_have_no_error():
    for estimate in (elbo, log_evidence):
        found = estimate(torch.full((10,), LOG_EVIDENCE, dtype=torch.float64))
        assert found.value == pytest.approx(LOG_EVIDENCE)
        assert found.se == pytest.approx(0.0, abs=1e-12)


def test_one_draw_has_an_unknown_error():
    for estimate in (elbo, log_evidence):
        found = estimate(torch.tensor([LOG_EVIDENCE], dtype=torch.float64))
        assert found.value == pytest.approx(LOG_EVIDENCE)
        assert math.isnan(found.se)


def test_weights_far_from_zero_do_not_overflow():
    found = log_evidence(torch.tensor([-1e5, -1e5 + 1.0], dtype=torch.float64))
    assert found.value == pytest.approx(-1e5 + math.log((1 + math.e) / 2))
