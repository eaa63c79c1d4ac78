"""A step that is called from Python runs like a loop in C++, and can be recorded without a trace of having been tried."""

from __future__ import annotations

import contextlib
import types

import numpy as np
import pytest
import torch

from vipack.engine.compiled.called import CalledStep
from vipack.engine.native.bridge import NativeError
from vipack.engine.native.operations import LoopSpec

SPEC = LoopSpec(normals=(0,), fed=(2,))


def step(draw, value, rate):
    """A walk: the loss is where it stands."""
    value.add_(rate * draw)
    return (value.sum(),)


def inputs():
    return [torch.zeros(2), torch.zeros(2), torch.zeros(1)]


def walked(rates):
    torch.manual_seed(3)
    value, losses = torch.zeros(2), []
    for rate in rates:
        value = value + rate * torch.empty(2).normal_()
        losses.append(float(value.sum()))
    return losses


def test_inputs_are_fed_and_drawn_step_by_step_over_many_times_what_lies_ahead():
    rates = torch.linspace(0, 1, 2_500)[:, None]
    called, losses = CalledStep(step, SPEC, inputs()), np.empty(2_500)
    torch.manual_seed(3)
    assert called([rates], losses) == 2_500
    assert np.allclose(losses, walked(rates), rtol=1e-4, atol=1e-4)


def test_the_first_loss_that_is_not_finite_ends_it():
    rates = torch.ones(1_500, 1)
    rates[1_100] = torch.inf
    losses = np.empty(1_500)
    assert CalledStep(step, SPEC, inputs())([rates], losses) == 1_101
    assert np.isfinite(losses[:1_100]).all()


def test_an_operator_that_raises_is_named_as_in_other_loops():
    def refuses(*values):
        raise RuntimeError("the input is not\n positive definite")

    with pytest.raises(NativeError, match="the input is not positive definite"):
        CalledStep(refuses, SPEC, inputs())([torch.ones(1, 1)], np.empty(1))


@pytest.fixture
def gpu(monkeypatch):
    """Stands in for torch.cuda where a step is recorded; counts the replays."""

    class Graph:
        replays = 0
        steps = 0

        def replay(self):
            Graph.replays += 1
            for _ in range(self.steps):
                held.step._step()

        def pool(self):
            return "a pool"

    class Stream:
        def wait_stream(self, other):
            pass

    held = types.SimpleNamespace(step=None, fails=False, graph=Graph, taken=0)

    @contextlib.contextmanager
    def graph(recording, pool=None):
        before = held.taken
        yield
        recording.steps = held.taken - before
        if held.fails:
            raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    return held


@pytest.mark.parametrize("fails", [False, True])
def test_recording_leaves_inputs_and_generator_as_they_were_and_says_if_it_failed(fails, gpu):
    gpu.fails = fails
    values, rates = inputs(), torch.full((30, 1), 0.5)

    def counted(*values):
        gpu.taken += 1
        return step(*values)

    gpu.step = called = CalledStep(counted, SPEC, values)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    called._record()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, torch.zeros_like(value)) for value in values)
    assert ("operation not permitted" in called.note) is fails
    losses = np.empty(30)
    called([rates], losses)
    assert np.allclose(losses, walked(rates), rtol=1e-4, atol=1e-5)
    assert gpu.graph.replays == (0 if fails else 1 + 14)  # sixteen steps together, and the rest one by one
