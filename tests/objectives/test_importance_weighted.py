"""The importance-weighted bound and its doubly reparametrized gradient."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import RenyiELBO
from pyro.infer.autoguide import AutoDiagonalNormal, AutoNormal

import vipack as vi
from tests.objectives.conjugate import LOG_EVIDENCE, MEAN, PRECISION, X, Y, gradients, regression
from vipack.objectives import ImportanceWeighted, StickingTheLanding

SDS = torch.linalg.inv(PRECISION).diagonal().sqrt()


def near(width=1.3):
    guide = AutoDiagonalNormal(regression)
    guide(X, Y)
    guide.loc.data.copy_(MEAN + 0.3 * SDS)
    guide.scale_unconstrained.data.copy_((width * SDS).expm1().log())
    return guide


def losses(objective, guide, number):
    found = torch.tensor([objective.loss(regression, guide, X, Y) for _ in range(number)], dtype=torch.float64)
    return found.mean().item(), found.std().item() / math.sqrt(number)


def test_the_bound_is_the_elbo_for_one_particle_and_rises_to_the_evidence():
    guide = near(2.0)
    one, one_se = losses(ImportanceWeighted(1), guide, 120)
    elbo, elbo_se = losses(StickingTheLanding(1), guide, 120)
    many, many_se = losses(ImportanceWeighted(1000), guide, 50)
    assert abs(one - elbo) < 4 * math.hypot(one_se, elbo_se)
    assert many < one - 0.5
    assert many > -LOG_EVIDENCE - 4 * many_se
    assert many == pytest.approx(-LOG_EVIDENCE.item(), abs=4 * many_se + 0.01)


def test_the_gradient_is_that_of_the_bound():
    guide = near()
    doubly = gradients(ImportanceWeighted(8), guide, 120)
    usual = gradients(RenyiELBO(alpha=0, num_particles=8), guide, 120)
    se = (doubly.var(0) / 120 + usual.var(0) / 120).sqrt()
    assert ((doubly.mean(0) - usual.mean(0)).abs() < 4 * se).all()


def test_its_signal_does_not_drown_as_particles_are_added():
    guide = near()
    doubly = gradients(ImportanceWeighted(32), guide, 40)
    usual = gradients(RenyiELBO(alpha=0, num_particles=32), guide, 40)
    assert (doubly.var(0) < 0.5 * usual.var(0)).all()


def test_model_parameters_get_the_gradient_of_the_bound():
    def model(y):
        width = pyro.param("width", torch.tensor(1.5, dtype=torch.float64))
        z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=torch.float64), 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(z, width), obs=y)

    guide = AutoNormal(model)
    guide(Y)

    def gradient(objective):
        rows = []
        for _ in range(100):
            objective.loss_and_grads(model, guide, Y)
            parameter = pyro.param("width").unconstrained()
            rows.append(parameter.grad.clone())
            parameter.grad = None
        return torch.stack(rows)

    ours, usual = gradient(ImportanceWeighted(5)), gradient(RenyiELBO(alpha=0, num_particles=5))
    assert abs(ours.mean() - usual.mean()) < 4 * math.sqrt((ours.var() + usual.var()) / 100)


@pytest.mark.parametrize("guide", [AutoDiagonalNormal, AutoNormal])
def test_it_is_captured(guide):
    fits = [
        vi.fit(regression, guide, data=(X, Y), loss=ImportanceWeighted(8), steps=15, engine=engine)
        for engine in ("eager", "traced")
    ]
    assert fits[1].engine.tier == "traced"
    torch.testing.assert_close(torch.tensor(fits[0].losses), torch.tensor(fits[1].losses), rtol=1e-9, atol=1e-9)
