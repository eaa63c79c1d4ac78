"""The Laplace approximation: exact where the posterior is Gaussian, an error where there is no maximum."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints

from tests.objectives.conjugate import LOG_EVIDENCE, MEAN, SCALE_TRIL, X, Y, regression
from vipack.errors import GuideError
from vipack.guides import Flow, from_laplace
from vipack.objectives import StickingTheLanding


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e4])
def test_it_is_the_posterior_of_a_gaussian_model(scale):
    def rescaled(x, y):
        beta = pyro.sample("beta", dist.ImproperUniform(constraints.real, (2,), ()).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x @ beta, torch.ones((), dtype=x.dtype)), obs=y)

    rows = X * torch.tensor([1.0, scale], dtype=X.dtype)
    guide = from_laplace(rescaled, (rows, Y))
    guide(rows, Y)
    covariance = torch.linalg.inv(rows.T @ rows)
    posterior = guide.get_posterior()
    draws = posterior.sample((20_000,))
    torch.testing.assert_close(guide.origin, covariance @ rows.T @ Y, rtol=1e-6, atol=0)
    torch.testing.assert_close(guide.scale_tril @ guide.scale_tril.T, covariance, rtol=1e-6, atol=0)
    torch.testing.assert_close(draws.std(0), covariance.diagonal().sqrt(), rtol=0.03, atol=0)


def test_a_base_family_starts_at_it():
    guide = from_laplace(regression, (X,), {"y": Y}, base=Flow)
    assert StickingTheLanding(4).loss(regression, guide_called(guide), X, Y) == pytest.approx(-LOG_EVIDENCE.item())
    torch.testing.assert_close(guide.origin, MEAN)
    torch.testing.assert_close(guide.scale_tril, SCALE_TRIL)


def guide_called(guide):
    guide(X, Y)
    return guide


def test_a_flat_direction_is_named():
    def two_of_one(y):
        a = pyro.sample("a", dist.ImproperUniform(constraints.real, (), ()))
        b = pyro.sample("b", dist.ImproperUniform(constraints.real, (), ()))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(a + b, 1.0), obs=y)

    with pytest.raises(GuideError, match=r"'[ab]'.*improper"):
        from_laplace(two_of_one, (Y,))


def test_a_log_joint_that_is_finite_nowhere_is_an_error():
    def nowhere():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.factor("f", -torch.inf + z * 0)

    with pytest.raises(GuideError, match="not finite at any of 4"):
        from_laplace(nowhere)
