"""How a run goes and why it ends."""

import functools
import io
import math
import random
import re
import sys
import time

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal, init_to_median

import vipack as vi
from tests.training.programs import RECIPES, X, normal
from tests.training.test_isolation import assert_same
from vipack.types import Stopped, StopReason


def fit(**options):
    return vi.fit(normal, AutoNormal, data=X, **options)


# --- reasons


def test_steps_used_up():
    done = fit(steps=12)
    assert (done.stopped.reason, done.steps, len(done.losses)) == (StopReason.STEPS, 12, 12)
    assert str(done.stopped) == "steps used up: 12 steps"
    assert done.engine.steps == {"eager": 12}


def test_no_steps_leave_the_guide_as_it_starts():
    done = fit(steps=0)
    assert (done.steps, done.seconds, done.losses.shape) == (0, 0.0, (0,))
    assert done.sample(3)["mu"].shape == (3,)


def test_epochs_are_counted_in_batches():
    assert fit(epochs=3, batch_size=8).steps == math.ceil(3 * len(X) / 8)
    assert fit(epochs=3).steps == 3
    assert vi.fit(**RECIPES["DataLoader"], epochs=2).steps == 2 * 4
    epochs = []
    fit(epochs=2, batch_size=15, callbacks=vi.Every(1, lambda progress: epochs.append(progress.epoch)))
    assert epochs == [0, 0, 1, 1]  # the epoch of the batch that was taken last


def test_a_rule_ends_the_run():
    done = fit(steps=5_000, stop=vi.Converged(tolerance=100.0, min_steps=150))
    assert (done.stopped.reason, done.steps) == (StopReason.CONVERGED, 200)  # rules are asked every hundred steps


def test_a_rule_of_the_users_own_ends_the_run():
    def low(losses, seconds):
        return Stopped(StopReason.CONVERGED, "low enough") if losses[-1] < 1e6 else None

    done = fit(steps=5_000, stop=(vi.TimeLimit(60), low))
    assert (str(done.stopped), done.steps) == ("converged: low enough", 100)


def test_a_users_convergence_rule_takes_the_place_of_the_default_one():
    done = fit(stop=vi.Converged(tolerance=100.0, min_steps=250))
    assert done.stopped.reason is StopReason.CONVERGED
    assert done.steps == 300 * 1.5  # and then the learning rate falls over half as many steps


def test_time_used_up_is_seen_at_every_step_of_a_slow_model():
    def slow(x):
        time.sleep(0.02)
        normal(x)

    done = vi.fit(slow, AutoNormal, data=X, steps=1_000, stop=vi.TimeLimit(0.2))
    assert done.stopped.reason is StopReason.TIME
    assert done.steps < 15
    assert done.seconds >= 0.2


@pytest.mark.parametrize(("answer", "detail"), [(True, "after 8 steps"), ("good enough", "good enough")])
def test_a_callback_ends_the_run(answer, detail):
    done = fit(steps=100, callbacks=vi.Every(4, lambda progress: answer if progress.step > 4 else None))
    assert done.stopped == Stopped(StopReason.CALLBACK, detail)
    assert done.steps == 8


@pytest.mark.parametrize("answer", [None, False, 1, 0.5, []])
def test_other_answers_of_a_callback_mean_nothing(answer):
    assert fit(steps=5, callbacks=vi.Every(1, lambda progress: answer)).steps == 5


def test_a_divergence_goes_back_to_the_best_state():
    def model(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mu + 0 * torch.sqrt(1.5 - mu), 1.0), obs=x)

    def guide(x):
        pyro.sample("mu", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1e-4))

    with pytest.warns(vi.errors.DivergenceWarning, match="'x'"):
        done = vi.fit(model, guide, data=X, steps=400, optim=pyro.optim.Adam({"lr": 0.01}), engine="eager")
    assert done.stopped.reason is StopReason.DIVERGED
    assert 200 < done.steps < 300
    assert "those of step 200" in done.stopped.detail
    before = vi.fit(model, guide, data=X, steps=200, optim=pyro.optim.Adam({"lr": 0.01}), engine="eager")
    assert torch.equal(done.params["loc"], before.params["loc"])
    assert np.isfinite(done.losses).all()


# --- callbacks


def test_every_n_is_called_after_every_n_steps_exactly():
    steps = {n: [] for n in (1, 3, 7)}
    fit(steps=20, callbacks=tuple(vi.Every(n, lambda p, seen=seen: seen.append(p.step)) for n, seen in steps.items()))
    assert steps == {n: list(range(n, 21, n)) for n in steps}


def test_plain_callbacks_are_called_now_and_then():
    seen = []
    fit(steps=200, callbacks=lambda progress: seen.append(progress.step))
    assert 2 <= len(seen) <= 200
    assert seen[-1] == 200
    assert seen == sorted(set(seen))


