"""A program that no graph can repeat costs what Pyro's own steps cost: it is found out by two watched steps, then let be."""

import random
import time

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceGraph_ELBO

import vipack as vi
from vipack.engine import graphs, tiers
from vipack.engine import svi as svi_module
from vipack.engine.capture.outlook import Effort

Y = torch.randn(6, generator=torch.Generator().manual_seed(0)) + 1.0


@pytest.fixture(autouse=True)
def early(monkeypatch):
    """Captures are tried after 12 steps, and again after so many more."""
    monkeypatch.setattr(svi_module, "TRACE_STEPS", 12)
    monkeypatch.setattr(tiers, "TRACE_STEPS", 12)
    pyro.clear_param_store()


@pytest.fixture
def captures(monkeypatch):
    """How often a capture was tried."""
    counted = []
    original = graphs.capture
    monkeypatch.setattr(graphs, "capture", lambda *args: counted.append(1) or original(*args))
    return counted


def weighted(weight):
    def model(y):
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("row", len(y)):
            pyro.sample("y", dist.Normal(weight(loc) * loc, 1.0), obs=y)

    return model


def guide(y):
    pyro.sample("loc", dist.Normal(pyro.param("m", torch.tensor(0.5)), 0.3))


def counting(until=1_000_000):
    state = {"count": 0}

    def weight(_):
        if state["count"] < until:
            state["count"] += 1
        return min(1.0, state["count"] / 40)

    return weight


def noting():
    history = []

    def weight(loc):
        history.append(1.0)
        return 1.0

    return weight


def drawing():
    generator = np.random.default_rng(0)
    return lambda _: 1.0 + 0.1 * float(generator.uniform())


WEIGHTS = {
    "item": lambda: lambda loc: 1.0 + abs(loc.item()),
    "float": lambda: lambda loc: 1.0 + abs(float(loc.detach())),
    "tolist": lambda: lambda loc: 1.0 + abs(loc.detach().tolist()),
    "numpy": lambda: lambda loc: 1.0 + float(np.abs(loc.detach().numpy())),
    "random": lambda: lambda _: random.random(),
    "global numpy": lambda: lambda _: float(np.random.uniform()),  # noqa: NPY002
    "own numpy": drawing,
    "counter": counting,
    "history": noting,
    "clock": lambda: lambda _: 1.0 + 0.0 * time.time(),
}


def run(kind, model, num_steps, **options):
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    svi = kind(model, guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO(), **options)
    return [svi.step(Y) for _ in range(num_steps)], svi


@pytest.mark.parametrize("name", WEIGHTS)
def test_what_no_graph_repeats_is_found_out_without_a_capture(name, captures):
    expected, _ = run(SVI, weighted(WEIGHTS[name]()), 20)
    losses, svi = run(vi.SVI, weighted(WEIGHTS[name]()), 20)
    assert losses == expected
    assert captures == []
    assert svi.engine.reason.startswith("eager: ")
    assert svi.engine.steps == {"eager": 20}


def test_decaying_baselines_are_found_out_without_a_capture(captures):
    def model(y):
        pyro.sample("y", dist.Normal(2 * pyro.sample("k", dist.Bernoulli(0.4)) - 1.0, 1.0), obs=y[0])

    def discrete(y):
        baseline = {"use_decaying_avg_baseline": True}
        pyro.sample("k", dist.Bernoulli(logits=pyro.param("l", torch.tensor(0.0))), infer={"baseline": baseline})

    svi = vi.SVI(model, discrete, pyro.optim.Adam({"lr": 0.02}), TraceGraph_ELBO())
    for _ in range(20):
        svi.step(Y)
    assert captures == []
    assert "decaying average" in svi.engine.reason


@pytest.mark.parametrize("weight", [lambda _: 1.0, lambda loc: 1.0 if loc > 0 else 2.0, lambda _: 2.0 * float(Y.sum())])
def test_what_a_graph_repeats_is_captured_after_as_many_steps_as_ever(weight):
    _, svi = run(vi.SVI, weighted(weight), 20)
    assert svi.engine.steps["eager"] <= 16
    assert "traced" in svi.engine.steps or "interpreted" in svi.engine.steps


