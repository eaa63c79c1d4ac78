"""Graphs take single steps only while they are faster than Pyro, however long they do take here."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch.distributions import constraints

import vipack as vi
from vipack.engine import svi as svi_module
from vipack.engine import tiers
from vipack.engine.capture.outlook import Effort
from vipack.engine.graphs import CapturedGraphs
from vipack.engine.pace import Pace
from vipack.engine.steps.contracts import TIERS
from vipack.engine.steps.promotion import Promotion

Y = torch.linspace(-1, 3, 20)
PYROS, SLOW, FAST = 1e-3, 2e-3, 5e-4  # seconds of a step


def model(y):
    m = pyro.sample("m", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(m, 1.0), obs=y)


def branching(y):
    model(y)
    if pyro.param("loc") > 1e6:
        pyro.sample("other", dist.Normal(0.0, 1.0))


def guide(y):
    loc = pyro.param("loc", torch.tensor(0.5))
    pyro.sample("m", dist.Normal(loc, pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)))


@pytest.fixture
def seconds(monkeypatch):
    """What steps of Pyro and of each tier take, whatever they do take."""
    given = {"eager": PYROS, "traced": SLOW, "interpreted": SLOW}
    effort, pyros, graphs = Effort.count, Pace.count_pyros, Pace.count
    monkeypatch.setattr(Effort, "count", lambda self, _: effort(self, given["eager"]))
    monkeypatch.setattr(Pace, "count_pyros", lambda self, _: pyros(self, given["eager"]))
    monkeypatch.setattr(Pace, "count", lambda self, _: graphs(self, given[TIERS[self._rank]]))
    for module in (tiers, svi_module):
        monkeypatch.setattr(module, "TRACE_STEPS", 5)
    monkeypatch.setattr(tiers, "_FAST_SECONDS", 0.0)  # which these are, in fact
    return given


@pytest.fixture
def no_native(monkeypatch):
    """A native tier that is not there yet, as while the interpreter compiles."""
    monkeypatch.setattr(Promotion, "__call__", lambda *_: None)


def made(make=vi.SVI, program=model, **options):
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    return make(program, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO(), **options)


def taken(svi, number, *batches):
    """How many of so many steps each tier took."""
    before = dict(svi.engine.steps)
    for index in range(number):
        svi.step(*(batches[index % len(batches)] if batches else (Y,)))
    return {tier: count - before.get(tier, 0) for tier, count in svi.engine.steps.items()}


def test_pyros_steps_are_taken_where_the_graphs_are_slower(seconds, no_native):
    plain = made(SVI)
    expected = [plain.step(Y) for _ in range(600)]
    svi = made()
    assert [svi.step(Y) for _ in range(600)] == pytest.approx(expected, rel=1e-4)
    assert svi.engine.steps["traced"] < 200
    assert "Pyro's own steps took less time" in svi.engine.reason or svi.engine.tier == "traced"


def test_graphs_that_are_clearly_slower_are_left_after_a_few_steps(seconds, no_native):
    assert taken(made(), 300)["traced"] <= 40


def test_what_is_slow_on_one_shape_is_tried_later_on_others(seconds, no_native):
    svi = made()
    taken(svi, 100)
    assert taken(svi, 60, (Y[:5],), (Y[:10],), (Y[:15],)).get("traced", 0) <= 8  # Y's own comparison may go on


def test_further_shapes_wait_for_native_code_where_graphs_are_slower_without(seconds, no_native, monkeypatch):
    captured, capture = [], CapturedGraphs.capture
    monkeypatch.setattr(CapturedGraphs, "capture", lambda self, *args: captured.append(1) or capture(self, *args))
    svi = made()
    taken(svi, 100)
    monkeypatch.setattr(tiers, "busy", lambda: True)
    taken(svi, 100, (Y[:5],), (Y[:10],))
    assert len(captured) == 1
    monkeypatch.setattr(tiers, "busy", lambda: False)
    taken(svi, 100, (Y[:5],), (Y[:10],))
    assert len(captured) == 3


def test_steps_without_gradients_leave_those_after_them_to_the_graph(seconds, no_native):
    """As a look at held-out data after each epoch, by ``svi.step`` as well."""
    seconds["traced"] = FAST
    svi = made()
    taken(svi, 50)
    with torch.no_grad():
        taken(svi, 7)
    assert taken(svi, 20) == {"eager": 0, "traced": 20}


def test_what_it_costs_to_compare_again_gets_less_and_less(seconds, no_native):
    svi = made()
    taken(svi, 520)
    assert taken(svi, 900).get("traced", 0) <= 32


def test_faster_graphs_take_all_steps(seconds, no_native):
    seconds["traced"] = FAST
    svi = made()
    assert taken(svi, 500)["eager"] <= 6
    assert svi.engine.reason == ""


def test_graphs_that_become_faster_are_found_out(seconds, no_native):
    svi = made()
    taken(svi, 300)
    seconds["traced"] = FAST
    taken(svi, 300)
    assert taken(svi, 200) == {"eager": 0, "traced": 200}
    assert svi.engine.reason == ""


def test_a_native_tier_that_comes_later_is_tried_at_once(seconds, folder, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(Promotion, "__call__", lambda *_: None)
        svi = made()
        taken(svi, 600)
        assert svi.engine.tier == "eager"
    seconds["interpreted"] = FAST
    taken(svi, 65)  # the longest that Pyro's steps are taken without a look
    assert taken(svi, 100)["interpreted"] == 100


def test_a_native_tier_that_is_slower_than_pyro_is_left_too(seconds, folder):
    svi = made()
    counts = taken(svi, 600)
    assert counts["interpreted"] < 200
    assert counts["eager"] > 400


def test_what_slows_all_steps_speaks_against_none(seconds, no_native):
    """As a process that compiles on the same core."""
    seconds["traced"] = FAST
    svi = made()
    taken(svi, 100)
    seconds.update(eager=10 * PYROS, traced=10 * FAST)
    taken(svi, 100)
    assert taken(svi, 300) == {"eager": 0, "traced": 300}


def test_other_engines_than_auto_take_what_they_are_told_to(seconds, no_native):
    svi = made(engine="traced")
    assert taken(svi, 200)["eager"] == 2


def test_a_branching_program_whose_graphs_are_slower_ends_with_pyro(seconds, folder):
    svi = made(program=branching)
    taken(svi, 300)
    assert "takes other branches so often" in svi.engine.reason
    assert taken(svi, 300) == {**dict.fromkeys(svi.engine.steps, 0), "eager": 300}


@pytest.mark.parametrize(("graphs", "pyros", "faster"), [(9 * PYROS, 12 * PYROS, True), (9 * PYROS, 6 * PYROS, False)])
def test_each_shape_is_compared_with_pyros_steps_on_its_own(graphs, pyros, faster):
    """Of long batches: the graphs are slower than Pyro's steps are on average."""
    effort = Effort(eager=100 * PYROS, steps=100)
    pace = Pace(effort)
    taken = []
    for _ in range(200):
        taken.append("eager" if pace.rests("traced") else "traced")
        if taken[-1] == "eager":
            effort.count(pyros)
            pace.count_pyros(pyros)
        else:
            pace.count(graphs)
    assert (taken[48:] == 152 * ["traced"]) == faster
    assert pace.judged == faster
    assert (pace.slow == 0) == faster
