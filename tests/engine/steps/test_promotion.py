"""Which tier a run is left in, where times are what decides."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO

import vipack as vi
from vipack.engine import svi as svi_module
from vipack.engine import tiers
from vipack.engine.compiled import compiler
from vipack.engine.guards.python_state import PythonState
from vipack.engine.steps import promotion
from vipack.engine.steps.promotion import Promotion
from vipack.engine.steps.runner import GraphRunner

Y = torch.linspace(-1, 1, 20)


def model(y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(w, 0.5), obs=y)


def guide(y):
    pyro.sample("w", dist.Normal(pyro.param("loc", torch.tensor(0.5)), 0.3))


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("slow", [2, 1_000])
def test_one_slow_measurement_does_not_keep_a_run_from_the_interpreter(monkeypatch, slow):
    """As where memory is met for the first time, or another process takes the core; what is always slow is refused."""
    native, calls = GraphRunner.native_steps, []

    def delayed(self, batches, number):
        calls.append(number)
        if len(calls) <= slow:
            time.sleep(0.1)
        return native(self, batches, number)

    monkeypatch.setattr(GraphRunner, "native_steps", delayed)
    for module in (tiers, svi_module):
        monkeypatch.setattr(module, "TRACE_STEPS", 5)
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    svi = vi.SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO(), engine="auto")
    for _ in range(12):
        svi.step(Y)
    assert svi.engine.tier == ("interpreted" if slow == 2 else "traced"), svi.engine


@pytest.mark.parametrize(
    ("tier", "seconds", "compiles"), [("auto", 0.08, True), ("auto", 0.06, False), ("compiled", 0.0, True)]
)
def test_auto_compiles_where_the_rest_of_the_run_takes_most_of_the_time_that_it_would_take(
    tier, seconds, compiles, monkeypatch
):
    monkeypatch.setattr(promotion, "_COMPILE_SHARE", 0.7)  # which else forbids it in tests
    runner = SimpleNamespace(step=SimpleNamespace(single=torch.fx.GraphModule({}, torch.fx.Graph())))
    moving = Promotion(runner, None, tier, None)
    moving.seconds = seconds
    assert moving._pays(predicted=10.0, remaining=100) is compiles


@pytest.mark.usefixtures("folder")
def test_a_compiled_step_that_is_refused_leaves_a_run_in_the_interpreter(monkeypatch, tmp_path):
    """What is compiled lies in the cache as soon as the interpreter runs, and gives other losses."""
    native = GraphRunner.native_steps

    def load(self, _):
        self.native, self._tier = self._interpreted, "compiled"

    def wrong(self, batches, number):
        return native(self, batches, number) + (self.native_tier == "compiled")

    monkeypatch.setattr(GraphRunner, "prepare", lambda self, _: tmp_path if self.native else None)
    monkeypatch.setattr(GraphRunner, "load", load)
    monkeypatch.setattr(GraphRunner, "native_steps", wrong)
    monkeypatch.setattr(compiler, "forget", lambda _: None)
    for module in (tiers, svi_module):
        monkeypatch.setattr(module, "TRACE_STEPS", 5)
    pyro.clear_param_store()
    svi = vi.SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO(), engine="auto")
    for _ in range(12):
        svi.step(Y)
    assert svi.engine.tier == "interpreted"
    assert "interpreted: the compiled step is not the graph's" in svi.engine.reason


@pytest.mark.parametrize("slow", [1, 1_000])
def test_one_slow_look_at_variables_does_not_keep_a_run_from_its_graph(monkeypatch, slow):
    """As where another process takes the core meanwhile."""
    outdated, looks = PythonState.outdated, []

    def delayed(self):
        looks.append(self)
        if len(looks) <= slow:
            time.sleep(0.1)
        return outdated(self)

    monkeypatch.setattr(PythonState, "outdated", delayed)
    for module in (tiers, svi_module):
        monkeypatch.setattr(module, "TRACE_STEPS", 5)
    pyro.clear_param_store()
    svi = vi.SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO(), engine="auto")
    for _ in range(12):
        svi.step(Y)
    assert (svi.engine.tier == "eager") == (slow > 1), svi.engine
