"""What is known of Python's state against a fresh capture, for random programs that read variables of every kind."""

from __future__ import annotations

import functools
import types

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.engine.guards.test_python_state import LOOKED_UP, outdated_by, ran
from tests.engine.guards.variables import CHANGES


def called(reader):
    return lambda: reader()


def as_method(reader):
    class Program:
        def __init__(self):
            self.reader = reader

        def __call__(self):
            return self.reader()

    return Program()


def as_attribute(reader):
    parts = types.SimpleNamespace(reader=reader)
    return lambda: parts.reader()


def in_a_branch(reader):
    def program(flag=True):
        return reader() if flag else None

    return program


WAYS = {
    "as it is": lambda reader: reader,
    "called": called,
    "method": as_method,
    "attribute": as_attribute,
    "partial": lambda reader: functools.partial(reader),
    "in a list": lambda reader: lambda readers=[reader]: readers[0](),
    "in a generator": lambda reader: lambda: next(each() for each in (reader,)),
    "in a branch": in_a_branch,
    "decorated": lambda reader: functools.wraps(reader)(lambda: reader()),
    "cached": lambda reader: torch.no_grad()(called(reader)),
}
NAMES = sorted(set(CHANGES) - set(LOOKED_UP))
PARTS = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(sorted(WAYS))),
    min_size=1,
    max_size=5,
    unique_by=lambda part: part[0],
)
QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck)}


def captured(program):
    state = ran(program)
    state.hold([slot.value for slot in state._slots if isinstance(slot.value, torch.Tensor)])
    return state


def hold(parts, unread, order):
    """Variables that the program reads are changed one after the other, and so are others that it does not.

    A change that the state does not see is a graph that goes on with the old value; one that it sees though nothing
    read it is a graph thrown away for nothing.
    """
    made = [(CHANGES[name](), way) for name, way in parts]
    readers = [WAYS[way](reader) for (reader, _), way in made]
    others = [CHANGES[name]() for name in set(unread) - {name for name, _ in parts}]  # other code

    def program():
        return [read() for read in readers]

    acts = [(act, True) for (_, act), _ in made] + [(act, False) for _, act in others]
    state = captured(program)
    assert state.reason == ""
    for place in order:
        act, read = acts.pop(place % len(acts))
        program()
        assert outdated_by(state) == ""
        act()
        if read:
            assert outdated_by(state) != ""
            state = captured(program)
        assert outdated_by(state) == ""
        if not acts:
            break


UNREAD = st.lists(st.sampled_from(NAMES), max_size=2)
ORDER = st.lists(st.integers(0, 6), min_size=1, max_size=7)


@settings(max_examples=12, derandomize=True, **QUIET)
@given(PARTS, UNREAD, ORDER)
@example([("a_set", "method"), ("a_small_array", "partial")], ["a_deque"], [0, 0, 0])
def test_random_programs(parts, unread, order):
    hold(parts, unread, order)


@pytest.mark.slow
@settings(max_examples=500, **QUIET)
@given(PARTS, UNREAD, ORDER)
def test_many_random_programs(parts, unread, order):
    hold(parts, unread, order)
