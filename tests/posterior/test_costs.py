"""What answers cost with many rows of data: densities that nobody asked for are not computed, the others by a graph."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

import vipack as vi
from vipack.program.evaluation.logjoint import LogJoint

ROWS = 4_000
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(ROWS, 2, generator=GENERATOR)
Y = X.sum(1) + torch.randn(ROWS, generator=GENERATOR)
RUNS = []


def model(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("row", len(x)):
        pyro.sample("y", dist.Normal(x @ w, sigma), obs=y)
        RUNS.append(1)


def with_ratio(x, y):
    model(x, y)
    pyro.deterministic("ratio", torch.as_tensor(len(y)) / pyro.sample("scale", dist.LogNormal(0.0, 0.1)))


@pytest.fixture(scope="module")
def fit():
    return vi.fit(model, AutoNormal, data=(X, Y), steps=200, progress=False)


def test_samples_run_no_model_that_has_nothing_to_compute(fit, monkeypatch):
    _ = fit.posterior
    RUNS.clear()
    draws = fit.sample(50)
    fit.summary(50)
    assert RUNS == []
    assert torch.equal(draws["w"], fit.posterior.draws(50).latents["w"])


def test_deterministic_sites_are_computed_without_densities(monkeypatch):
    fit = vi.fit(with_ratio, AutoNormal, data=(X, Y), steps=5, progress=False)
    evaluated = []
    evaluate = fit.posterior.evaluation.evaluate
    monkeypatch.setattr(fit.posterior.evaluation, "evaluate", lambda draw: evaluated.append(1) or evaluate(draw))
    draws = fit.sample(50)
    torch.testing.assert_close(draws["ratio"], ROWS / draws["scale"])
    assert evaluated == []
    found = fit.posterior.draws(50)
    assert evaluated
    torch.testing.assert_close(found.deterministic["ratio"], draws["ratio"])


def test_densities_of_many_draws_are_replayed_and_are_the_same(fit, monkeypatch):
    latents = fit.posterior.guide_draws(3_100)
    few = torch.cat(
        [fit.posterior.at({n: v[i : i + 310] for n, v in latents.items()})[1] for i in range(0, 3_100, 310)]
    )
    assert fit.posterior.vectorizer.chosen["model"] == "vmap"
    RUNS.clear()
    many = fit.posterior.at(latents)[1]
    assert fit.posterior.vectorizer.chosen["model"] == "graph"
    assert len(RUNS) == 1
    torch.testing.assert_close(many, few)


def test_draws_on_the_unconstrained_space_ask_for_no_likelihood(fit, monkeypatch):
    joint = LogJoint(fit.posterior.program, fit.posterior.arguments)
    latents = fit.posterior.guide_draws(200)
    whole = joint.unconstrain_many(latents)
    monkeypatch.setattr("vipack.program.evaluation.logjoint._NUMBERS_AT_ONCE", 1)
    RUNS.clear()
    assert torch.equal(joint.unconstrain_many(latents), whole)
    assert len(RUNS) == 1


def test_a_set_of_draws_that_is_dear_and_clear_is_the_only_one(fit, monkeypatch):
    options = {"num_draws": 500, "chains": False, "modes": False}
    assert len(vi.diagnostics.diagnose(fit.posterior, **options).khats) == 4
    monkeypatch.setattr("vipack.diagnostics.verdict._DEAR", 0)
    monkeypatch.setattr("vipack.diagnostics.verdict._clear", lambda weights: len(weights) > 500)
    assert len(vi.diagnostics.diagnose(fit.posterior, **options).khats) == 2


def test_weights_near_a_bound_are_not_clear():
    from vipack.diagnostics.verdict import _clear

    normal = torch.randn(4_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert _clear(0.05 * normal)  # even
    assert _clear(0.8 * normal)  # a light tail, half of the draws effective
    assert _clear(normal**2 * 3)  # hopeless
    assert not _clear(1.6 * normal)  # few effective draws
