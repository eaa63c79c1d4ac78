import pyro.distributions as dist
import torch
from torch.distributions import biject_to

from vipack.compat.supports import support_of


def test_a_mixture_has_the_support_that_its_components_share():
    weights = dist.Categorical(logits=torch.zeros(3))
    for components in (
        dist.Normal(torch.zeros(3, 2), 1.0).to_event(1),
        dist.Gamma(torch.ones(3), 1.0),
        dist.Beta(torch.ones(3), 1.0),
    ):
        mixture = dist.MixtureSameFamily(weights, components)
        value = mixture.sample()
        assert support_of(mixture).event_dim == len(mixture.event_shape)
        torch.testing.assert_close(biject_to(support_of(mixture))(biject_to(support_of(mixture)).inv(value)), value)


def test_components_on_different_intervals_keep_a_constraint_of_their_own():
    mixture = dist.MixtureSameFamily(
        dist.Categorical(logits=torch.zeros(2)), dist.Uniform(torch.tensor([0.0, 5.0]), torch.tensor([1.0, 6.0]))
    )
    assert support_of(mixture).is_discrete is False
    assert not bool(support_of(mixture).check(torch.tensor(7.0)))
