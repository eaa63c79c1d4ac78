"""Whatever is done between steps, ``vipack.SVI`` takes it up as ``pyro.infer.SVI`` does."""

from __future__ import annotations

import warnings

import pyro
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyro.infer import SVI

import vipack as vi
from tests.engine.worlds import ACTS, World, outcome
from vipack.engine import svi as svi_module
from vipack.engine import tiers

WEIGHTED = [name for name, (weight, _) in ACTS.items() for _ in range(weight)]
CALLS = st.tuples(st.sampled_from(WEIGHTED), st.integers(0, 11), st.integers(0, 11))
SEQUENCES = st.lists(CALLS, max_size=14)
OPTIMIZERS = st.sampled_from(["adam", "sgd", "clipped", "schedule"])
ONCE = {"deadline": None, "suppress_health_check": list(HealthCheck)}


def told(make, optim, acts, **options):
    """Outcomes of the acts, each followed by what it left."""
    validated = pyro.settings.get()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            world = World(make, optim, **options)
            story = []
            for name, which, number in [("step", 0, 1), *acts, ("step", 0, 2)]:
                found = outcome(ACTS[name][1](which, number), world)
                story.append((name, which, number, found, world.state()))
            return story, world
    finally:
        pyro.settings.set(**validated)


def assert_alike(optim, acts, engine):
    expected, _ = told(SVI, optim, acts)
    found, world = told(vi.SVI, optim, acts, engine=engine)
    for right, other in zip(expected, found, strict=True):
        where = f"{right[:3]} gave {other[3]} where Pyro gives {right[3]} ({world.svi.engine})"
        if isinstance(right[3], list) and isinstance(other[3], list):
            assert other[3] == pytest.approx(right[3], rel=2e-4, abs=1e-4, nan_ok=True), where
        else:
            assert other[3] == right[3], where
        torch.testing.assert_close(other[4], right[4], rtol=2e-3, atol=2e-4, equal_nan=True, msg=where)
    return world


@settings(max_examples=8, derandomize=True, **ONCE)
@given(OPTIMIZERS, st.lists(CALLS, max_size=7))
def test_sequences_of_acts_end_where_they_do_in_pyro(optim, acts):
    assert_alike(optim, acts, "traced")


@pytest.mark.slow
@settings(max_examples=500, **ONCE)
@given(OPTIMIZERS, SEQUENCES)
def test_many_sequences_of_acts_end_where_they_do_in_pyro(optim, acts):
    assert_alike(optim, acts, "traced")


@pytest.mark.slow
@settings(max_examples=100, **ONCE)
@given(OPTIMIZERS, SEQUENCES)
def test_many_sequences_of_acts_end_where_they_do_in_pyro_natively(optim, acts):
    assert_alike(optim, acts, "interpreted")


@pytest.mark.parametrize("engine", [pytest.param("traced", marks=pytest.mark.slow), "interpreted"])
@pytest.mark.parametrize("name", ACTS)
def test_every_act_alone(name, engine):
    """Each after some steps by a graph, and before some more; what it is for must not be that nothing is captured."""
    acts = [("step", 0, 2), ("step", 0, 2), (name, 1, 1), ("step", 1, 2), (name, 0, 2), ("step", 0, 2)]
    world = assert_alike("adam", acts, engine)
    assert sum(count for tier, count in world.svi.engine.steps.items() if tier != "eager") >= 4, world.svi.engine


@pytest.mark.parametrize("examples", [6, pytest.param(500, marks=pytest.mark.slow)])
def test_sequences_by_auto_move_between_pyros_steps_and_graphs(examples, monkeypatch):
    """After the fifth step rather than after 240, so that short sequences are captured, and rest on Pyro's steps before."""
    for module in (tiers, svi_module):
        monkeypatch.setattr(module, "TRACE_STEPS", 5)
    reached = set()

    @settings(max_examples=examples, derandomize=examples < 100, **ONCE)
    @given(OPTIMIZERS, SEQUENCES)
    def holds(optim, acts):
        reached.update(assert_alike(optim, acts, "auto").svi.engine.steps)

    holds()
    assert reached - {"eager"}
