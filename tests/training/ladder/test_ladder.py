"""A fit without a guide: right answers, stages that tell what they did, and ends that keep the best so far."""

import math
import signal

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import config_enumerate
from pyro.infer.autoguide import AutoNormal

import vipack as vi
from tests.training.ladder.programs import (
    X,
    conjugate,
    constant,
    nowhere,
    skewed,
    surface,
    toss,
    two_shapes,
    unidentified,
)
from vipack.errors import GuideError, ModelError, NonFiniteError
from vipack.training.ladder import ladder
from vipack.training.ladder.effort import Effort, effort_for
from vipack.training.ladder.rungs import Rung
from vipack.training.ladder.stages import Stage, Stages
from vipack.types import Estimate, StopReason


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """Few steps, and a flow only where a test asks for it: capturing one takes most of a climb's time."""
    short = Effort(gaussian_steps=200, flow_steps=300, flow_draws=16, polish_steps=20, judged_by=1_000)
    monkeypatch.setattr(ladder, "effort_for", lambda surface: short)
    monkeypatch.setattr(Rung, "excellent", lambda rung: rung.trainer.state.step > 0)
    monkeypatch.setattr("vipack.training.ladder.by_draws._DRAWS", 2_000)


@pytest.fixture(scope="module")
def exact():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ladder, "effort_for", lambda surface: Effort(gaussian_steps=200, judged_by=1_000))
        return vi.fit(conjugate, data=X)


def test_a_gaussian_posterior_is_found_exactly(exact):
    draws = exact.sample(4_000)["mu"]
    mean, sd = float(X.sum()) / 6, 1 / math.sqrt(6)
    assert abs(float(draws.mean()) - mean) < 4 * sd / math.sqrt(4_000)
    assert abs(float(draws.std()) / sd - 1) < 4 / math.sqrt(2 * 4_000)
    assert draws.dtype is torch.float64


def test_the_stages_say_what_was_kept_and_why_the_rest_was_not_needed(exact):
    paths, gaussian, flow = exact.stages
    assert exact.several_starts
    assert paths.kept
    for stage in (gaussian, flow):
        assert (stage.kept, stage.steps, stage.elbo) == (False, 0, None)
        assert "nothing left to gain" in stage.reason
    table = str(exact.stages).splitlines()
    assert table[0].split() == ["stage", "ELBO", "(nats)", "gain", "(nats)", "steps", "seconds", "kept", "why"]
    assert [line.split()[0] for line in table[1:]] == ["paths", "gaussian", "flow"]


def test_a_seed_decides_the_fit(exact):
    again = vi.fit(conjugate, data=X)
    assert torch.equal(again.sample(5)["mu"], exact.sample(5)["mu"])


def test_the_guide_runs_in_plain_pyro(exact):
    trace = poutine.trace(exact.guide).get_trace(X)
    assert "mu" in trace.nodes
    assert set(exact.predict(3)) >= {"x"}


def test_a_file_needs_no_guide_either(exact, tmp_path):
    exact.save(tmp_path / "fit")
    loaded = vi.load(tmp_path / "fit", conjugate)
    assert torch.equal(loaded.sample(5)["mu"], exact.sample(5)["mu"])
    assert loaded.stages == exact.stages


def test_a_flow_is_loaded_and_trained_further(tmp_path, monkeypatch):
    monkeypatch.setattr(Rung, "excellent", lambda rung: False)

    fit = vi.fit(skewed, data=X[0])
    assert fit.stages[2].kept, str(fit.stages)
    assert fit.stages[2].gain.value > fit.stages[2].gain.se
    fit.save(tmp_path / "fit")
    loaded = vi.load(tmp_path / "fit", skewed)
    assert torch.equal(loaded.sample(5)["z"], fit.sample(5)["z"])
    assert loaded.resume(steps=5).steps == fit.steps + 5


