"""Draws from fixed noise have the guide's moments, and the derivatives of its quantiles."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from pyro import poutine

from vipack.posterior.linear_response.base_draws import FromNoise, base_noise


def noise_of(guide, number, seed=0):
    trace = poutine.trace(guide).get_trace()
    return base_noise(trace, number, torch.Generator().manual_seed(seed))


def drawn(guide, noise, number):
    values = []
    for i in range(number):
        with FromNoise({name: value[i] for name, value in noise.items()}):
            values.append(poutine.trace(guide).get_trace().nodes["z"]["value"])
    return torch.stack(values)


LOC = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
TRIL = torch.tensor([[1.0, 0.0, 0.0], [0.5, 2.0, 0.0], [-1.0, 0.3, 0.7]], dtype=torch.float64)
FACTOR = torch.tensor([[1.0], [0.5], [-2.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("distribution", "covariance"),
    [
        (
            dist.Normal(LOC, torch.tensor([1.0, 2.0, 0.1], dtype=torch.float64)).to_event(1),
            torch.tensor([1.0, 4.0, 0.01]).diag(),
        ),
        (dist.Normal(LOC, 2.0).mask(True), torch.tensor([4.0, 4.0, 4.0]).diag()),
        (dist.MultivariateNormal(LOC, scale_tril=TRIL), TRIL @ TRIL.T),
        (
            dist.LowRankMultivariateNormal(LOC, FACTOR, torch.ones(3, dtype=torch.float64)),
            FACTOR @ FACTOR.T + torch.eye(3),
        ),
        (
            dist.TransformedDistribution(
                dist.Normal(torch.zeros(3, dtype=torch.float64), 1.0), dist.transforms.AffineTransform(LOC, 3.0)
            ),
            torch.tensor([9.0, 9.0, 9.0]).diag(),
        ),
    ],
    ids=["normal", "masked", "full", "low rank", "transformed"],
)
def test_moments_of_normals_are_exact(distribution, covariance):
    def guide():
        pyro.sample("z", distribution)

    values = drawn(guide, noise_of(guide, 16), 16)
    torch.testing.assert_close(values.mean(0), LOC)
    away = values - LOC
    torch.testing.assert_close(away.T @ away / 16, covariance.double())


def test_more_numbers_than_draws_have_their_own_moments_all_the_same():
    def guide():
        pyro.sample("z", dist.Normal(torch.zeros(50), 1.0).to_event(1))

    values = drawn(guide, noise_of(guide, 8), 8)
    torch.testing.assert_close(values.mean(0), torch.zeros(50), atol=1e-6, rtol=0)
    torch.testing.assert_close(values.square().mean(0), torch.ones(50))


@pytest.mark.parametrize("concentration", [0.02, 0.7, 3.0, 400.0])
def test_a_gamma_draw_moves_along_its_quantile(concentration):
    """To the second order, as the quantile of a fixed probability does."""
    parameter = torch.tensor(concentration, dtype=torch.float64, requires_grad=True)

    def guide():
        pyro.sample("z", dist.Gamma(parameter, torch.tensor(2.0, dtype=torch.float64)))

    noise = noise_of(guide, 4)
    values = drawn(guide, noise, 4)
    step = 1e-2 * concentration
    for value, near in zip(values, _quantiles_near(values, concentration, step), strict=True):
        if value < 1e-200:  # the first and second derivative of the logarithm are those of the series
            continue
        (slope,) = torch.autograd.grad(value.log(), parameter, create_graph=True)
        (curvature,) = torch.autograd.grad(slope, parameter, retain_graph=True)
        low, middle, high = near
        assert slope.item() == pytest.approx((high - low) / (2 * step), rel=2e-2)
        assert curvature.item() == pytest.approx((high - 2 * middle + low) / step**2, rel=2e-2)
        assert value.log().item() == pytest.approx(middle, rel=1e-6, abs=1e-6)


def _quantiles_near(values, concentration, step):
    for value in values.tolist():
        own = scipy.stats.gamma(concentration, scale=0.5)
        # whichever tail is the smaller keeps its digits
        lower = own.cdf(value) < 0.5
        probability = own.cdf(value) if lower else own.sf(value)
        near = [scipy.stats.gamma(concentration + sign * step, scale=0.5) for sign in (-1, 0, 1)]
        yield [float(np.log(one.ppf(probability) if lower else one.isf(probability))) for one in near]


def test_levels_of_quantiles_are_stratified():
    def guide():
        pyro.sample("z", dist.Gamma(torch.full((5,), 3.0, dtype=torch.float64), 1.0).to_event(1))

    values = drawn(guide, noise_of(guide, 64), 64)
    levels = torch.from_numpy(scipy.stats.gamma(3.0).cdf(values.numpy()))
    assert ((levels * 64).floor().sort(0).values == torch.arange(64)[:, None]).all()


@pytest.mark.parametrize(
    "distribution",
    [
        dist.Beta(torch.tensor(2.0, dtype=torch.float64), torch.tensor(5.0, dtype=torch.float64)),
        dist.Dirichlet(torch.tensor([0.5, 2.0, 4.0], dtype=torch.float64)),
        dist.InverseGamma(torch.tensor(6.0, dtype=torch.float64), torch.tensor(3.0, dtype=torch.float64)),
        dist.LogNormal(torch.tensor(0.5, dtype=torch.float64), torch.tensor(0.4, dtype=torch.float64)),
        dist.Chi2(torch.tensor(4.0, dtype=torch.float64)),
    ],
    ids=lambda d: type(d).__name__,
)
def test_other_distributions_come_near_their_moments(distribution):
    def guide():
        pyro.sample("z", distribution)

    values = drawn(guide, noise_of(guide, 2_000), 2_000)
    torch.testing.assert_close(values.mean(0), distribution.mean, rtol=0.03, atol=0)
    torch.testing.assert_close(values.var(0), distribution.variance, rtol=0.15, atol=0)
