import math

import pytest
import torch
from torch import nn

from tests.vae.table import POSTERIORS
from vipack.errors import UsageError
from vipack.vae.posteriors import AutoregressiveFlow, CouplingFlow, FullNormal

every = pytest.mark.parametrize("name", POSTERIORS)


def built(name, num_features=4, num_latents=3):
    torch.manual_seed(0)
    posterior = POSTERIORS[name]()
    posterior.build(num_features, num_latents)
    with torch.no_grad():
        for weight in posterior.parameters():  # away from the start, where flows are the identity
            weight += 0.2 * torch.randn_like(weight)
    return posterior.double()


@every
def test_density_is_that_of_the_draws(name):
    """The mean of h / q over draws of q is one for every normalised h that q covers."""
    posterior = built(name)
    features = torch.randn(1, 4, dtype=torch.float64)
    with torch.no_grad():
        q = posterior(features.expand(3_000, 4))
        z = q.sample()
        h = torch.distributions.Normal(z.mean(0), 0.5 * z.std(0))
        weights = (h.log_prob(z).sum(-1) - q.log_prob(z)).exp()
    se = weights.std() / math.sqrt(len(weights))
    assert se < 0.2
    assert abs(weights.mean() - 1) < 4.5 * se


@every
def test_the_density_of_a_draw_and_of_the_same_point_agree(name):
    posterior = built(name)
    features = torch.randn(5, 4, dtype=torch.float64)
    q = posterior(features)
    z = q.rsample()
    torch.testing.assert_close(q.log_prob(z), posterior(features).log_prob(z.detach().clone()))


@every
def test_it_depends_on_the_features_and_can_be_trained_by_its_draws(name):
    posterior = built(name)
    features = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    q = posterior(features)
    z = q.rsample()
    (q.log_prob(z).sum() + z.square().sum()).backward()
    assert (features.grad.abs().sum(-1) > 0).all()
    assert all(weight.grad is not None and torch.isfinite(weight.grad).all() for weight in posterior.parameters())


@every
def test_scales_stay_positive_whatever_the_encoder_says(name):
    torch.manual_seed(0)
    posterior = POSTERIORS[name]()
    posterior.build(4, 3)
    for size in (-1e4, 1e4):
        q = posterior(torch.full((2, 4), size))
        assert torch.isfinite(q.log_prob(q.rsample())).all()


def test_full_normals_can_be_correlated():
    for rank in (None, 2):
        posterior = FullNormal(rank)
        posterior.build(4, 3)
        nn.init.normal_(posterior.head.weight)
        covariance = posterior(torch.randn(2, 4)).covariance_matrix
        assert (covariance[:, 0, 1].abs() > 1e-3).all()


def test_flows_start_as_their_normal():
    for posterior in (CouplingFlow(2, (8,)), AutoregressiveFlow(2, (8,))):
        posterior.build(4, 3)
        features = torch.randn(5, 4)
        z = torch.randn(5, 3)
        order = slice(None) if isinstance(posterior, CouplingFlow) else [2, 1, 0]
        torch.testing.assert_close(posterior(features).log_prob(z), posterior.base(features).log_prob(z[:, order]))


def test_options_out_of_range_are_refused():
    with pytest.raises(UsageError, match="rank must be at least 1 or None"):
        FullNormal(0)
    for kind in (CouplingFlow, AutoregressiveFlow):
        with pytest.raises(UsageError, match=f"{kind.__name__}: num_layers and each width"):
            kind(0)
    with pytest.raises(UsageError, match="one latent has no order"):
        AutoregressiveFlow().build(4, 1)
    CouplingFlow(2).build(4, 1)
