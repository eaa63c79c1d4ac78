"""Simulation-based calibration: guides that are right pass, wrong ones are told apart, and fits run side by side."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal

import vipack as vi
from vipack.program import Arguments, Program, seeded
from vipack.program.evaluation.simulation import simulate

X = torch.randn(20, 2, generator=torch.Generator().manual_seed(0)) @ torch.tensor([[1.0, 0.95], [0.0, 0.3]])
Y = torch.zeros(20)
COV = torch.linalg.inv(X.T @ X + torch.eye(2))


def model(x, y):
    b = pyro.sample("b", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal((x * b).sum(-1), 1.0), obs=y)


def exact(factor):
    """The posterior as a function of the data, its sds multiplied; it has nothing to learn."""

    def guide(x, y):
        pyro.param("idle", torch.zeros(()))
        pyro.sample("b", dist.MultivariateNormal(COV @ (x.T @ y), factor**2 * COV))

    return guide


@pytest.mark.parametrize(("factor", "misjudged"), [(1.0, None), (0.5, "too narrow"), (2.0, "too wide")])
def test_a_guide_of_the_data_is_judged_as_it_is(factor, misjudged):
    found = vi.vsbc(model, exact(factor), data=(X, Y), steps=0, seed=1)
    assert found.names == ("b[0]", "b[1]")
    assert found.probabilities.shape == (200, 2)
    assert not found.biased
    assert set(found.misjudged.values()) == ({misjudged} if misjudged else set())


@pytest.mark.parametrize(("guide", "passes"), [(AutoMultivariateNormal, True), (AutoNormal, False)])
def test_full_rank_passes_and_mean_field_is_flagged_where_latents_are_correlated(guide, passes):
    found = vi.vsbc(model, guide, data=(X, Y), steps=1_000, seed=1)
    assert found.engine.startswith("side by side")
    assert found.calibrated is passes, str(found)
    if not passes:
        assert set(found.misjudged.values()) == {"too narrow"}


def test_fits_side_by_side_are_fits_of_their_own_data():
    """With all noise averaged out, each mean is its data set's exact one."""
    from vipack.training.prepare import Problem, prepare
    from vipack.training.simulation_based_calibration import _simulated, _trained
    from vipack.training.trainer import Plan

    problem = Problem(model, (X, Y))
    prepared = prepare(problem, AutoMultivariateNormal, seed=0)
    simulations = _simulated(prepared, 5, 0)
    plan = Plan(1_500, 0, (), (), False, None, "traced")
    fits, _ = _trained(problem, AutoMultivariateNormal, prepared, plan, None, simulations)
    for fit, call in zip(fits, simulations.calls, strict=True):
        loc = fit().parameters.constrained()["AutoMultivariateNormal.loc"]
        expected = COV @ (X.T @ call.args[1])
        assert torch.allclose(loc, expected, atol=0.15 * float(COV.diagonal().sqrt().min()) + 0.05)


def test_the_simulated_joint_has_the_moments_of_the_model():
    program = Program(model, exact(1.0), dtype=torch.float32, device=torch.device("cpu"))
    with seeded(0):
        drawn = [simulate(program, Arguments((X, Y))) for _ in range(600)]
    b = torch.stack([latents["b"] for latents, _ in drawn])
    y = torch.stack([observed["y"] for _, observed in drawn])
    assert torch.allclose(b.mean(0), torch.zeros(2), atol=4 / 600**0.5)
    residual = y - b @ X.T
    assert float(residual.std()) == pytest.approx(1.0, abs=4 / (2 * residual.numel()) ** 0.5)


# --- what cannot be simulated is named


def flat(y):
    mu = pyro.sample("mu", dist.ImproperUniform(constraints.real, (), ()))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def derived(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=2 * y + 1)


def factored(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    pyro.factor("likelihood", -((y - mu) ** 2).sum())


@pytest.mark.parametrize(
    ("program", "options", "words"),
    [
        (flat, {}, "site 'mu' has an improper prior"),
        (derived, {}, "site 'y': its observed value is not one of the tensors"),
        (factored, {}, "site 'likelihood' is a pyro.factor"),
        (flat, {"num_simulations": 5}, "num_simulations: expected an integer of at least 20, found 5"),
        (flat, {"num_draws": 1.5}, "num_draws: expected an integer"),
        (flat, {"steps": -1}, "steps: expected an integer"),
    ],
)
def test_what_cannot_be_simulated_is_named(program, options, words):
    with pytest.raises(vi.errors.VipackError, match=words):
        vi.vsbc(program, AutoNormal, data=Y, **options)
