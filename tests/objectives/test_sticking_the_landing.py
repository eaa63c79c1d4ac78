"""Sticking the landing: the ELBO's gradient without the score, still at the posterior, the same in every tier."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, config_enumerate
from pyro.infer.autoguide import AutoDiagonalNormal, AutoMultivariateNormal, AutoNormal
from torch import nn

import vipack as vi
from tests.objectives.conjugate import (
    LOG_EVIDENCE,
    MEAN,
    SCALE_TRIL,
    X,
    Y,
    elbo,
    gradients,
    regression,
    standard_errors,
)
from vipack.errors import GuideError, UsageError
from vipack.guides import Flow
from vipack.objectives import StickingTheLanding


def diagonal(loc, scale):
    guide = AutoDiagonalNormal(regression)
    guide(X, Y)
    guide.loc.data.copy_(loc)
    guide.scale_unconstrained.data.copy_(scale.expm1().log())  # softplus
    return guide


def at_the_posterior():
    guide = AutoMultivariateNormal(regression)
    guide(X, Y)
    scale = SCALE_TRIL.diagonal()
    guide.loc.data.copy_(MEAN)
    guide.scale_unconstrained.data.copy_(scale.expm1().log())
    guide.scale_tril_unconstrained.data.copy_((SCALE_TRIL / scale[:, None]).tril(-1))
    return guide


@pytest.mark.parametrize("antithetic", [False, True])
def test_loss_and_gradient_are_unbiased(antithetic):
    loc, scale = torch.tensor([0.3, 0.1], dtype=torch.float64), torch.tensor([0.5, 0.2], dtype=torch.float64)
    guide = diagonal(loc, scale)
    raw = guide.scale_unconstrained.detach().clone().requires_grad_()
    center = loc.clone().requires_grad_()
    exact = -elbo(center, nn.functional.softplus(raw))
    exact.backward()
    objective = StickingTheLanding(8, antithetic=antithetic)
    found = gradients(objective, guide, 200)
    assert (standard_errors(found, torch.cat([center.grad, raw.grad])) < 4).all()
    losses = torch.tensor([objective.loss(regression, guide, X, Y) for _ in range(200)])[:, None]
    assert standard_errors(losses, exact.detach()) < 4


def test_the_gradient_is_zero_at_the_posterior():
    guide = at_the_posterior()
    still = gradients(StickingTheLanding(4), guide, 20)
    noisy = gradients(Trace_ELBO(num_particles=4), guide, 20)
    assert still.abs().max() < 1e-10
    assert noisy[:, :2].std(0).min() > 0.5
    assert StickingTheLanding(4).loss(regression, guide, X, Y) == pytest.approx(-LOG_EVIDENCE.item(), abs=1e-10)


def test_antithetic_draws_cancel_the_odd_part():
    guide = diagonal(torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    plain = gradients(StickingTheLanding(2), guide, 50)[:, :2]
    paired = gradients(StickingTheLanding(2, antithetic=True), guide, 50)[:, :2]
    assert plain.std(0).min() > 1
    assert paired.std(0).max() < 1e-9  # the gradient for loc is linear in the noise


class Hierarchy(nn.Module):
    """A guide written by hand: beta_1 given beta_0, and a deterministic part of a site."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.3, 0.1, -0.7, 0.4], dtype=torch.float64))

    def forward(self, x, y):
        pyro.module("guide", self)
        loc, slope, log_scale, other = self.weight
        first = pyro.sample("first", dist.Normal(loc, log_scale.exp()), infer={"is_auxiliary": True})
        second = pyro.sample("second", dist.Normal(slope * first, other.exp()), infer={"is_auxiliary": True})
        pyro.sample("beta", dist.Delta(torch.stack([first, second]), event_dim=1))


def test_guides_written_by_hand_have_the_same_expected_gradient_as_in_pyro():
    path = gradients(StickingTheLanding(4), Hierarchy(), 80)
    usual = gradients(Trace_ELBO(num_particles=4), Hierarchy(), 80)
    se = (path.var(0) / 80 + usual.var(0) / 80).sqrt()
    assert ((path.mean(0) - usual.mean(0)).abs() < 4 * se).all()


