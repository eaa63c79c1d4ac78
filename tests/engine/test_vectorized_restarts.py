"""Starts trained side by side are what each is alone, and the best is kept."""

from __future__ import annotations

from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDelta, AutoNormal, init_to_uniform

import vipack as vi
from vipack.engine.steps import training_step

STEPS = 40
X = torch.linspace(-1.0, 1.0, 12)
Y = (2.0 * X).sin() + 0.1


def bumpy(x, y):
    """Several modes, so that the start matters."""
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 3.0).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal((w[0] * x).sin() + w[1], 0.3), obs=y)


def fitted(guide=AutoDelta, restarts=1, seed=0, engine="traced", **options):
    return vi.fit(
        bumpy, guide, data=(X, Y), steps=STEPS, seed=seed, engine=engine, restarts=restarts, progress=False, **options
    )


@pytest.fixture(scope="module")
def alone():
    """A point estimate draws nothing, so its runs are comparable step by step."""
    scattered = partial(AutoDelta, init_loc_fn=init_to_uniform)
    return [fitted(), fitted(scattered, seed=1), fitted(scattered, seed=2), fitted(scattered, seed=3)]


@pytest.fixture(scope="module")
def together():
    return fitted(restarts=4)


def test_each_start_ends_where_it_ends_alone(alone, together):
    bounds = [fit.elbo(10).value for fit in alone]
    np.testing.assert_allclose(together.restarts, bounds, rtol=1e-4)
    assert len(set(np.round(bounds, 2))) > 1


def test_the_best_start_is_kept_with_its_losses_and_parameters(alone, together):
    best = alone[int(np.argmax(together.restarts))]
    np.testing.assert_allclose(together.losses, best.losses, rtol=1e-4)
    torch.testing.assert_close(together.params, best.params, rtol=1e-3, atol=1e-4)


def test_the_kept_start_trains_on(together):
    again = fitted(restarts=4)
    again.resume(20)
    assert again.steps == STEPS + 20
    assert again.losses[-1] <= again.losses[STEPS - 1] + 0.1


def test_a_single_restart_is_a_plain_fit(alone):
    assert fitted(restarts=1).losses.tolist() == alone[0].losses.tolist()


def test_starts_that_cannot_run_side_by_side_run_one_by_one_and_say_so():
    def branching(x, y):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(w * x if w > 0 else -w * x, 1.0), obs=y)

    fit = vi.fit(branching, AutoNormal, data=(X, Y), steps=10, restarts=2, progress=False)
    assert len(fit.restarts) == 2
    assert fit.several_starts
    assert "one after another" in fit.engine.reason
    assert "the starts may take different branches (test_vectorized_restarts.py:" in fit.engine.reason


def test_starts_see_different_noise():
    fit = fitted(partial(AutoNormal, init_loc_fn=lambda site: torch.zeros(2)), restarts=3)
    assert len(set(fit.restarts)) == 3


def test_what_a_callback_sets_is_seen_by_all_starts():
    def run(restarts, engine):
        state = {"noise": 0.3}

        def program(x, y):
            w = pyro.sample("w", dist.Normal(torch.zeros(2), 3.0).to_event(1))
            with pyro.plate("rows", len(x)):
                pyro.sample("y", dist.Normal(w[0] * x + w[1], state["noise"]), obs=y)

        def louder(progress):
            state["noise"] = 1.0

        options = {"steps": STEPS, "engine": engine, "callbacks": vi.Every(20, louder), "progress": False}
        return vi.fit(program, AutoDelta, data=(X, Y), restarts=restarts, **options)

    alone, together = run(1, "eager"), run(2, "traced")
    assert together.engine.tier == "traced"
    if int(np.argmax(together.restarts)) == 0:
        np.testing.assert_allclose(together.losses, alone.losses, rtol=1e-4)
    assert together.restarts[0] == pytest.approx(alone.elbo(10).value, rel=1e-3)


@pytest.mark.parametrize("engine", ["compiled", "auto"])
def test_what_lies_in_the_cache_is_not_traced_together_again(engine, monkeypatch):
    """Tracing all starts takes longer than most fits do; the loop is held to the steps of each start instead."""

    def refuse(*args, **options):
        raise AssertionError("traced once more")

    options = {"guide": AutoNormal, "restarts": 3, "optim": pyro.optim.Adam({"lr": 0.02})}
    first = fitted(engine="compiled", **options)
    slower = fitted(engine="traced", **options)
    with monkeypatch.context() as patched:
        patched.setattr(training_step, "_side_by_side", refuse)
        again = fitted(engine=engine, **options)
    assert again.engine.tier == "compiled"
    assert again.losses.tolist() == first.losses.tolist()
    assert again.restarts == first.restarts
    np.testing.assert_allclose(slower.restarts, first.restarts, rtol=1e-4)
