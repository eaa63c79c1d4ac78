import math

import numpy as np
import pyro
import pytest
import torch

import vipack as vi
from tests.vae.table import PRIORS, data_of, small_vae
from vipack.errors import ShapeError, UsageError
from vipack.vae.posteriors import DiagonalNormal
from vipack.vae.priors import FlowPrior, MixturePrior, StandardNormal, VampPrior


def built(name):
    torch.manual_seed(0)
    prior, encoder = PRIORS[name](), DiagonalNormal()
    encoder.build(6, 3)
    prior.build(3, (6,))
    with torch.no_grad():
        for weight in prior.parameters():
            weight += 0.2 * torch.randn_like(weight)
    return prior(encoder)


@pytest.mark.parametrize("name", PRIORS)
def test_density_is_that_of_the_draws(name):
    with torch.no_grad():
        p = built(name)
        z = p.sample((4_000,))
        assert z.shape == (4_000, 3)
        h = torch.distributions.Normal(z.mean(0), 0.5 * z.std(0))
        weights = (h.log_prob(z).sum(-1) - p.log_prob(z)).exp()
    se = weights.std() / math.sqrt(len(weights))
    assert se < 0.2
    assert abs(weights.mean() - 1) < 4.5 * se


def test_the_vamp_prior_is_the_mean_of_the_encoder_s_posteriors():
    vae = small_vae(prior="VampPrior")
    z = torch.randn(7, 3)
    each = vae.encoder(vae.prior.pseudo_inputs)
    expected = torch.stack([each.log_prob(point) for point in z]).logsumexp(-1) - math.log(5)
    torch.testing.assert_close(vae.prior(vae.encoder).log_prob(z), expected)


def test_pseudo_inputs_start_at_observations():
    vae, x = small_vae(prior="VampPrior"), data_of("Bernoulli")
    assert all((x == row).all(-1).any() for row in vae.prior.pseudo_inputs)


@pytest.mark.parametrize("make", [lambda: MixturePrior(4), lambda: FlowPrior(4, (16,))], ids=["mixture", "flow"])
def test_a_prior_can_be_fitted_to_encodings(make):
    """Encodings in two clusters, which the standard normal fits badly."""
    torch.manual_seed(0)
    z = 0.2 * torch.randn(400, 2) + 2.0 * (torch.arange(400) % 2)[:, None] - 1.0
    standard = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1).mean()
    prior = make()
    prior.build(2)
    optim = pyro.optim.Adam({"lr": 0.02})
    fit = vi.fit(prior.model, prior.guide, data=z, steps=300, optim=optim, engine="traced")
    fit.to_pyro()
    with torch.no_grad():
        assert prior().log_prob(z).mean() > standard + 1.0
    assert np.isfinite(fit.losses).all()


def test_what_cannot_be_fitted_to_encodings_says_so():
    with pytest.raises(UsageError, match="cannot be fitted to encodings alone"):
        VampPrior(3).model(torch.randn(5, 2))
    prior = MixturePrior(3)
    prior.build(2)
    with pytest.raises(ShapeError, match=r"site 'z': expected encodings of shape \(N, 2\), found \(5, 3\)"):
        prior.model(torch.randn(5, 3))
    with pytest.raises(UsageError, match="is made of an encoder's posteriors"):
        small_vae(prior="VampPrior").prior()
    with pytest.raises(UsageError, match="num_components must be at least 1"):
        MixturePrior(0)
    with pytest.raises(UsageError, match="FlowPrior: num_layers"):
        FlowPrior(0)


def test_the_standard_normal_has_no_weights():
    prior = StandardNormal()
    prior.build(4)
    assert list(prior.parameters()) == []
    z = torch.randn(3, 4)
    torch.testing.assert_close(prior().log_prob(z), torch.distributions.Normal(0, 1).log_prob(z).sum(-1))
