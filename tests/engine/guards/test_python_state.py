"""What a program's code names is seen, and nothing else; everything can be put back."""

from __future__ import annotations

import functools
import random
import types

import numpy as np
import pyro
import pytest
import torch
from torch import nn

from tests.engine.guards.variables import CHANGES
from vipack.engine.guards.execution import recorded
from vipack.engine.guards.python_state import PythonState

SETTING = 1.0
UNRELATED = 1.0


def reads_global():
    return SETTING


def calls_another():
    return reads_global()


def inner_function():
    def inside():
        return SETTING

    return inside()


READERS = {
    "a function": reads_global,
    "a function that it calls": calls_another,
    "a function inside": inner_function,
    "a partial": functools.partial(reads_global),
    "a handler of Pyro's": pyro.poutine.block(reads_global, hide=["z"]),
    "a lambda in a list": (lambda tools=[reads_global]: tools[0]()),
}


@pytest.mark.parametrize("name", READERS)
def test_a_global_is_seen_through(name, monkeypatch):
    state = PythonState(READERS[name])
    assert state.changed() == ""
    monkeypatch.setitem(globals(), "SETTING", 2.0)
    assert state.changed() == "SETTING"


def test_a_global_that_the_code_does_not_name_is_not_stateed(monkeypatch):
    state = PythonState(reads_global)
    monkeypatch.setitem(globals(), "UNRELATED", 2.0)
    assert state.changed() == ""


def test_an_equal_number_is_no_change(monkeypatch):
    state = PythonState(reads_global)
    monkeypatch.setitem(globals(), "SETTING", float("1.0"))
    assert state.changed() == ""


class Experiment:
    kind = "a"

    def __init__(self):
        self.beta = 1.0
        self.log = []
        self.history = {"loss": []}

    def model(self):
        self.log.append(self.kind)
        return self.beta


def test_of_an_object_the_attributes_that_its_code_names_are_stateed():
    experiment = Experiment()
    state = PythonState(experiment.model)
    experiment.history["loss"].append(1.0)  # what a callback of the user's does
    assert state.changed() == ""
    experiment.beta = 2.0
    assert state.changed().endswith(".beta")


def test_everything_is_put_back():
    experiment = Experiment()
    generator, numbers = random.Random(1), np.random.default_rng(1)
    held = torch.ones(3)
    count = 0

    def program():
        nonlocal count
        count += 1
        held.add_(1.0)
        return experiment.model(), generator.random(), numbers.uniform()

    state = PythonState(program)
    first = program()
    experiment.beta, experiment.kind = 5.0, "b"
    state.restore()
    assert count == 0
    assert experiment.log == []
    assert experiment.beta == 1.0
    assert held.tolist() == [1.0, 1.0, 1.0]
    assert program() == first


def test_a_modules_mode_is_stateed_and_its_parameters_and_buffers_are_not():
    layers = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
    state = PythonState(lambda x: layers(x))
    layers(torch.randn(4, 2)).sum().backward()
    with torch.no_grad():
        layers[0].weight.add_(1.0)
    assert state.changed() == ""
    layers.eval()
    assert state.changed().endswith("training")


def test_plain_containers_are_compared_by_content():
    options = types.SimpleNamespace(sizes=[1, 2], names={"a": 1}, seen=set())
    state = PythonState(lambda: (options.sizes, options.names, options.seen))
    options.sizes = options.sizes
    assert state.changed() == ""
    options.names["a"] = 2
    assert state.changed().endswith("names")
    state.restore()
    assert state.changed() == ""
    options.seen.add(3)
    assert state.changed().endswith("seen")


def test_of_tensors_only_those_that_a_graph_holds_matter():
    held, other = torch.ones(2), torch.ones(2)

    def program():
        return held + other

    state = PythonState(program)
    assert state.hold([held]) == ""
    other = torch.zeros(2)
    assert state.outdated() == ""
    held = torch.zeros(2)
    assert state.outdated() == "held"


def test_a_tensor_of_the_graph_that_the_program_writes_to_is_named():
    held = torch.ones(2)
    state = PythonState(lambda: held)
    held.add_(1.0)
    assert state.hold([held]) == "held"


def test_looking_costs_little():
    """Once a step of ``SVI.step``, so it must not cost what a compiled step does not."""
    import timeit

    state = PythonState(Experiment().model, inner_function)
    seconds = min(timeit.repeat(state.outdated, number=200, repeat=5)) / 200
    assert seconds < 50e-6


def ran(program):
    """The state of a program after a run of which is known what it executed."""
    with recorded() as execution:
        program()
    return PythonState(program, execution=execution)


def outdated_by(state):
    """With the tensors that a graph would hold."""
    return state.outdated() or state.changed()


LOOKED_UP = ("an_attribute_that_is_not_there_yet", "an_attribute_by_its_presence", "a_global_by_globals")


@pytest.mark.parametrize("name", LOOKED_UP)
def test_what_only_a_run_shows_is_no_guess(name):
    """A profiler may keep a run from being recorded."""
    program, _ = CHANGES[name]()
    assert PythonState(program).reason == ""
    assert "profiler" in PythonState(program, blind=True).reason


@pytest.mark.parametrize(
    ("name", "executed"), [(name, run) for name in CHANGES for run in (False, True) if run or name not in LOOKED_UP]
)
def test_a_change_is_seen_and_nothing_else(name, executed):
    program, act = CHANGES[name]()
    if executed:
        state = ran(program)
    else:
        state = PythonState(program)
        program()
    assert state.reason == ""
    state.hold([slot.value for slot in state._slots if isinstance(slot.value, torch.Tensor)])
    assert state.changed_by_a_run() == ""
    program()
    assert outdated_by(state) == ""
    act()
    assert outdated_by(state) != ""


class Cell:
    def __init__(self, number):
        self.number = number


def test_more_objects_than_can_be_compared_at_each_look_are_refused_with_their_name():
    cells = [Cell(float(i)) for i in range(25_000)]
    state = PythonState(lambda: cells[3].number)
    assert "more than 20,000 variables (" in state.reason
    assert "arrays or tensors" in state.reason


def test_a_large_table_of_plain_values_is_not_too_much():
    table = [(i, float(i)) for i in range(25_000)]
    assert PythonState(lambda: table[3][1]).reason == ""


def test_an_expanded_tensor_is_put_back():
    seen = torch.zeros(2, 1)
    wide = seen.expand(2, 3)

    def program():
        return wide.sum() + seen.sum()

    state = PythonState(program)
    state.begin()
    seen.add_(torch.tensor([[1.0], [2.0]]))
    state.restore()
    assert not wide.any()
