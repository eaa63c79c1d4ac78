"""A run moves up when it pays, every move is held to Pyro, and whatever goes wrong a tier lower goes on."""

from __future__ import annotations

import dataclasses
import os
import signal

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

import vipack as vi
from vipack.engine import graphs, tiers
from vipack.engine.capture.tracing import CaptureError
from vipack.types import StopReason

X = torch.linspace(-1, 1, 20)
Y = 2 * X + 0.3


def model(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(w[0] * x + w[1], 0.5), obs=y)


def fitted(engine="traced", steps=60, **options):
    return vi.fit(model, AutoNormal, data=(X, Y), steps=steps, seed=2, engine=engine, **options)


@pytest.fixture(scope="module")
def eager():
    return fitted("eager")


def assert_as_eager(fit, eager):
    assert fit.losses.tolist() == eager.losses.tolist()
    assert fit.engine.tier == "eager"


def test_a_short_run_is_not_captured():
    fit = fitted("auto", steps=30)
    assert fit.engine.steps == {"eager": 30}
    assert fit.engine.capture_seconds == 0.0
    assert fit.engine.reason == ""


def test_a_longer_run_is_captured_after_its_first_step():
    fit = fitted("auto", steps=400)
    assert fit.engine.steps["eager"] <= 2
    assert sum(fit.engine.steps.values()) == 400
    assert fit.engine.capture_seconds > 0.0


def test_the_report_counts_every_step(eager):
    fit = fitted("traced")
    assert fit.engine.steps == {"eager": 1, "traced": 59}
    assert fit.engine.reason == ""
    assert str(fit.engine) == "traced (1 eager, 59 traced)"
    np.testing.assert_allclose(fit.losses, eager.losses, rtol=1e-4)


def spoiled(monkeypatch, change):
    """Captured graphs of which one number is wrong."""
    capture = graphs.capture

    def wrong(*arguments):
        graph = capture(*arguments)
        nodes = graph.module.graph
        output = next(iter(reversed(nodes.nodes)))
        with nodes.inserting_before(output):
            output.args = (change(nodes, list(output.args[0])),)
        graph.module.recompile()
        return graph

    monkeypatch.setattr(graphs, "capture", wrong)


def test_a_graph_with_another_loss_is_refused(monkeypatch, eager):
    def change(nodes, results):
        return [nodes.call_function(torch.ops.aten.mul.Tensor, (results[0], 1.001)), *results[1:]]

    spoiled(monkeypatch, change)
    fit = fitted()
    assert_as_eager(fit, eager)
    assert "the captured graph gave another step (a loss of" in fit.engine.reason


def test_a_graph_without_one_gradient_is_refused(monkeypatch, eager):
    """Which the loss of one step does not show."""

    def change(nodes, results):
        return [results[0], nodes.call_function(torch.ops.aten.mul.Tensor, (results[1], 0.0)), *results[2:]]

    spoiled(monkeypatch, change)
    fit = fitted()
    assert_as_eager(fit, eager)
    assert "it moves the optimizer's state of parameter 'AutoNormal.locs.w' elsewhere" in fit.engine.reason


def test_a_graph_that_draws_otherwise_is_refused(monkeypatch, eager):
    def change(nodes, results):
        draw = nodes.call_function(torch.ops.aten.rand.default, ([1],), {"dtype": torch.float32})
        draw.meta["val"] = torch.zeros(1)
        none = nodes.call_function(torch.ops.aten.mul.Tensor, (draw, 0.0))
        nothing = nodes.call_function(torch.ops.aten.sum.default, (none,))
        return [nodes.call_function(torch.ops.aten.add.Tensor, (results[0], nothing)), *results[1:]]

    spoiled(monkeypatch, change)
    fit = fitted()
    assert_as_eager(fit, eager)
    assert "other random numbers" in fit.engine.reason


def test_a_capture_that_fails_is_no_failure_of_the_run(monkeypatch, eager):
    def refuse(*arguments):
        raise CaptureError("it cannot be")

    monkeypatch.setattr(graphs, "capture", refuse)
    fit = fitted()
    assert_as_eager(fit, eager)
    assert fit.engine.reason == "eager: it cannot be"


def test_a_divergence_is_found_at_the_step_at_which_eager_finds_it():
    def run(engine):
        with pytest.warns(vi.errors.DivergenceWarning):
            return fitted(engine, steps=400, optim=pyro.optim.SGD({"lr": 0.1}))

    eager, fit = run("eager"), run("traced")
    assert fit.stopped.reason is eager.stopped.reason is StopReason.DIVERGED
    assert fit.steps == eager.steps
    assert "is not finite" in fit.stopped.detail or "is nan" in fit.stopped.detail or "inf" in fit.stopped.detail
    np.testing.assert_allclose(fit.losses, eager.losses, rtol=1e-3)
    torch.testing.assert_close(fit.params, eager.params)


def test_ctrl_c_keeps_the_steps_of_the_graph(eager):
    def interrupt(progress):
        if progress.step == 30:
            os.kill(os.getpid(), signal.SIGINT)

    previous = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        fit = fitted(callbacks=vi.Every(10, interrupt))
    finally:
        signal.signal(signal.SIGINT, previous)
    assert fit.stopped.reason is StopReason.INTERRUPTED
    assert 30 <= fit.steps < 60
    fit.resume(60 - fit.steps)
    np.testing.assert_allclose(fit.losses, eager.losses, rtol=1e-4)


def test_two_shapes_of_batches_have_a_graph_each():
    def run(engine):
        return fitted(engine, batch_size=8)  # of 20 rows: 8, 8, 4

    eager, fit = run("eager"), run("traced")
    assert fit.engine.steps["eager"] <= 3
    np.testing.assert_allclose(fit.losses, eager.losses, rtol=1e-4)


def test_reports_are_plain_data():
    report = fitted("eager", steps=2).engine
    assert dataclasses.asdict(report)["steps"] == {"eager": 2}


def test_few_steps_that_take_long_are_captured_too(monkeypatch):
    """What a capture saves is time, not steps."""
    assert fitted("auto").engine.steps == {"eager": 60}
    monkeypatch.setattr(tiers, "_TRACE_SECONDS", 0.01)  # which 60 steps of this model take
    assert fitted("auto").engine.tier != "eager"
