import math

import pytest
import torch
from torch.nn.functional import softplus

from vipack.errors import SupportError, UsageError
from vipack.vae.likelihoods import Bernoulli, ContinuousBernoulli, Gaussian


def test_bernoulli_density_is_the_formula():
    logits, x = torch.randn(5, 1, 4), torch.rand(5, 4).round()
    expected = (x * logits[:, 0] - softplus(logits[:, 0])).sum(-1)
    torch.testing.assert_close(Bernoulli(4)(logits).log_prob(x), expected)


def test_continuous_bernoulli_integrates_to_one():
    grid = torch.linspace(0, 1, 4_001)[:, None]
    for logit in (-100.0, -3.0, -0.001, 0.0, 2.0, 14.0):
        p = ContinuousBernoulli(1)(torch.full((4_001, 1, 1), logit))
        total = torch.trapezoid(p.log_prob(grid).exp(), grid[:, 0])
        assert float(total) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("scale", ["shared", "feature", "entry"])
def test_gaussian_density_is_the_formula_in_the_units_of_the_data(scale):
    likelihood = Gaussian(3, scale=scale)
    x = 40 + torch.tensor([1.0, 5.0, 0.1]) * torch.randn(500, 3)
    likelihood.initialize(x)
    parameters = torch.randn(500, *likelihood.parameter_shape)
    spread = x.std(correction=0) if scale == "shared" else x.std(0, correction=0)
    raw = parameters[:, 1] if scale == "entry" else torch.tensor(0.5413)
    loc, sd = x.mean(0) + spread * parameters[:, 0], spread * (softplus(raw) + 1e-3)
    expected = (-0.5 * ((x - loc) / sd) ** 2 - (sd * math.sqrt(2 * math.pi)).log()).expand(500, 3).sum(-1)
    torch.testing.assert_close(likelihood(parameters).log_prob(x), expected, rtol=1e-4, atol=1e-3)
    assert float(likelihood.features(x).std()) == pytest.approx(1, abs=0.05)


def test_gaussian_takes_elements_of_any_size_and_such_that_never_change():
    x = torch.cat([torch.full((50, 1), 0.1), torch.randn(50, 3) * torch.tensor([1e-4, 1.0, 1e6])], -1)
    likelihood = Gaussian(4)
    likelihood.initialize(x)
    features = likelihood.features(x)
    assert features[:, 0].abs().max() < 0.01
    torch.testing.assert_close(features[:, 1:].std(0, correction=0), torch.ones(3))


def test_an_element_that_is_hardly_ever_on_does_not_drown_the_others():
    x = torch.rand(5_000, 2)
    x[:, 1] = 0
    x[7, 1] = 1.0
    likelihood = Gaussian(2)
    likelihood.initialize(x)
    assert float(likelihood.features(x).max()) <= 10


@pytest.mark.parametrize("likelihood", [Bernoulli(3), ContinuousBernoulli(3)], ids=lambda each: type(each).__name__)
def test_levels_are_told_what_to_divide_by(likelihood):
    for high, cure in ((255.0, "divide by 255"), (16.0, "divide by 16"), (4_000.0, "rescale")):
        with pytest.raises(SupportError, match=rf"in all from 0 to {high:g}; .*{cure}"):
            likelihood.check(torch.tensor([[0.0, 1.0, high]]))
    with pytest.raises(SupportError, match=r"found \[-0.5\], in all from -0.5 to 1; rescale"):
        likelihood.check(torch.tensor([[-0.5, 1.0, 0.0]]))


def test_grey_levels_are_never_taken_for_binary_ones():
    with pytest.raises(SupportError, match=r"grey levels such as \[0.5\]; .*ContinuousBernoulli"):
        Bernoulli(2).check(torch.tensor([[0.5, 1.0]]))
    ContinuousBernoulli(2).check(torch.tensor([[0.5, 1.0]]))


def test_unknown_scales_are_refused():
    with pytest.raises(UsageError, match="scale must be one of 'shared', 'feature', 'entry'"):
        Gaussian(2, scale="pixel")
    with pytest.raises(UsageError, match="floor must lie between 0 and 1"):
        Gaussian(2, floor=0)