@pytest.mark.parametrize("guide", [AutoMultivariateNormal, Flow, AutoNormal])
def test_the_captured_step_is_the_eager_one(guide):
    def losses(engine):
        fit = vi.fit(regression, guide, data=(X, Y), loss=StickingTheLanding(6), steps=15, engine=engine, seed=3)
        return fit

    eager, traced = losses("eager"), losses("traced")
    assert traced.engine.tier == "traced"
    torch.testing.assert_close(torch.as_tensor(traced.losses), torch.as_tensor(eager.losses), rtol=1e-9, atol=1e-9)
    for name, value in eager.params.items():
        torch.testing.assert_close(traced.params[name], value, rtol=1e-8, atol=1e-9)


def test_discrete_latents_are_summed_out():
    data = torch.tensor([-2.0, -1.5, 2.2, 1.9, 2.5], dtype=torch.float64)

    @config_enumerate
    def mixture(data):
        mu = pyro.sample("mu", dist.Normal(torch.zeros(2, dtype=torch.float64), 3.0).to_event(1))
        with pyro.plate("data", len(data)):
            z = pyro.sample("z", dist.Categorical(torch.tensor([0.4, 0.6], dtype=torch.float64)))
            pyro.sample("x", dist.Normal(mu[z], 1.0), obs=data)

    guide = AutoDiagonalNormal(pyro.poutine.block(mixture, hide=["z"]), init_scale=1e-9)
    guide(data)
    guide.loc.data.copy_(torch.tensor([-2.0, 2.0]))
    mu = torch.tensor([-2.0, 2.0], dtype=torch.float64)
    weights = torch.tensor([0.4, 0.6], dtype=torch.float64).log()
    log_p = dist.Normal(0.0, 3.0).log_prob(mu).sum()
    log_p += (weights + dist.Normal(mu, 1.0).log_prob(data[:, None])).logsumexp(-1).sum()
    entropy = guide.get_posterior().entropy()
    loss = StickingTheLanding(200).loss(mixture, guide, data)
    assert loss == pytest.approx(-(log_p + entropy).item(), abs=4 / 200**0.5)


def test_it_trains_in_plain_pyro():
    guide = AutoMultivariateNormal(regression)
    svi = SVI(regression, guide, pyro.optim.Adam({"lr": 0.1}), StickingTheLanding(8))
    for _ in range(250):
        loss = svi.step(X, Y)
    assert loss == pytest.approx(-LOG_EVIDENCE.item(), abs=1e-3)
    torch.testing.assert_close(guide.get_posterior().mean, MEAN, rtol=0, atol=1e-2)


def test_models_that_vmap_refuses_are_run_draw_by_draw():
    def branching(x, y):
        beta = pyro.sample("beta", dist.Normal(torch.zeros(2, dtype=torch.float64), 1.0).to_event(1))
        scale = 1.0 if beta[0].item() < 1e9 else 2.0
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x @ beta, scale), obs=y)

    guide = at_the_posterior()
    assert StickingTheLanding(4).loss(branching, guide, X, Y) == pytest.approx(-LOG_EVIDENCE.item(), abs=1e-10)


def test_a_plate_that_subsamples_rows_is_scaled():
    def subsampled(x, y):
        beta = pyro.sample("beta", dist.Normal(torch.zeros(2, dtype=torch.float64), 1.0).to_event(1))
        with pyro.plate("data", len(x), subsample_size=6) as rows:
            pyro.sample("y", dist.Normal(x[rows] @ beta, torch.ones((), dtype=torch.float64)), obs=y[rows])

    guide = at_the_posterior()
    objective = StickingTheLanding(8)
    losses = torch.tensor([objective.loss(subsampled, guide, X, Y) for _ in range(200)])[:, None]
    assert losses.std() > 0.1
    assert standard_errors(losses, -LOG_EVIDENCE) < 4


@pytest.mark.parametrize(
    ("options", "words"), [({"num_particles": 0}, "num_particles"), ({"num_particles": 3, "antithetic": True}, "even")]
)
def test_bad_options_are_named(options, words):
    with pytest.raises(UsageError, match=words):
        StickingTheLanding(**options)


def test_guides_without_a_gradient_or_mirror_image_are_refused():
    def coin():
        pyro.sample("coin", dist.Bernoulli(0.5))

    with pytest.raises(GuideError, match=r"'coin'.*Bernoulli"):
        StickingTheLanding(2).loss(coin, coin)
    with pytest.raises(GuideError, match="antithetic"):
        StickingTheLanding(2, antithetic=True).loss(regression, Hierarchy(), X, Y)
