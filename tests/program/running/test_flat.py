"""Flat priors start every automatic guide without help."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from pyro.infer import autoguide
from pyro.infer.autoguide import initialization
from pyro.optim import Adam

import vipack as vi
from vipack.errors import GuideError
from vipack.program.running.flat import flat_priors_sampled

X = torch.randn(12, generator=torch.Generator().manual_seed(0)) + 1.0


def flat(x):
    mu = pyro.sample("mu", dist.ImproperUniform(constraints.real, (), ()))
    sigma = pyro.sample("sigma", dist.ImproperUniform(constraints.positive, (), ()))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu, sigma), obs=x)


def ordered(x):
    cuts = pyro.sample("cuts", dist.ImproperUniform(constraints.ordered_vector, (), (3,)))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(cuts.mean(), 1.0), obs=x)


def simplex(x):
    p = pyro.sample("p", dist.ImproperUniform(constraints.simplex, (), (3,)))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(p[0], 1.0), obs=x)


def local(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.ImproperUniform(constraints.real, (), ()))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


GUIDES = [
    autoguide.AutoNormal,
    autoguide.AutoDelta,
    autoguide.AutoDiagonalNormal,
    autoguide.AutoMultivariateNormal,
    autoguide.AutoLowRankMultivariateNormal,
    autoguide.AutoIAFNormal,
    autoguide.AutoLaplaceApproximation,
    autoguide.AutoStructured,
    autoguide.AutoNormalMessenger,
    partial(autoguide.AutoNormalizingFlow, init_transform_fn=partial(dist.transforms.iterated, 2, dist.transforms.affine_autoregressive)),
]  # fmt: skip
INITS = [
    initialization.init_to_feasible,
    initialization.init_to_mean,
    initialization.init_to_median,
    initialization.init_to_sample,
    initialization.init_to_uniform,
]


def name(value):
    return getattr(getattr(value, "func", value), "__name__", "")


def finite_start(model, guide, **options):
    fit = vi.fit(model, guide, data=X, steps=1, **options)
    assert torch.isfinite(torch.tensor(fit.losses)).all()
    return fit


@pytest.mark.parametrize("model", [flat, ordered, simplex, local], ids=name)
@pytest.mark.parametrize("guide", GUIDES, ids=name)
def test_every_automatic_guide_starts(guide, model):
    finite_start(model, guide)


@pytest.mark.parametrize("init", INITS, ids=name)
@pytest.mark.parametrize("guide", [autoguide.AutoNormal, autoguide.AutoMultivariateNormal], ids=name)
def test_every_way_of_starting_works(guide, init):
    finite_start(flat, partial(guide, init_loc_fn=init))
    finite_start(flat, guide(flat, init_loc_fn=init))


def test_minibatches_start_too():
    finite_start(flat, autoguide.AutoNormal, batch_size=4)
    finite_start(local, autoguide.AutoNormal, batch_size=4)


def test_the_posterior_of_a_flat_prior_is_the_likelihood():
    fit = vi.fit(flat, autoguide.AutoMultivariateNormal, data=X, steps=300, optim=Adam({"lr": 0.05}))
    draws = fit.sample(2_000)
    assert draws["mu"].mean().item() == pytest.approx(X.mean().item(), abs=0.1)
    assert draws["sigma"].log().mean().item() == pytest.approx(X.std().log().item(), abs=0.15)


def test_the_guide_that_needs_the_mean_of_the_prior_says_so():
    with pytest.raises(GuideError, match=r"'mu'.*mean of the prior, and the prior ImproperUniform has none"):
        vi.fit(flat, autoguide.AutoHierarchicalNormalMessenger, data=X, steps=1)


def test_draws_lie_in_the_support_and_within_two_unconstrained():
    for support, event in [(constraints.positive, ()), (constraints.ordered_vector, (3,)), (constraints.simplex, (3,))]:
        prior = dist.ImproperUniform(support, (5,), event)
        with flat_priors_sampled():
            value = prior.sample()
        assert value.shape == (5, *event)
        assert support.check(value).all()
    with flat_priors_sampled():
        assert dist.ImproperUniform(constraints.real, (1_000,), ()).sample().abs().max() <= 2


def test_pyros_class_is_itself_again_afterwards():
    finite_start(flat, autoguide.AutoNormal)
    with pytest.raises(NotImplementedError):
        dist.ImproperUniform(constraints.real, (), ()).sample()
