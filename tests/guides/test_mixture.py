"""Mixtures of guides: the density of their draws, exact weights, and two modes where there are two."""

import itertools
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoDiagonalNormal, AutoMultivariateNormal, AutoNormal

import vipack as vi
from tests.objectives.conjugate import X, Y, regression
from vipack.errors import GuideError, UsageError
from vipack.guides import Flow, Mixture, Whitened
from vipack.guides.mixing import MixtureOf
from vipack.objectives import ImportanceWeighted, StickingTheLanding

SHARES = torch.tensor([0.3, 0.7], dtype=torch.float64)


def two_modes():
    """z is -3 or 3 with probabilities .3 and .7, and sd .5 around."""
    z = pyro.sample("z", dist.ImproperUniform(dist.constraints.real, (), ()))
    parts = dist.Normal(torch.tensor([-3.0, 3.0], dtype=torch.float64), 0.5).log_prob(z[..., None])
    pyro.factor("two", (SHARES.log() + parts).logsumexp(-1))


def part(loc):
    return partial(Whitened, loc=torch.tensor([loc], dtype=torch.float64), scale=torch.ones(1, dtype=torch.float64))


def test_density_is_that_of_the_draws():
    parts = [dist.Normal(torch.tensor([-1.0]), 0.5).to_event(1), dist.Normal(torch.tensor([2.0]), 1.0).to_event(1)]
    mixture = MixtureOf(parts, torch.tensor([0.25, 0.75]).log())
    torch.manual_seed(0)
    draws = mixture.rsample((20_000,))
    stratified, weights = mixture.stratified(20_000)
    edges = torch.linspace(-3.0, 5.0, 9)
    grid = torch.linspace(-3.0, 5.0, 8001)[:, None]
    mass = mixture.log_prob(grid).exp().reshape(-1)
    for low, high in itertools.pairwise(edges):
        inside = (grid[:, 0] >= low) & (grid[:, 0] < high)
        expected = mass[inside].sum() * 1e-3
        se = (expected * (1 - expected) / 20_000).sqrt()
        for found in (
            ((draws >= low) & (draws < high)).double().mean(),
            weights @ (((stratified >= low) & (stratified < high))[:, 0].float()),
        ):
            assert abs(found - expected) < 4 * se + 1e-3


def test_it_finds_two_modes_and_their_weights():
    guide = Mixture(two_modes, [part(-2.5), part(2.5)])
    adam = pyro.optim.Adam({"lr": 0.05})
    fit = vi.fit(
        two_modes,
        guide,
        data=(),
        loss=StickingTheLanding(8),
        optim=adam,
        steps=400,
        dtype=torch.float64,
        engine="traced",
    )
    weights = fit.params["Mixture.logits"].softmax(-1)
    torch.testing.assert_close(weights, SHARES, rtol=0, atol=0.01)
    draws = fit.sample(4000)["z"]
    assert draws[draws > 0].mean() == pytest.approx(3.0, abs=0.05)
    assert draws[draws < 0].std() == pytest.approx(0.5, abs=0.05)
    elbo = fit.elbo(2000)
    assert abs(elbo.value) < 4 * elbo.se + 1e-3  # the factor is normalised


def test_pyros_gradient_of_the_weights_is_the_stratified_one():
    def gradient(objective):
        rows = []
        for _ in range(80):
            guide.logits.grad = None
            objective.loss_and_grads(two_modes, guide)
            rows.append(guide.logits.grad.clone())
        return torch.stack(rows)

    guide = Mixture(two_modes, [part(-3.0), part(2.0)], weights=torch.tensor([0.6, 0.4]))
    guide()
    usual, stratified = gradient(Trace_ELBO(num_particles=4)), gradient(StickingTheLanding(4))
    se = (usual.var(0) / 80 + stratified.var(0) / 80).sqrt()
    assert ((usual.mean(0) - stratified.mean(0)).abs() < 4 * se).all()
    assert (stratified.var(0) < 0.5 * usual.var(0)).all()


def test_components_of_any_family_and_instances_train_and_are_captured():
    instance = Whitened(regression, loc=torch.zeros(2, dtype=X.dtype), scale=torch.ones(2, dtype=X.dtype))
    guide = Mixture(regression, [AutoMultivariateNormal, partial(Flow, num_layers=2), instance, AutoDiagonalNormal])
    fit = vi.fit(regression, guide, data=(X, Y), loss=StickingTheLanding(8), steps=3, engine="traced")
    assert fit.engine.tier == "traced"
    assert len(fit.params) == 3 + 6 + 3 + 2 + 1
    small = Mixture(regression, [AutoMultivariateNormal, AutoDiagonalNormal])
    assert vi.fit(regression, small, data=(X, Y), steps=3, engine="traced").engine.tier == "traced"
    assert guide.prototype_trace is None  # a fit trains a copy


def test_classes_start_apart():
    guide = Mixture(regression, [AutoDiagonalNormal, AutoDiagonalNormal])
    guide(X, Y)
    assert (guide.component_0.loc - guide.component_1.loc).abs().max() > 0.1


def test_bad_components_are_named():
    def other(x, y):
        pyro.sample("other", dist.Normal(0.0, 1.0))

    with pytest.raises(UsageError, match="components"):
        Mixture(regression, [])
    with pytest.raises(UsageError, match="2 positive"):
        Mixture(regression, [Flow, Flow], weights=torch.ones(3))
    with pytest.raises(GuideError, match="AutoNormal"):
        Mixture(regression, [AutoNormal])
    with pytest.raises(GuideError, match=r"'other'.*'beta'"):
        Mixture(regression, [AutoDiagonalNormal(other), Flow])(X, Y)
    guide = Mixture(regression, [Flow, Flow])
    guide(X, Y)
    with pytest.raises(GuideError, match="Mixture"):
        ImportanceWeighted(4).loss(regression, guide, X, Y)
