import pytest
import torch

from vipack.errors import SupportError, UsageError
from vipack.vae.likelihoods import DiscretizedLogistic, DiscretizedLogisticMixture

DOUBLE = {"dtype": torch.float64}


def mixture(levels=256):
    torch.manual_seed(0)
    logits, loc = torch.randn(4, 3, **DOUBLE), torch.linspace(-1.5, 1.5, 12, **DOUBLE).reshape(4, 3)
    scale = torch.tensor([1e-3, 0.01, 0.1, 3.0], **DOUBLE)[:, None].expand(4, 3)
    return DiscretizedLogistic(logits, loc, scale, levels)


@pytest.mark.parametrize("levels", [2, 16, 256])
def test_probabilities_sum_to_one(levels):
    values = torch.arange(levels, **DOUBLE)[:, None].expand(levels, 4)
    total = mixture(levels).log_prob(values).exp().sum(0)
    torch.testing.assert_close(total, torch.ones(4, **DOUBLE))


def test_density_is_the_difference_of_distribution_functions():
    p = mixture()
    values = torch.tensor([0.0, 17.0, 130.0, 255.0], **DOUBLE)
    centers = 2 * values / 255 - 1
    upper = ((centers + 1 / 255)[:, None] - p.loc) / p.scale
    lower = ((centers - 1 / 255)[:, None] - p.loc) / p.scale
    cdf_upper = torch.where(values[:, None] == 255, 1.0, upper.sigmoid())
    cdf_lower = torch.where(values[:, None] == 0, 0.0, lower.sigmoid())
    mass = (p.logits.softmax(-1) * (cdf_upper - cdf_lower)).sum(-1)
    near = mass > 1e-12  # elsewhere the difference is of nearly equal numbers
    assert near.sum() >= 3
    torch.testing.assert_close(p.log_prob(values)[near], mass.log()[near], rtol=1e-6, atol=1e-9)


def test_far_tails_are_finite_where_a_difference_would_be_zero():
    p = DiscretizedLogistic(torch.zeros(1, 1), torch.tensor([[-5.0]]), torch.tensor([[0.01]]))
    log_p = p.log_prob(torch.tensor([100.0]))
    assert -600 < float(log_p) < -400


def test_draws_have_the_probabilities_of_the_density():
    p = mixture(16)
    torch.manual_seed(1)
    draws = p.sample((20_000,))
    for level in range(16):
        expected = p.log_prob(torch.full((4,), float(level), **DOUBLE)).exp()
        share = (draws == level).double().mean(0)
        se = (expected * (1 - expected) / 20_000).sqrt()
        assert ((share - expected).abs() < 4.5 * se + 1e-4).all()


def test_grey_levels_in_the_unit_interval_are_told_apart():
    likelihood = DiscretizedLogisticMixture(2)
    with pytest.raises(
        SupportError, match=r"whole levels from 0 to 255, found \[0.5\]; .* write \(x \* 255\).round\(\)"
    ):
        likelihood.check(torch.tensor([[0.5, 1.0]]))
    with pytest.raises(SupportError, match=r"found \[256.0\]; round them, or make levels larger"):
        likelihood.check(torch.tensor([[256.0, 1.0]]))
    with pytest.raises(UsageError, match="components must be at least 1"):
        DiscretizedLogisticMixture(2, components=0)


def test_images_have_a_mixture_for_each_pixel():
    likelihood = DiscretizedLogisticMixture((3, 4, 4), components=2, levels=8)
    x = torch.randint(8, (5, 3, 4, 4)).float()
    p = likelihood(torch.randn(5, 6, 3, 4, 4))
    assert p.log_prob(x).shape == (5,)