def test_flat_priors_need_no_initial_values():
    fit = vi.fit(two_shapes, data=X)
    draws = fit.sample(2_000)
    assert (draws["s"] > 0).all()
    assert (draws["cuts"][:, 0] < draws["cuts"][:, 1]).all()
    assert abs(float(draws["cuts"][:, 1].mean()) - 1.0) < 4 * 0.1 / math.sqrt(2_000) + 0.02


def test_discrete_latents_that_are_marked_are_summed_out():
    @config_enumerate
    def mixture(x):
        place = pyro.sample("place", dist.Normal(0.0, 1.0))
        with pyro.plate("row", len(x)):
            side = pyro.sample("side", dist.Bernoulli(0.3))
            pyro.sample("x", dist.Normal(place + 3 * side, 1.0), obs=x)

    fit = vi.fit(mixture, data=X)
    grid = torch.linspace(-4, 4, 2_001, dtype=torch.float64)
    near, far = (dist.Normal(grid[:, None] + shift, 1.0).log_prob(X) for shift in (0.0, 3.0))
    log_p = torch.logaddexp(near + math.log(0.7), far + math.log(0.3)).sum(-1) - grid**2 / 2
    weight = torch.softmax(log_p, 0)
    mean = (weight * grid).sum()
    sd = float((weight * (grid - mean) ** 2).sum().sqrt())
    draws = fit.sample(4_000, resample=True)["place"]
    assert abs(float(draws.mean() - mean)) < 4 * sd / math.sqrt(4_000) + 0.03 * sd


def test_minibatches_leave_out_the_stages_that_need_all_data(tmp_path):
    fit = vi.fit(conjugate, data=X.repeat(4), batch_size=5, stop=lambda losses, seconds: stop_at(losses, 20))
    assert [stage.kept for stage in fit.stages] == [False, True, False]
    assert "minibatches" in fit.stages[0].reason
    assert "AutoMultivariateNormal" in fit.stages[1].reason
    fit.save(tmp_path / "fit")
    assert torch.equal(vi.load(tmp_path / "fit", conjugate).sample(3)["mu"], fit.sample(3)["mu"])


def test_parameters_of_the_model_are_trained_with_the_guide():
    def learned(x):
        spread = pyro.param("spread", torch.tensor(1.0), constraint=dist.constraints.positive)
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("row", len(x)):
            pyro.sample("x", dist.Normal(mu, spread), obs=x)

    fit = vi.fit(learned, data=X, stop=lambda losses, seconds: stop_at(losses, 20))
    assert "spread" in fit.params
    assert "parameters of its own" in fit.stages[0].reason


def stop_at(losses, number):
    return vi.types.Stopped(StopReason.CALLBACK, "enough") if len(losses) >= number else None


def test_a_callback_ends_the_climb_and_the_best_so_far_is_kept():
    fit = vi.fit(conjugate, data=X, callbacks=vi.Every(20, lambda progress: "enough"))
    assert fit.stopped.reason is StopReason.CALLBACK
    assert "had ended" in fit.stages[2].reason
    assert abs(float(fit.sample(500)["mu"].mean()) - float(X.sum()) / 6) < 0.1


def test_ctrl_c_ends_the_climb_and_the_best_so_far_is_kept():
    fit = vi.fit(conjugate, data=X, callbacks=vi.Every(20, lambda progress: signal.raise_signal(signal.SIGINT)))
    assert fit.stopped.reason is StopReason.INTERRUPTED
    assert fit.stages[0].kept
    assert "had ended" in fit.stages[2].reason


def test_a_time_limit_counts_from_the_foot_of_the_ladder():
    fit = vi.fit(conjugate, data=X, stop=vi.TimeLimit(1e-6))
    assert fit.stopped.reason is StopReason.TIME
    assert fit.stages[1].steps < 200


def test_a_posterior_that_nothing_bounds_is_refused():
    with pytest.raises(ModelError, match=r"improper.*'b'"):
        vi.fit(constant, data=X)


def test_latents_that_the_data_cannot_tell_apart_are_named():
    with pytest.raises(ModelError, match=r"improper.*'a', 'b'"):
        vi.fit(unidentified, data=X)


