"""A step that is wrong in any one thing is not moved up to, whatever its losses are."""

from __future__ import annotations

import random
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceEnum_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch import nn

import vipack as vi
from tests.engine.steps.mutants import AROUND, IN_GRAPH, mutated
from vipack.engine.steps import runner
from vipack.engine.steps.feeding import RepeatedBatch
from vipack.engine.steps.promotion import Promotion
from vipack.types import EngineReport

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
Y = X @ torch.tensor([1.0, -2.0, 0.5]) + 0.3
SCHOOLS = torch.tensor([28.0, 8, -3, 7, -1, 1, 18, 12]), torch.tensor([15.0, 10, 16, 11, 9, 11, 10, 18])


def regression(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    b = pyro.sample("b", dist.Normal(0.0, 1.0))
    s = pyro.sample("s", dist.HalfNormal(1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(x @ w + b, s), obs=y)


def schools(y, sigma):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mu + tau * z, sigma), obs=y)


def mixture(y):
    loc = pyro.sample("loc", dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).to_event(1))
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(2)))
    with pyro.plate("rows", len(y)):
        k = pyro.sample("k", dist.Categorical(weights), infer={"enumerate": "parallel"})
        pyro.sample("y", dist.Normal(loc[k], 1.0), obs=y)


def networks():
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))
    decoder = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 3))

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 0.5).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("rows", len(x)):
            loc, log_scale = encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    return model, guide


def schedule():
    return pyro.optim.ExponentialLR({"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.05}, "gamma": 0.95})


PROGRAMS = {
    "regression": lambda: {"model": regression, "guide": AutoNormal, "data": (X, Y)},
    "schools": lambda: {"model": schools, "guide": AutoMultivariateNormal, "data": SCHOOLS},
    "mixture": lambda: {"model": mixture, "guide": AutoNormal, "data": Y, "loss": TraceEnum_ELBO()},
    "networks": lambda: dict(zip(("model", "guide"), networks(), strict=True), data=X, batch_size=20),
}
OPTIMIZERS = {
    "the default": lambda: None,
    "ClippedAdam": lambda: pyro.optim.ClippedAdam({"lr": 0.02, "lrd": 0.99, "weight_decay": 0.1}),
    "SGD with momentum": lambda: pyro.optim.SGD({"lr": 0.001, "momentum": 0.9}),
    "SGD": lambda: pyro.optim.SGD({"lr": 0.001}),
    "RMSprop": lambda: pyro.optim.RMSprop({"lr": 0.01, "centered": True, "momentum": 0.5}),
    "a schedule": schedule,
}


# Every program and every optimizer once; all pairs where there is time.
PAIRS = [f"{program}, {optim}" for program in PROGRAMS for optim in OPTIMIZERS]
SOME = ("regression, a schedule", "schools, SGD", "mixture, ClippedAdam", "networks, the default", "networks, RMSprop")


@pytest.fixture(scope="module", params=[p if p in SOME else pytest.param(p, marks=pytest.mark.slow) for p in PAIRS])
def trained(request):
    """A run by its graph, in which trials can be made."""
    program, optim = request.param.split(", ")
    fit = vi.fit(**PROGRAMS[program](), optim=OPTIMIZERS[optim](), steps=30, engine="traced", seed=0)
    assert fit.engine.tier == "traced", fit.engine
    return fit


class Trials:
    """Moves up to a native tier that is made up."""

    def __init__(self, fit):
        trainer = fit._trainer
        engine = trainer.engine
        self.memory = engine._graphs.memory
        (shape,) = engine._shapes
        self.runner = shape.runner
        self.right = self.runner.step
        self.again = RepeatedBatch(trainer.state.batches.peek())

    def taken(self, number):
        """So many right steps."""

        def steps(batches, count):
            losses = []
            for _ in range(count):
                self.runner.before_last = self.memory.snapshot()
                losses.append(self.runner.traced(batches, 1))
            return np.concatenate([np.zeros(0), *(np.asarray(loss, dtype=np.float64).reshape(-1) for loss in losses)])

        return steps(self.again, number)

    def accepted(self, native_steps):
        """Whether a tier that takes its steps so would be moved up to, and why not."""
        report = EngineReport("traced")
        promotion = Promotion(self.runner, self.memory, "interpreted", report)
        self.runner.native, self.runner._tier = object(), "interpreted"
        self.runner.native_steps = native_steps
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", vi.errors.EngineWarning)
                return promotion._try_out("interpreted", self.again, (None, "traced")), report.reason
        finally:
            del self.runner.native_steps
            self.runner.native, self.runner.step = None, self.right


def test_right_steps_are_moved_up_to(trained):
    trials = Trials(trained)
    accepted, reason = trials.accepted(lambda batches, number: trials.taken(number))
    assert accepted, reason


# Other steps have no state, no buffer or no vector of a few elements.
ALWAYS = {name for name, (kind, _) in IN_GRAPH.items() if kind in ("value", "draw")} - {
    "drop_the_update_of_one_element",
    "drop_the_update_of_the_last_elements",
    "swap_two_elements",
    "not_a_number_in_one_element",
    "shift_a_draw",
}


@pytest.mark.parametrize("places", [range(3), pytest.param(range(8), marks=pytest.mark.slow)], ids=len)
@pytest.mark.parametrize("name", IN_GRAPH)
def test_a_graph_with_one_mutation_is_refused(trained, name, places):
    trials, tried = Trials(trained), 0
    for place in places:
        step = mutated(trials.right, name, place, random.Random(place))
        if step is None:
            continue

        def wrong(batches, number, step=step):
            trials.runner.step = step
            try:
                return trials.taken(number)
            finally:
                trials.runner.step = trials.right

        accepted, _ = trials.accepted(wrong)
        assert not accepted, (name, place)
        tried += 1
    assert tried or name not in ALWAYS


@pytest.mark.parametrize("name", AROUND)
def test_steps_with_one_mutation_around_them_are_refused(trained, name):
    trials = Trials(trained)
    applies = []

    def wrong(batches, number):
        losses = AROUND[name](
            trials.runner, trials.memory, lambda _, count: trials.taken(count), batches, number, random.Random(1)
        )
        applies.append(losses is not None)
        return trials.taken(0) if losses is None else losses

    accepted, _ = trials.accepted(wrong)
    assert not accepted or not applies[0]


@pytest.mark.parametrize("name", IN_GRAPH)
def test_a_captured_step_with_one_mutation_is_refused(name, monkeypatch):
    """Held to Pyro's own step."""
    made = []

    def wrong(*arguments, **options):
        step = assemble(*arguments, **options)
        for place in reversed(range(8)):
            other = mutated(step, name, place, random.Random(1))
            if other is not None:
                made.append(other)
                return other
        return made[-1] if made else step

    assemble = runner.assemble
    monkeypatch.setattr(runner, "assemble", wrong)
    fit = vi.fit(**PROGRAMS["networks"](), steps=6, engine="traced", seed=0)
    assert made
    assert fit.engine.steps == {"eager": 6}
    assert "the captured graph gave another step" in fit.engine.reason
