"""What every objective must do, Pyro's own and ours, on a model whose evidence and ELBO are known."""

import functools
import math
import warnings
from functools import partial

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import (
    SVI,
    RenyiELBO,
    ReweightedWakeSleep,
    Trace_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from pyro.infer.autoguide import AutoDiagonalNormal, AutoMultivariateNormal, AutoNormal

import vipack as vi
from tests.contracts.guides import GUIDES, POINTS
from tests.contracts.guides import Y as ROWS
from tests.contracts.guides import model as hierarchy
from tests.objectives.conjugate import (
    LOG_EVIDENCE,
    MEAN,
    PRECISION,
    SCALE_TRIL,
    X,
    Y,
    elbo,
    gradients,
    regression,
)
from vipack.guides import Flow, Whitened
from vipack.objectives import BetaELBO, ImportanceWeighted, StickingTheLanding

ELBOS = {
    "Trace_ELBO": partial(Trace_ELBO, num_particles=2),
    "TraceGraph_ELBO": partial(TraceGraph_ELBO, num_particles=2),
    "TraceMeanField_ELBO": partial(TraceMeanField_ELBO, num_particles=2),
    "StickingTheLanding": partial(StickingTheLanding, 2),
    "StickingTheLanding, antithetic": partial(StickingTheLanding, 2, antithetic=True),
    "BetaELBO": partial(BetaELBO, num_particles=2),
}
TIGHTER = {
    "RenyiELBO": partial(RenyiELBO, alpha=0.5, num_particles=4),
    "ImportanceWeighted": partial(ImportanceWeighted, 4),
}
OTHERS = {
    "ReweightedWakeSleep": partial(ReweightedWakeSleep, num_particles=4),
}


def wide():
    guide = AutoDiagonalNormal(regression)
    guide(X, Y)
    guide.loc.data.copy_(MEAN + 0.1)
    guide.scale_unconstrained.data.copy_((1.5 * PRECISION.diagonal().rsqrt()).expm1().log())
    return guide


def mean_and_se(objective, guide, number=80):
    losses = torch.tensor([objective.loss(regression, guide, X, Y) for _ in range(number)], dtype=torch.float64)
    return losses.mean().item(), losses.std().item() / math.sqrt(number)


@pytest.mark.parametrize("name", list(ELBOS))
def test_loss_is_minus_the_elbo(name):
    guide = wide()
    expected = -elbo(guide.loc, guide.get_posterior().stddev).item()
    found, se = mean_and_se(ELBOS[name](), guide)
    assert abs(found - expected) < 4 * se


@pytest.mark.parametrize("name", list(TIGHTER))
def test_loss_lies_between_minus_the_elbo_and_minus_the_evidence(name):
    guide = wide()
    found, se = mean_and_se(TIGHTER[name](), guide)
    assert -LOG_EVIDENCE.item() - 4 * se < found < -elbo(guide.loc, guide.get_posterior().stddev).item() + 4 * se


def batched(x, y):
    beta = pyro.sample("beta", pyro.distributions.Normal(torch.zeros(2, dtype=x.dtype), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        mean = (x * beta).sum(-1)
        pyro.sample("y", pyro.distributions.Normal(mean, torch.ones((), dtype=x.dtype)), obs=y)


def trained(name, steps=30, **options):
    guide = AutoNormal if "antithetic" not in name else AutoDiagonalNormal
    loss, optim = {**ELBOS, **TIGHTER, **OTHERS}[name](), pyro.optim.Adam({"lr": 0.05})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return vi.fit(batched, guide, data=(X, Y), loss=loss, steps=steps, optim=optim, **options)


@pytest.mark.parametrize("name", [*ELBOS, *TIGHTER, *OTHERS])
def test_every_objective_trains_through_fit(name):
    fit = trained(name)
    assert fit.losses.shape == (30,)
    start = vi.fit(batched, AutoNormal, data=(X, Y), steps=0)
    assert fit.elbo(200).value > start.elbo(200).value


@pytest.mark.parametrize("engine", ["interpreted", pytest.param("compiled", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [*ELBOS, *TIGHTER])
def test_faster_tiers_take_the_steps_of_every_objective(name, engine):
    faster, eager = (trained(name, 12, engine=tier, dtype=torch.float64) for tier in (engine, "eager"))
    assert faster.engine.tier == engine, faster.engine.reason
    np.testing.assert_allclose(faster.losses, eager.losses, rtol=1e-9)
    for key, value in eager.params.items():
        torch.testing.assert_close(faster.params[key], value, rtol=1e-7, atol=1e-9)


@pytest.fixture(scope="module")
def starts():
    """Parameters of a guide's start, its ELBO and the standard deviation of its log weights; of each guide once."""

    def start(guide):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            usual = vi.fit(hierarchy, GUIDES[guide](hierarchy), data=ROWS, steps=0)
        return set(usual.params), usual.elbo(100).value, usual.posterior.draws(100).log_weights.std().item()

    return functools.cache(start)


@pytest.mark.parametrize("name", ["StickingTheLanding", "ImportanceWeighted"])
@pytest.mark.parametrize("guide", [name for name in GUIDES if name not in POINTS and name != "Mixture"])
def test_ours_take_every_guide(name, guide, starts):
    made = GUIDES[guide](hierarchy)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = vi.fit(hierarchy, made, data=ROWS, loss={**ELBOS, **TIGHTER}[name](), steps=2, engine="eager")
    params, elbo_at_the_start, spread = starts(guide)
    assert math.isfinite(fit.losses[-1])
    assert set(fit.params) == params
    # The first loss is of the guide's start, whose ELBO is known otherwise.
    assert abs(fit.losses[0] + elbo_at_the_start) < 6 * spread + 1


def near(distance, family):
    """A guide that is the posterior, but for `distance` added to all its parameters in one direction."""
    pyro.clear_param_store()  # or Pyro would hand on the parameters of the guide before
    guide = Whitened(regression, family, loc=MEAN, scale_tril=SCALE_TRIL)
    guide(X, Y)
    torch.manual_seed(0)
    for parameter in guide.parameters():
        parameter.data.add_(distance * torch.randn_like(parameter))
    return guide


def variance(objective, guide):
    """Summed over all parameters."""
    return gradients(objective, guide, 15).var(0).sum().item()


@pytest.mark.parametrize("family", [AutoMultivariateNormal, partial(Flow, num_layers=2)])
def test_gradient_variance_vanishes_at_the_posterior_for_the_path_derivative_alone(family):
    usual = variance(Trace_ELBO(num_particles=4), near(0.0, family))
    ratios = [variance(StickingTheLanding(4), near(distance, family)) / usual for distance in (0.03, 0.01, 0.0)]
    assert ratios[0] < 0.2
    assert ratios[1] < 0.03
    assert ratios[2] < 1e-15


def test_gradient_variance_of_dreg_falls_faster_with_particles_than_that_of_the_usual_gradient():
    ratios = [
        variance(ImportanceWeighted(k), near(0.1, AutoMultivariateNormal))
        / variance(RenyiELBO(alpha=0, num_particles=k), near(0.1, AutoMultivariateNormal))
        for k in (4, 16)
    ]
    assert ratios[0] < 0.1
    assert ratios[1] < ratios[0]


def test_plain_pyro_takes_ours():
    for make in (ELBOS["StickingTheLanding"], ELBOS["BetaELBO"], TIGHTER["ImportanceWeighted"]):
        pyro.clear_param_store()
        svi = SVI(regression, AutoNormal(regression), pyro.optim.Adam({"lr": 0.05}), make())
        first = svi.evaluate_loss(X, Y)
        losses = [svi.step(X, Y) for _ in range(40)]
        assert isinstance(first, float)
        assert sum(losses[-10:]) / 10 < first
