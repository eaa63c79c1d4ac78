"""Locals given globals: the density of the draws, hierarchies and funnels held exactly, plates found."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import vipack as vi
from vipack.guides import Structured
from vipack.objectives import StickingTheLanding


def crossed():
    """Two globals, rows of 3 with a pair and a scalar, crossed plates, and a plate of positive latents."""
    pyro.sample("g", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    one, two = pyro.plate("one", 3, dim=-1), pyro.plate("two", 2, dim=-2)
    with one:
        pyro.sample("pair", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        pyro.sample("positive", dist.HalfNormal(1.0))
    with one, two:
        pyro.sample("cell", dist.Normal(0.0, 1.0))
    with two:
        pyro.sample("shares", dist.Dirichlet(torch.ones(3)))


def no_globals():
    with pyro.plate("one", 4):
        pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))


def no_plates():
    pyro.sample("z", dist.Normal(0.0, 1.0).expand([3]).to_event(1))


@pytest.mark.parametrize("model", [crossed, no_globals, no_plates])
def test_density_is_the_base_density_over_the_jacobian(model):
    torch.manual_seed(0)
    guide = Structured(model)
    guide()
    guide.double()
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    transform = guide.get_transform()
    eps = torch.randn(guide.latent_dim, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(transform, eps)
    expected = guide.get_base_dist().log_prob(eps) - torch.linalg.slogdet(jacobian)[1]
    torch.testing.assert_close(guide.get_posterior().log_prob(transform(eps)), expected)
    torch.testing.assert_close(transform.inv(transform(eps).clone()), eps)
    many = torch.randn(5, guide.latent_dim, dtype=torch.float64)
    torch.testing.assert_close(transform(many)[2], transform(many[2]))


def test_rows_depend_on_globals_and_not_on_each_other():
    guide = Structured(crossed)
    guide()
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    jacobian = torch.autograd.functional.jacobian(guide.get_transform(), torch.randn(guide.latent_dim))
    back = jacobian[guide.order]
    assert (back[2:, :2].abs() > 1e-6).all()  # on both globals
    assert (back[:2, 2:] == 0).all()
    assert (back[2:5, 5:] == 0).all()  # the first row: a pair and a scalar
    assert (back[3, 2].abs() > 1e-6).all()


def test_a_funnel_is_held_exactly():
    """x_n ~ N(0, exp(v)) has location 0 and log scale linear in v, which is in the family."""

    def funnel():
        v = pyro.sample("v", dist.Normal(torch.zeros((), dtype=torch.float64), 1.5))
        with pyro.plate("rows", 3):
            pyro.sample("x", dist.Normal(torch.zeros((), dtype=torch.float64), v.exp()))

    guide = Structured(funnel)
    guide()
    guide.double()
    with torch.no_grad():
        guide.loc.zero_()
        guide.scale_unconstrained.copy_(torch.tensor([1.5, 1.0, 1.0, 1.0]).double().expm1().log())
        guide.widen_0.fill_(1.5)
    assert StickingTheLanding(8).loss(funnel, guide) == pytest.approx(0.0, abs=1e-9)
    guide.widen_0.data.zero_()
    assert StickingTheLanding(8).loss(funnel, guide) > 0.5


def test_it_trains_where_mean_field_is_too_narrow():
    torch.manual_seed(1)
    y = torch.randn(20, dtype=torch.float64) + 2

    def hierarchy(y):
        mu = pyro.sample("mu", dist.Normal(torch.zeros((), dtype=y.dtype), 10.0))
        with pyro.plate("rows", len(y)):
            theta = pyro.sample("theta", dist.Normal(mu, torch.full((), 0.3, dtype=y.dtype)))
            pyro.sample("y", dist.Normal(theta, torch.ones((), dtype=y.dtype)), obs=y)

    adam = pyro.optim.Adam({"lr": 0.05})
    fit = vi.fit(hierarchy, Structured, data=y, loss=StickingTheLanding(8), optim=adam, steps=300)
    variance = 1.09 / 20
    mu = fit.sample(4000)["mu"]
    assert mu.mean().item() == pytest.approx(
        y.mean().item() * 100 / (100 + variance), abs=0.05 * math.sqrt(variance) + 0.02
    )
    assert mu.std().item() == pytest.approx(math.sqrt(variance), rel=0.08)