def test_a_density_of_zero_everywhere_is_an_error():
    with pytest.raises(NonFiniteError, match="-inf or NaN at all of"):
        vi.fit(nowhere, data=X)


def test_a_discrete_latent_that_is_not_marked_is_an_error():
    with pytest.raises(GuideError, match=r"'side' is a discrete latent.*config_enumerate"):
        vi.fit(toss, data=X)


def test_thousands_of_latents_get_independent_ones_and_no_flow(monkeypatch):
    monkeypatch.setattr(ladder, "effort_for", effort_for)
    monkeypatch.setattr(
        "vipack.training.ladder.effort.Effort", lambda **options: Effort(**{**options, "gaussian_steps": 20})
    )

    def wide(x):
        z = pyro.sample("z", dist.Normal(x, 2.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 2.0).to_event(1), obs=x)

    fit = vi.fit(wide, data=torch.arange(5_000.0))
    draws = fit.sample(200)["z"]
    assert abs(float((draws.std(0) / 2**0.5).mean()) - 1) < 0.02
    assert float((draws.mean(0) - torch.arange(5_000.0)).abs().mean()) < 0.2
    assert "too many" in fit.stages[2].reason


def test_options_of_a_single_run_train_one_gaussian():
    fit = vi.fit(conjugate, data=X, steps=3)
    assert fit.steps == 3
    assert fit.stages == ()
    assert str(fit.stages) == "no stages: the guide was the user's own"


def test_effort_depends_on_the_program_not_on_the_machine():
    def long(x):
        value = pyro.sample("mu", dist.Normal(0.0, 1.0))
        for _ in range(400):
            value = (value * 0.9).sin()
        pyro.sample("x", dist.Normal(value, 1.0), obs=x[0])

    assert effort_for(surface(long, X)).flow_draws > effort_for(surface(conjugate, X)).flow_draws


def test_a_model_that_vmap_refuses_is_climbed_draw_by_draw():
    def branching(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        spread = 1.0 if float(mu.detach()) > -50 else 2.0
        with pyro.plate("row", len(x)):
            pyro.sample("x", dist.Normal(mu, spread), obs=x)

    where = surface(branching, X)
    assert torch.allclose(
        where.values(torch.zeros(3, 1).double()), surface(conjugate, X).values(torch.zeros(3, 1).double())
    )
    assert not where.vectorized
    assert effort_for(where).flow_draws < Effort().flow_draws


def test_a_flow_can_be_fitted_to_weighted_draws(monkeypatch):
    effort = Effort(flow_steps=400, by_draws=True, judged_by=2_000)
    monkeypatch.setattr(ladder, "effort_for", lambda surface: effort)
    monkeypatch.setattr(Rung, "excellent", lambda rung: False)
    fit = vi.fit(skewed, data=X[0])
    paths, gaussian, flow, *_ = fit.stages
    assert "dear" in gaussian.reason
    assert flow.kept
    assert flow.steps == 400
    assert fit.elbo(2_000).value - paths.elbo.value > 3 * fit.elbo(2_000).se


def test_one_latent_gets_no_flow(monkeypatch):
    monkeypatch.setattr(Rung, "excellent", lambda rung: False)
    fit = vi.fit(conjugate, data=X)
    assert "coupling needs two" in fit.stages[2].reason


def test_the_average_of_late_iterates_is_nearer_to_the_optimum():
    options = {"data": X, "steps": 300, "optim": pyro.optim.Adam({"lr": 0.1})}
    mean = float(X.sum()) / 6
    locs = {
        average: [
            float(vi.fit(conjugate, AutoNormal, seed=seed, average=average, **options).guide.median()["mu"])
            for seed in range(4)
        ]
        for average in (False, True)
    }
    errors = {average: max(abs(loc - mean) for loc in found) for average, found in locs.items()}
    assert errors[True] < 0.5 * errors[False]


def test_stages_pass_through_plain_values():
    stages = Stages.of([Stage("paths", Estimate(1.0, 0.5), None, 3, 0.1, True, "why")])
    assert Stages.from_plain(stages.plain()) == stages