def test_callbacks_are_told_where_the_run_stands():
    seen = []
    done = fit(steps=150, callbacks=vi.Every(50, seen.append))
    assert [progress.step for progress in seen] == [50, 100, 150]
    assert seen[0].loss == pytest.approx(done.losses[:50].mean())
    assert seen[2].loss == pytest.approx(done.losses[50:150].mean())  # of the last hundred
    assert len(seen[2].losses) == 150
    assert 0 < seen[0].seconds < seen[2].seconds <= done.seconds


def test_callbacks_read_parameters_as_they_stand():
    seen = []
    done = fit(steps=4, callbacks=vi.Every(2, lambda progress: seen.append(progress.params())))
    name = "AutoNormal.locs.mu"
    assert not torch.equal(seen[0][name], seen[1][name])
    assert torch.equal(seen[1][name], done.params[name])
    assert not seen[0][name].requires_grad


def test_callbacks_that_draw_and_watch_do_not_change_the_run():
    def restless(progress):
        torch.randn(3), np.random.rand(), random.random()  # noqa: NPY002
        progress.params()["AutoNormal.locs.mu"].add_(1.0)
        pyro.clear_param_store()

    alone = vi.fit(**RECIPES["NumPy's noise"], steps=10)
    assert_same(vi.fit(**RECIPES["NumPy's noise"], steps=10, callbacks=vi.Every(1, restless)), alone)
    assert_same(vi.fit(**RECIPES["NumPy's noise"], steps=10, callbacks=(lambda progress: None), progress=True), alone)


def test_an_error_in_a_callback_is_the_users_own():
    def broken(progress):
        raise LookupError("mine")

    before = torch.get_rng_state()
    with pytest.raises(LookupError, match="mine"):
        fit(steps=10, callbacks=broken)
    assert torch.equal(torch.get_rng_state(), before)


# --- going on


def test_resuming_in_parts_is_one_run():
    whole = fit(steps=250)
    parts = fit(steps=250, callbacks=vi.Every(1, lambda progress: progress.step in (3, 99, 100, 177)))
    assert parts.steps == 3
    parts.resume(1).resume(40).resume()
    while parts.steps < 250:
        parts.resume()
    assert_same(parts, whole)
    assert parts.stopped == whole.stopped


def test_rules_hold_in_resumed_runs():
    done = fit(steps=5_000, stop=vi.Converged(tolerance=100.0, min_steps=150))
    assert done.resume(steps=1_000).stopped.reason is StopReason.CONVERGED
    assert done.steps == 300


# --- the bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_without_a_terminal_there_is_no_bar(capsys):
    fit(steps=30)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == ""


def test_with_a_terminal_there_is_one_unless_declined(monkeypatch):
    for progress, shown in ((None, True), (True, True), (False, False)):
        monkeypatch.setattr(sys, "stderr", Terminal())
        fit(steps=30, progress=progress)
        assert bool(sys.stderr.getvalue()) is shown


def test_a_bar_that_is_asked_for_shows_loss_and_rate(capsys):
    fit(steps=300, progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    last = shown.err.split("\r")[-1]
    assert re.search(r"300/300 .*step/s, loss \d+\.\d\d\]", last), last


def test_a_resumed_bar_goes_on_from_where_it_was(capsys):
    done = fit(steps=40, progress=True, callbacks=vi.Every(1, lambda progress: progress.step == 15))
    capsys.readouterr()
    done.resume()
    assert "40/40" in capsys.readouterr().err


# --- types


def test_a_fit_in_float64_is_in_float64():
    done = fit(steps=5, dtype=torch.float64)
    assert {value.dtype for value in done.params.values()} == {torch.float64}
    assert {value.dtype for value in done.sample(3).values()} == {torch.float64}
    assert done.predict(2)["x"].dtype == torch.float64
    assert torch.get_default_dtype() == torch.float32
    own = vi.fit(normal, AutoNormal, data=X.double(), steps=5)
    assert_same(own, done)


def test_float64_resolves_what_float32_cannot():
    """A mean of ten million with sd 0.1, where neighbouring float32 numbers are 1 apart."""

    def model(x):
        mu = pyro.sample("mu", dist.Normal(1e7, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    x = 1e7 + torch.randn(99, dtype=torch.float64)
    guide = functools.partial(AutoNormal, init_loc_fn=init_to_median)
    done = vi.fit(model, guide, data=x, steps=800)
    draws = done.sample(20_000)["mu"]
    assert float(draws.mean()) == pytest.approx(float(1e7 + (x - 1e7).sum() / 100), abs=0.02)
    assert float(draws.std()) == pytest.approx(0.1, rel=0.1)
