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


def linked(levels=5, components=2):
    torch.manual_seed(0)
    likelihood = DiscretizedLogisticMixture((3, 1, 1), components=components, levels=levels, linked=True).double()
    parameters = torch.randn(4 * components, 3, 1, 1, **DOUBLE)
    parameters[2 * components : 3 * components] -= 2  # narrow, so that a level tells of the next one
    return likelihood, parameters


def test_linked_channels_have_probabilities_that_sum_to_one():
    likelihood, parameters = linked()
    every = torch.cartesian_prod(*[torch.arange(5.0, **DOUBLE)] * 3).reshape(-1, 3, 1, 1)
    mass = likelihood(parameters.expand(len(every), *parameters.shape)).log_prob(every).exp()
    assert float(mass.sum()) == pytest.approx(1, abs=1e-9)


def test_the_mean_of_a_channel_depends_on_those_before_it():
    likelihood, parameters = linked(levels=11, components=1)
    parameters = torch.tensor([0.0, 0.0, -3.0, 0.0], **DOUBLE)[:, None, None, None].expand(4, 3, 1, 1).clone()
    link_1, link_2, link_3 = 0.8, 0.3, -0.5
    parameters[3, :, 0, 0] = torch.atanh(torch.tensor([link_1, link_2, link_3], **DOUBLE))
    x = torch.tensor([8.0, 2.0, 6.0], **DOUBLE)
    u = x / 5 - 1
    means = torch.stack([0 * u[0], link_1 * u[0], link_2 * u[0] + link_3 * u[1]])[:, None]
    scale = torch.nn.functional.softplus(torch.tensor(-3.0, **DOUBLE)) + 0.025
    apart = DiscretizedLogistic(torch.zeros(3, 1, **DOUBLE), means, scale.expand(3, 1), 11)
    found = likelihood(parameters).log_prob(x[:, None, None])
    torch.testing.assert_close(found, apart.log_prob(x).sum())


def test_draws_of_linked_channels_have_the_probabilities_of_the_density():
    likelihood, parameters = linked(levels=3)
    every = torch.cartesian_prod(*[torch.arange(3.0, **DOUBLE)] * 3).reshape(-1, 3, 1, 1)
    mass = likelihood(parameters.expand(len(every), *parameters.shape)).log_prob(every).exp()
    draws = likelihood(parameters).sample((20_000,)).reshape(-1, 3)
    code = (draws * torch.tensor([9.0, 3.0, 1.0])).sum(-1).long()
    share = torch.bincount(code, minlength=27) / 20_000
    se = (mass * (1 - mass) / 20_000).sqrt()
    assert ((share - mass).abs() < 4.5 * se + 1e-4).all()


def test_linked_channels_are_three():
    with pytest.raises(UsageError, match=r"linked=True is for shape \(3, H, W\), found \(1, 4, 4\)"):
        DiscretizedLogisticMixture((1, 4, 4), linked=True)
