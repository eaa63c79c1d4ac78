"""What every likelihood must do."""

import pyro
import pytest
import torch
from torch import nn

from tests.vae.table import LIKELIHOODS, data_of
from vipack.errors import DataError, ShapeError, SupportError, UsageError
from vipack.vae.likelihoods import Bernoulli, Gaussian

every = pytest.mark.parametrize("name", LIKELIHOODS)


def made(name):
    torch.manual_seed(0)
    return LIKELIHOODS[name][0](), data_of(name)


def floats(x):
    return x if x.is_floating_point() else x.float()


@every
def test_the_event_is_one_observation(name):
    likelihood, x = made(name)
    p = likelihood(torch.randn(2, 5, *likelihood.parameter_shape))
    assert (tuple(p.batch_shape), tuple(p.event_shape)) == ((2, 5), likelihood.shape)
    assert p.log_prob(floats(x[:5])).shape == (2, 5)
    assert p.expand([4, 2, 5]).log_prob(floats(x[:5])).shape == (4, 2, 5)
    assert p.sample().shape == (2, 5, *likelihood.shape)
    assert p.sample((3,)).shape == (3, 2, 5, *likelihood.shape)
    assert p.mean.shape == (2, 5, *likelihood.shape) or name == "Categorical"


@every
def test_its_draws_are_data_that_it_takes(name):
    likelihood, _ = made(name)
    draws = likelihood(torch.randn(300, *likelihood.parameter_shape)).sample()
    likelihood.check(draws)
    assert torch.isfinite(likelihood.features(draws)).all()


@every
def test_features_have_the_shape_that_it_says_and_unit_size(name):
    likelihood, x = made(name)
    likelihood.initialize(floats(x))
    features = likelihood.features(floats(x))
    assert features.shape == (len(x), *likelihood.feature_shape)
    assert features.is_floating_point()
    assert float(features.square().mean()) < 4


@every
def test_its_start_fits_the_data_better_than_zeros(name):
    likelihood, x = made(name)
    x = floats(x)
    before = likelihood(torch.zeros(len(x), *likelihood.parameter_shape), x).log_prob(x).mean()
    parameters = likelihood.initialize(x)
    assert parameters.shape == likelihood.parameter_shape
    after = likelihood(parameters.expand(len(x), *parameters.shape), x).log_prob(x).mean()
    assert after >= before - 0.02


@every
@pytest.mark.parametrize("size", [-100.0, 100.0])
def test_densities_and_gradients_are_finite_at_extremes(name, size):
    likelihood, x = made(name)
    x = floats(x)
    if likelihood.parameter_shape == (1, 6) and "Poisson" in name:
        x = x * 1e5
    parameters = nn.Parameter(torch.full((len(x), *likelihood.parameter_shape), size))
    log_p = likelihood(parameters, x).log_prob(x)
    log_p.sum().backward()
    assert torch.isfinite(log_p).all()
    assert torch.isfinite(parameters.grad).all()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in likelihood.parameters())


@every
def test_vmap_gives_the_densities_of_single_draws(name):
    likelihood, x = made(name)
    x = floats(x)
    parameters = torch.randn(3, len(x), *likelihood.parameter_shape)

    def density(one):
        return likelihood(one, x).log_prob(x)

    with pyro.validation_enabled(False):
        torch.testing.assert_close(torch.vmap(density)(parameters), torch.stack([density(each) for each in parameters]))


@every
def test_wrong_shapes_are_refused_by_name(name):
    likelihood, x = made(name)
    with pytest.raises(ShapeError, match=r"site 'pixels': .* expects data of shape \(N, .*, found \(24, "):
        likelihood.check(x[:, :-1], "pixels")
    with pytest.raises(DataError, match=r"site 'x': expected a tensor .*, found list"):
        likelihood.check([1.0])
    with pytest.raises(ShapeError, match=r"one observation, so write x\[None\]"):
        likelihood.check(x[0])
    with pytest.raises(ShapeError):
        likelihood.check(torch.tensor(1.0))


@pytest.mark.parametrize("name", [name for name in LIKELIHOODS if name != "MixedColumns"])
def test_nan_and_infinity_are_refused(name):
    likelihood, x = made(name)
    for bad in (torch.nan, torch.inf):
        x = floats(x).clone()
        x[3, 2] = bad
        with pytest.raises(SupportError, match="site 'x': "):
            likelihood.check(x)


def test_a_shape_must_be_sizes():
    for wrong in (0, (), (3, -1), "784", 2.5):
        with pytest.raises((UsageError, TypeError)):
            Bernoulli(wrong)
    assert Gaussian([2, 3]).shape == (2, 3)