def test_a_program_that_stops_counting_is_captured_later():
    _, svi = run(vi.SVI, weighted(counting(until=20)), 70)
    assert svi.engine.tier != "eager"
    assert svi.engine.steps["eager"] < 64


@pytest.mark.parametrize("options", [{}, {"engine": "eager"}], ids=["auto", "eager"])
def test_steps_that_stay_with_pyro_do_nothing_beside_it(options, monkeypatch):
    looks = []
    original = svi_module.flatten
    monkeypatch.setattr(svi_module, "flatten", lambda *args: looks.append(1) or original(*args))
    run(vi.SVI, weighted(noting()), 200, **options)
    assert len(looks) < 12


def loss_function(model, guide, *args):
    return Trace_ELBO().differentiable_loss(model, guide, *args)


def test_parts_that_are_replaced_are_seen_by_the_next_step():
    _, svi = run(vi.SVI, weighted(lambda _: 1.0), 3)
    svi.loss_and_grads, svi.loss = lambda *args: 7.0, None
    assert svi.step(Y) == 7.0
    elbo = Trace_ELBO()
    svi.loss_and_grads, svi.loss = elbo.loss_and_grads, elbo.loss
    before = pyro.param("m").item()
    svi.optim = pyro.optim.SGD({"lr": 0.0})
    for _ in range(12):
        svi.step(Y)
    assert pyro.param("m").item() == before
    assert svi.engine.tier != "eager"


def test_captures_in_vain_wait_for_steps_that_take_much_longer():
    effort = Effort(eager=1.0, vain=0.0)
    assert effort.affords()
    effort.vain = 0.1
    assert not effort.affords()
    effort.eager = 10.0
    assert effort.affords()


def test_a_program_that_cannot_be_captured_is_not_tried_again_at_each_new_shape(monkeypatch):
    captures = []

    def refuse(*_):
        captures.append(1)
        time.sleep(0.05)
        raise graphs.CaptureError("an operator that no graph knows")

    monkeypatch.setattr(graphs, "capture", refuse)
    svi = vi.SVI(weighted(lambda _: 1.0), guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
    for number in range(60):
        svi.step(Y[: 1 + number % 6])
    assert len(captures) == 1
    assert "an operator that no graph knows" in svi.engine.reason


class Cell:
    def __init__(self, number):
        self.number = number


@pytest.mark.parametrize("number", [3, 19_000])
def test_a_program_whose_variables_take_longer_to_compare_than_a_step_stays_with_pyro(number):
    cells = [Cell(1.0) for _ in range(number)]
    _, svi = run(vi.SVI, weighted(lambda _: cells[0].number), 20)
    assert (svi.engine.tier == "eager") is (number > 3)
    if number > 3:
        assert "Python variables that the program reads would be compared" in svi.engine.reason


def test_batches_of_ever_other_shapes_are_left_to_pyro_between_looks():
    """Beside the eight shapes that have graphs, which are taken up again when they come back."""
    steps = {}

    def run(kind, **options):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        svi = kind(weighted(lambda _: 1.0), guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO(), **options)
        if kind is vi.SVI:
            plain = svi._step_at_rest
            svi._step_at_rest = lambda *args: steps.update(rest=steps.get("rest", 0) + 1) or plain(*args)
        sizes = [*range(2, 10)] * 10 + [*range(10, 310)] + [2] * 200
        return [svi.step(torch.ones(size)) for size in sizes], svi

    ours, svi = run(vi.SVI)
    theirs, _ = run(SVI)
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert steps["rest"] > 200
    assert svi.engine.tier != "eager"  # two rows have a graph


def test_a_shape_that_stays_gets_a_graph_though_pyro_rests_between_looks():
    """As where the weight of a warm-up has reached its end; one look in 64 steps stands for some of these."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    svi = vi.SVI(weighted(lambda _: 1.0), guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    for size in range(2, 160):
        svi.step(torch.ones(size))
    assert svi.engine.tier == "eager"
    for _ in range(700):
        svi.step(torch.ones(200))
    assert svi.engine.tier != "eager"
