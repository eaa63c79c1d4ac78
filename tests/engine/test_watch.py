"""A watch sees what a program's code names, and nothing else; it can put everything back."""

from __future__ import annotations

import functools
import random
import types

import numpy as np
import pyro
import pytest
import torch
from torch import nn

from vipack.engine.watch import Watch

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
    watch = Watch(READERS[name])
    assert watch.changed() == ""
    monkeypatch.setitem(globals(), "SETTING", 2.0)
    assert watch.changed() == "SETTING"


def test_a_global_that_the_code_does_not_name_is_not_watched(monkeypatch):
    watch = Watch(reads_global)
    monkeypatch.setitem(globals(), "UNRELATED", 2.0)
    assert watch.changed() == ""


def test_an_equal_number_is_no_change(monkeypatch):
    watch = Watch(reads_global)
    monkeypatch.setitem(globals(), "SETTING", float("1.0"))
    assert watch.changed() == ""


class Experiment:
    kind = "a"

    def __init__(self):
        self.beta = 1.0
        self.log = []
        self.history = {"loss": []}

    def model(self):
        self.log.append(self.kind)
        return self.beta


def test_of_an_object_the_attributes_that_its_code_names_are_watched():
    experiment = Experiment()
    watch = Watch(experiment.model)
    experiment.history["loss"].append(1.0)  # what a callback of the user's does
    assert watch.changed() == ""
    experiment.beta = 2.0
    assert watch.changed().endswith(".beta")


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

    watch = Watch(program)
    first = program()
    experiment.beta, experiment.kind = 5.0, "b"
    watch.restore()
    assert count == 0
    assert experiment.log == []
    assert experiment.beta == 1.0
    assert held.tolist() == [1.0, 1.0, 1.0]
    assert program() == first


def test_a_modules_mode_is_watched_and_its_parameters_and_buffers_are_not():
    layers = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
    watch = Watch(lambda x: layers(x))
    layers(torch.randn(4, 2)).sum().backward()
    with torch.no_grad():
        layers[0].weight.add_(1.0)
    assert watch.changed() == ""
    layers.eval()
    assert watch.changed().endswith("training")


def test_plain_containers_are_compared_by_content():
    options = types.SimpleNamespace(sizes=[1, 2], names={"a": 1}, seen=set())
    watch = Watch(lambda: (options.sizes, options.names, options.seen))
    options.sizes = options.sizes
    assert watch.changed() == ""
    options.names["a"] = 2
    assert watch.changed().endswith("names")
    watch.restore()
    assert watch.changed() == ""
    options.seen.add(3)
    assert watch.changed().endswith("seen")


def test_of_tensors_only_those_that_a_graph_holds_matter():
    held, other = torch.ones(2), torch.ones(2)

    def program():
        return held + other

    watch = Watch(program)
    assert watch.hold([held]) == ""
    other = torch.zeros(2)
    assert watch.outdated() == ""
    held = torch.zeros(2)
    assert watch.outdated() == "held"


def test_a_tensor_of_the_graph_that_the_program_writes_to_is_named():
    held = torch.ones(2)
    watch = Watch(lambda: held)
    held.add_(1.0)
    assert watch.hold([held]) == "held"


def test_looking_costs_little():
    """Once a step of ``SVI.step``, so it must not cost what a compiled step does not."""
    import timeit

    watch = Watch(Experiment().model, inner_function)
    seconds = min(timeit.repeat(watch.outdated, number=200, repeat=5)) / 200
    assert seconds < 50e-6
