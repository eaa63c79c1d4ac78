"""Whitened coordinates: the guide starts at the Gaussian that whitens, in any base family."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import autoguide

import vipack as vi
from vipack.errors import GuideError, ShapeError, UsageError
from vipack.guides import Flow, Whitened

LOC = torch.tensor([1.0, -2.0, 0.5])
SCALE_TRIL = torch.tensor([[2.0, 0.0, 0.0], [1.0, 0.5, 0.0], [-1.0, 0.3, 3.0]])
SCALE = torch.tensor([0.5, 2.0, 1.0])
FACTOR = torch.tensor([[1.0, 0.0], [2.0, -1.0], [0.5, 0.3]])
POINTS = torch.randn(20, 3, generator=torch.Generator().manual_seed(1))


def model():
    pyro.sample("a", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    pyro.sample("b", dist.LogNormal(0.0, 1.0))


def started(base, **whitening):
    guide = Whitened(model, base, loc=LOC, **whitening)
    guide()
    return guide.get_posterior()


@pytest.mark.parametrize(
    "base", [autoguide.AutoMultivariateNormal, autoguide.AutoDiagonalNormal, Flow, partial(Flow, kind="spline")]
)
def test_it_starts_at_the_gaussian_that_whitens(base):
    dense = dist.MultivariateNormal(LOC, scale_tril=SCALE_TRIL).log_prob(POINTS)
    low_rank = dist.LowRankMultivariateNormal(LOC, FACTOR, SCALE.square()).log_prob(POINTS)
    torch.testing.assert_close(started(base, scale_tril=SCALE_TRIL).log_prob(POINTS), dense, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(
        started(base, scale=SCALE, factor=FACTOR).log_prob(POINTS), low_rank, rtol=1e-5, atol=1e-4
    )


def test_a_diagonal_needs_no_factor():
    expected = dist.Normal(LOC, SCALE).to_event(1).log_prob(POINTS)
    torch.testing.assert_close(started(autoguide.AutoDiagonalNormal, scale=SCALE).log_prob(POINTS), expected)


def test_a_low_rank_base_starts_within_a_ten_thousandth_of_the_covariance():
    expected = dist.MultivariateNormal(LOC, scale_tril=SCALE_TRIL).log_prob(POINTS)
    found = started(autoguide.AutoLowRankMultivariateNormal, scale_tril=SCALE_TRIL).log_prob(POINTS)
    torch.testing.assert_close(found, expected, rtol=3e-3, atol=1e-2)


def test_its_coordinates_have_unit_scale_where_the_posterior_does_not():
    rows = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 1e-3])
    truth = torch.tensor([2.0, 3e3])
    y = rows @ truth

    def regression(x, y):
        beta = pyro.sample("beta", dist.ImproperUniform(dist.constraints.real, (), (2,)).to_event(0))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x @ beta, 1.0), obs=y)

    precision = rows.T @ rows
    factor = torch.linalg.cholesky(torch.linalg.inv(precision))
    fit = vi.fit(regression, Whitened(regression, loc=truth * 0.9, scale_tril=factor), data=(rows, y), steps=300)
    draws = fit.sample(2000)["beta"]
    torch.testing.assert_close(draws.mean(0), truth, rtol=0.05, atol=0.1)
    torch.testing.assert_close(draws.std(0), torch.linalg.inv(precision).diagonal().sqrt(), rtol=0.1, atol=0)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"loc": LOC}, UsageError, "scale_tril= or as scale="),
        ({"loc": LOC, "scale": SCALE, "scale_tril": SCALE_TRIL}, UsageError, "either"),
        ({"loc": LOC[None], "scale": SCALE}, ShapeError, "loc"),
        ({"loc": LOC, "scale": SCALE[:2]}, ShapeError, "scale"),
        ({"loc": LOC, "scale": SCALE, "factor": SCALE}, ShapeError, "factor"),
        ({"loc": LOC, "scale": -SCALE}, UsageError, "positive"),
        ({"loc": LOC, "scale_tril": torch.zeros(3, 3)}, UsageError, "diagonal"),
        ({"loc": LOC, "scale": SCALE, "base": autoguide.AutoNormal}, GuideError, "base"),
    ],
)
def test_bad_options_are_named(options, error, words):
    with pytest.raises(error, match=words):
        Whitened(model, **options)


def test_a_loc_of_another_model_is_named():
    with pytest.raises(ShapeError, match=r"2 elements.*3 unconstrained"):
        Whitened(model, loc=LOC[:2], scale=SCALE[:2])()
