"""Weighted divergences, schedules and free bits, against closed forms."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceMeanField_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal
from torch import nn

import vipack as vi
from tests.objectives.conjugate import X as XS
from tests.objectives.conjugate import Y as YS
from tests.objectives.conjugate import regression
from vipack.errors import GuideError, UsageError
from vipack.objectives import BetaELBO

ROWS = torch.randn(6, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
ZERO = torch.zeros(2, dtype=torch.float64)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.net = nn.Linear(3, 4).double()
        self.decode = nn.Linear(2, 3).double()

    def model(self, x):
        pyro.module("decoder", self.decode)
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(ZERO, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decode(z), torch.ones((), dtype=x.dtype)).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.net)
        loc, raw = self.net(x).chunk(2, -1)
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))

    def divergences(self):
        loc, raw = self.net(ROWS).chunk(2, -1)
        return 0.5 * ((2 * raw).exp() + loc.square() - 1 - 2 * raw)

    def reconstruction(self):
        loc, raw = self.net(ROWS).chunk(2, -1)
        mean, weight = self.decode(loc), self.decode.weight
        spread = ((2 * raw).exp() @ weight.square().T).sum()
        return -0.5 * ((ROWS - mean).square().sum() + spread) - 0.5 * ROWS.numel() * math.log(2 * math.pi)


def mean_loss(objective, number=100):
    pair = Encoder()
    found = torch.tensor([objective.loss(pair.model, pair.guide, ROWS) for _ in range(number)], dtype=torch.float64)
    return found.mean().item(), found.std().item() / math.sqrt(number)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("free_bits", [0.0, 0.8])
def test_loss_is_the_weighted_bound(beta, free_bits):
    pair = Encoder()
    per_dimension = pair.divergences().mean(0)
    assert per_dimension.min() < 0.8 < per_dimension.max()
    expected = -pair.reconstruction() + beta * len(ROWS) * per_dimension.clamp(min=free_bits).sum()
    found, se = mean_loss(BetaELBO(beta, free_bits=free_bits, num_particles=2))
    assert abs(found - expected.item()) < 4 * se


def test_it_is_pyros_mean_field_elbo_at_one():
    pair = Encoder()
    for objective in BetaELBO(), TraceMeanField_ELBO():
        torch.manual_seed(0)
        pair.zero_grad()
        objective.loss_and_grads(pair.model, pair.guide, ROWS)
        gradients = [p.grad.clone() for p in pair.parameters()]
        if isinstance(objective, BetaELBO):
            ours = gradients
    torch.testing.assert_close(ours, gradients)


def test_a_schedule_moves_on_with_every_gradient_step_of_pyros_own_svi():
    asked = []

    def warm_up(step):
        asked.append(step)
        return min(1.0, step / 10)

    pair = Encoder()
    svi = pyro.infer.SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 0.01}), BetaELBO(warm_up))
    for _ in range(12):
        svi.step(ROWS)
    assert asked == list(range(12))


def test_a_schedule_of_free_bits_is_the_number_of_each_step():
    pair = Encoder()
    objective = BetaELBO(2.0, free_bits=lambda step: 0.1 * step)
    for step in range(4):
        losses = []
        for each in (objective, BetaELBO(2.0, free_bits=0.1 * step)):
            torch.manual_seed(step)
            losses.append(each.loss_and_grads(pair.model, pair.guide, ROWS))
        assert losses[0] == pytest.approx(losses[1])
    with pytest.raises(UsageError, match="free_bits at step 0"):
        BetaELBO(free_bits=lambda step: -1.0).loss(pair.model, pair.guide, ROWS)


def test_a_constant_weight_is_captured_and_minibatches_are_scaled():
    pair = Encoder()
    options = {"data": ROWS, "loss": BetaELBO(0.5, free_bits=0.1), "steps": 10, "batch_size": 3}
    fit = vi.fit(pair.model, pair.guide, engine="traced", **options)
    assert fit.engine.tier == "traced"
    eager = vi.fit(pair.model, pair.guide, engine="eager", **options)
    torch.testing.assert_close(torch.tensor(fit.losses), torch.tensor(eager.losses))


def test_what_it_cannot_do_is_refused():
    with pytest.raises(UsageError, match="beta"):
        BetaELBO(-1.0)
    with pytest.raises(UsageError, match="free_bits"):
        BetaELBO(free_bits=-0.1)
    guide = AutoMultivariateNormal(regression)
    assert math.isfinite(BetaELBO(0.5).loss(regression, guide, XS, YS))
    with pytest.raises(GuideError, match="free_bits"):
        BetaELBO(free_bits=0.5).loss(regression, guide, XS, YS)
