"""Flows of coupling layers: they start at their base, and their density is that of their draws."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from vipack.errors import UsageError
from vipack.guides import Flow

KINDS = ["affine", "spline"]


def model_of(dim):
    def model():
        pyro.sample("z", dist.Normal(torch.zeros(dim, dtype=torch.float64), 1.0).to_event(1))

    return model


def flow(dim, kind, jitter=0.2, **options):
    torch.manual_seed(3)
    guide = Flow(model_of(dim), kind=kind, init_scale=0.7, **options)
    guide()
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(jitter * torch.randn_like(parameter))
    return guide


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [1, 2, 5])
def test_it_starts_at_a_gaussian(kind, dim):
    guide = flow(dim, kind, jitter=0.0)
    points = torch.randn(10, dim, dtype=torch.float64)
    expected = dist.Normal(guide.loc, 0.7 * torch.ones_like(guide.loc)).to_event(1).log_prob(points)
    torch.testing.assert_close(guide.get_posterior().log_prob(points), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [1, 2, 5])
def test_density_is_the_base_density_over_the_jacobian(kind, dim):
    guide = flow(dim, kind)
    transform = guide.get_transform()
    for eps in torch.randn(8, dim, dtype=torch.float64):
        jacobian = torch.autograd.functional.jacobian(transform, eps)
        expected = guide.get_base_dist().log_prob(eps) - torch.linalg.slogdet(jacobian)[1]
        torch.testing.assert_close(guide.get_posterior().log_prob(transform(eps)), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [1, 2, 5])
def test_it_inverts_itself(kind, dim):
    transform = flow(dim, kind).get_transform()
    eps = 3 * torch.randn(50, dim, dtype=torch.float64)
    torch.testing.assert_close(transform.inv(transform(eps).clone()), eps, rtol=1e-6, atol=1e-6)


def test_every_element_depends_on_every_other():
    transform = flow(4, "affine").get_transform()
    jacobian = torch.autograd.functional.jacobian(transform, torch.randn(4, dtype=torch.float64))
    assert (jacobian.abs() > 1e-6).all()


def test_log_scales_are_bounded():
    guide = flow(2, "affine", jitter=100.0, num_layers=1)
    eps = torch.randn(100, 2, dtype=torch.float64)
    coupling = guide.get_transform().parts[0]
    assert coupling.log_abs_det_jacobian(eps, coupling(eps)).abs().max() <= 2 + 1e-9  # one element moves


@pytest.mark.parametrize("options", [{"kind": "planar"}, {"num_layers": 0}, {"hidden": (0,)}, {"init_scale": -1.0}])
def test_bad_options_are_named(options):
    with pytest.raises(UsageError, match=next(iter(options))):
        Flow(model_of(2), **options)
