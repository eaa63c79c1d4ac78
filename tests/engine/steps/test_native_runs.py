"""Runs in C++: long, interrupted, diverging, step by step, side by side; all as in Pyro, and without leaks."""

from __future__ import annotations

import gc
import itertools
import os
import resource
import signal
import threading
import time
import tracemalloc

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal

import vipack as vi
from vipack.types import StopReason

NATIVE = ["interpreted", "compiled"]
STEPS = 60
Y = torch.tensor([0.3, -0.8, 1.9])


def model(y):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(z, 1.0), obs=y)


def adam():
    return pyro.optim.Adam({"lr": 0.02})


def fitted(engine, steps=STEPS, **options):
    options = {"optim": adam(), **options}
    return vi.fit(model, AutoNormal, data=Y, steps=steps, seed=5, engine=engine, progress=False, **options)


@pytest.fixture(scope="module")
def eager():
    return fitted("eager")


@pytest.mark.parametrize("engine", NATIVE)
def test_a_step_at_a_time_leaves_pyros_store_current(engine):
    def run(make, **options):
        pyro.clear_param_store()
        pyro.set_rng_seed(4)
        optim = adam()
        svi = make(model, AutoNormal(model), optim, Trace_ELBO(), **options)
        losses, seen = [], []
        for _ in range(STEPS):
            losses.append(svi.step(Y))
            seen.append([value.detach().clone() for _, value in sorted(pyro.get_param_store().items())])
        return svi, losses, seen, torch.get_rng_state()

    _, losses, expected, generator = run(SVI)
    svi, found, seen, reached = run(vi.SVI, engine=engine)
    assert svi.engine.tier == engine
    assert svi.engine.steps[engine] >= STEPS - 5
    np.testing.assert_allclose(found, losses, rtol=1e-4)
    for ours, theirs in zip(seen, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert torch.equal(reached, generator)


@pytest.mark.parametrize("engine", NATIVE)
def test_a_run_that_is_cut_off_and_resumed_is_the_whole_run(engine, eager):
    fit = fitted(engine, callbacks=vi.Every(20, lambda progress: progress.step == 40))
    assert fit.stopped.reason is StopReason.CALLBACK
    assert fit.steps == 40
    fit.resume(20)
    assert fit.engine.tier == engine
    np.testing.assert_allclose(fit.losses, eager.losses, rtol=1e-4)
    torch.testing.assert_close(fit.params, eager.params, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("engine", NATIVE)
def test_ctrl_c_ends_a_long_run_soon_and_keeps_the_fit(engine):
    running = threading.Event()

    def press():
        running.wait(120)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    def see(progress):
        if progress.step >= 100:
            running.set()

    presser = threading.Thread(target=press)
    presser.start()
    started = time.monotonic()
    fit = fitted(engine, steps=100_000_000, callbacks=see)
    presser.join()
    assert fit.stopped.reason is StopReason.INTERRUPTED
    assert 100 <= fit.steps < 100_000_000
    assert len(fit.losses) == fit.steps == sum(fit.engine.steps.values())
    assert np.isfinite(fit.losses).all()
    assert time.monotonic() - started < 100
    assert float(fit.sample(500)["z"].mean()) == pytest.approx(float(Y.sum()) / 4, abs=0.2)


def test_a_divergence_ends_the_run_where_it_ends_in_eager():
    def run(engine):
        with pytest.warns(vi.errors.DivergenceWarning):
            return fitted(engine, steps=400, optim=pyro.optim.SGD({"lr": 1.0}))

    eager, fit = run("eager"), run("interpreted")
    assert fit.stopped.reason is StopReason.DIVERGED
    assert fit.steps == eager.steps
    np.testing.assert_allclose(fit.losses, eager.losses, rtol=1e-3)
    torch.testing.assert_close(fit.params, eager.params)


def grown(action, before):
    """Megabytes that the process has grown by over an action, as far as it grew beyond what it ever was."""
    before()
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    action()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) / 1024


@pytest.mark.parametrize("engine", NATIVE)
def test_many_steps_take_no_memory(engine):
    fit = fitted(engine, steps=2_000)
    assert grown(lambda: fit.resume(50_000), lambda: fit.resume(10_000)) < 20


def test_steps_of_a_graph_leave_nothing_behind_in_python():
    pyro.clear_param_store()
    svi = vi.SVI(model, AutoNormal(model), adam(), Trace_ELBO(), engine="traced")
    svi.run(20, Y)
    tracemalloc.start()
    try:
        sizes = []
        for _ in range(6):  # Python's own stores of small objects fill up, in some rounds
            for _ in range(100):
                svi.step(Y)
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    # bytes: less than 100 a step, where a leak would show in every round
    assert min(after - before for before, after in itertools.pairwise(sizes)) < 10_000


@pytest.mark.slow
@pytest.mark.parametrize("engine", [*NATIVE, "traced"])
def test_200_000_steps_take_no_memory(engine):
    fit = fitted(engine, steps=2_000)
    assert grown(lambda: fit.resume(200_000), lambda: fit.resume(10_000)) < 20


@pytest.mark.parametrize("engine", ["interpreted", pytest.param("compiled", marks=pytest.mark.slow)])
def test_starts_side_by_side_train_natively(engine):
    def run(tier):
        return fitted(tier, restarts=3)

    traced, fit = run("traced"), run(engine)
    assert fit.engine.tier == engine
    np.testing.assert_allclose(fit.restarts, traced.restarts, rtol=1e-3)
    np.testing.assert_allclose(fit.losses, traced.losses, rtol=1e-4)


@pytest.mark.parametrize("engine", ["interpreted", pytest.param("compiled", marks=pytest.mark.slow)])
def test_draws_of_every_size_are_pyros_and_leave_its_generator_where_it_would_stand(engine):
    def many(y):
        for name, size in {
            "a": 1,
            "b": 3,
            "c": 20,
            "d": 5,
            "e": 1,
            "f": 15,
        }.items():  # a number waits from step to step
            pyro.sample(name, dist.Normal(torch.zeros(size, dtype=y.dtype), 1.0).to_event(1))
        pyro.sample("y", dist.Normal(y, 1.0).to_event(1), obs=y)

    def run(make, **options):
        pyro.clear_param_store()
        pyro.set_rng_seed(4)
        svi = make(many, AutoNormal(many), adam(), Trace_ELBO(), **options)
        return [svi.step(Y.double()) for _ in range(41)], torch.get_rng_state()

    torch.set_default_dtype(torch.float64)
    try:
        (expected, there), (found, here) = run(SVI), run(vi.SVI, engine=engine)
    finally:
        torch.set_default_dtype(torch.float32)
    assert np.allclose(found, expected, rtol=1e-9)
    waiting = slice(5024, 5032)  # of the generator's state: the number that waits, which may differ by rounding
    assert torch.allclose(there[waiting].view(torch.float64), here[waiting].view(torch.float64), rtol=1e-12)
    there[waiting] = here[waiting]
    assert torch.equal(there, here)
