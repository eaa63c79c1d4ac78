"""Parameters and moments live in a few vectors, and everybody goes on seeing their own tensors."""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

from vipack.engine.eager import EagerStep
from vipack.engine.optimizers.fit_optimizer import make_optimizer
from vipack.engine.steps.memory import Memory
from vipack.training.prepare import Problem, prepare

Y = torch.tensor([0.3, -0.8, 1.9])
OPTIMIZERS = {
    "Adam": lambda: partial(torch.optim.Adam, lr=0.1),
    "SGD": lambda: partial(torch.optim.SGD, lr=0.01, momentum=0.9),
    "pyro's Adam": lambda: pyro.optim.Adam({"lr": 0.1}),
    "clipped": lambda: pyro.optim.ClippedAdam({"lr": 0.1, "lrd": 0.99}),
    "a rate for each": lambda: pyro.optim.Adam(lambda name: {"lr": 0.1 if "locs" in name else 0.01}),
}


def model(y):
    w = pyro.sample("w", dist.Normal(torch.zeros(4), 1.0).to_event(1))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(w.sum(), 1.0), obs=y)


def made(name, steps=3):
    """A program after a few eager steps, and its memory."""
    torch.manual_seed(0)
    prepared = prepare(Problem(model, Y), AutoNormal, seed=0)
    parameters = prepared.program.parameters
    optimizer = make_optimizer(OPTIMIZERS[name](), parameters, None)
    eager = EagerStep(prepared.program, prepared.loss, optimizer)
    losses = [eager(prepared.first) for _ in range(steps)]
    memory = Memory(parameters, optimizer)
    return memory, parameters, lambda: eager(prepared.first), losses


def whole(memory):
    """As the steps of a graph that updates all parameters see it."""
    return memory.for_graph(memory.names, frozenset(memory.names))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_eager_steps_go_on_as_if_nothing_had_been_moved(name):
    _, parameters, _, losses = made(name, steps=8)
    memory, moved, step, first = made(name, steps=3)
    first += [step() for _ in range(5)]
    assert first == losses
    assert all(torch.equal(value, moved.unconstrained[key]) for key, value in parameters.unconstrained.items())
    assert not memory.outside


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_snapshot_is_gone_back_to(name):
    memory, parameters, step, _ = made(name)
    saved = memory.snapshot()
    part = whole(memory)
    rows = part.coefficients(2)
    memory.restore(saved)
    expected = [step() for _ in range(3)]
    memory.restore(saved)
    assert [step() for _ in range(3)] == expected
    memory.restore(saved)
    assert (part.coefficients(2) == rows).all()
    assert len(parameters.unconstrained) == 2


def test_parameters_of_one_rate_are_one_vector_and_views_of_it():
    memory, parameters, _, _ = made("Adam")
    (vector,) = memory.values
    assert vector.numel() == sum(value.numel() for value in parameters.tensors())
    vector.zero_()
    assert all(not value.any() for value in parameters.tensors())


def test_parameters_of_other_rates_are_other_vectors():
    memory, _, _, _ = made("a rate for each")
    assert len(memory.values) == 2
    assert whole(memory).coefficients(1).shape == (1, sum(group.rule.num_coefficients for group in memory.groups))


def test_what_others_put_in_its_place_is_taken_up():
    memory, parameters, _, _ = made("Adam")
    first = parameters.tensors()[0]
    first.data = torch.full_like(first, 7.0)
    assert memory.reclaim()
    assert 7.0 in memory.values[0].tolist()
    memory.values[0].zero_()
    assert not first.any()


def test_steps_counted_apart_are_noticed():
    memory, _, _, _ = made("pyro's Adam")
    handle = next(handle for handle in memory._handles if handle is not None)
    handle.optimizer.state[handle.parameter]["step"] = torch.tensor(1.0)
    assert not memory.reclaim()
