"""The program of latent Dirichlet allocation, and what it refuses."""

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine

import vipack as vi
from vipack.errors import DataError, UsageError
from vipack.topics import DirichletAllocation


def test_the_program_is_plain_pyro(planted):
    allocation = DirichletAllocation(planted.counts, 3, alpha=[0.5, 1.0, 2.0], eta=0.3)
    dense = torch.as_tensor(planted.counts.toarray())
    with pyro.get_param_store().scope():
        pyro.set_rng_seed(0)
        guide = poutine.trace(allocation.guide).get_trace(dense)
        model = poutine.trace(poutine.replay(allocation.model, guide)).get_trace(dense)
    words, shares = guide.nodes["words"]["value"], guide.nodes["shares"]["value"]
    assert words.shape == (3, 40)
    assert shares.shape == (120, 3)
    log_likelihood = (dense * (shares @ words).log()).sum()
    torch.testing.assert_close(model.nodes["counts"]["fn"].log_prob(dense).sum(), log_likelihood)
    prior = torch.distributions.Dirichlet(torch.tensor([0.5, 1.0, 2.0])).log_prob(shares).sum()
    torch.testing.assert_close(model.nodes["shares"]["fn"].log_prob(shares).sum(), prior)


def test_gradients_train_it_too(planted):
    allocation = DirichletAllocation(planted.counts, 3)
    options = {"data": planted.counts, "engine": "eager", "progress": False}
    before, after = (vi.fit(allocation.model, allocation.guide, steps=steps, **options).elbo(50) for steps in (0, 200))
    assert after.value > before.value + 300


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_topics": 0}, UsageError, "num_topics"),
        ({"alpha": -1.0}, UsageError, "alpha: a Dirichlet's concentrations are positive"),
        ({"alpha": [1.0, 2.0]}, UsageError, r"alpha: expected one number or shape \(3,\)"),
        ({"eta": np.ones((3, 7))}, UsageError, r"eta: expected one number or shape \(3, 40\)"),
        ({"counts": np.ones(4)}, DataError, "a matrix of documents by words"),
    ],
)
def test_bad_options_are_named(planted, options, error, message):
    options = {"counts": planted.counts, "num_topics": 3, **options}
    with pytest.raises(error, match=message):
        DirichletAllocation(options.pop("counts"), **options)
