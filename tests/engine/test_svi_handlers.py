"""Pyro's handlers around the steps of ``vipack.SVI``: part of the program where they keep nothing of a run."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.poutine.messenger import Messenger

import vipack as vi

pytestmark = pytest.mark.filterwarnings("ignore:Found vars in model but not guide", "ignore:Found non-auxiliary vars")
X = torch.linspace(-1, 1, 20)
Y = 2 * X + 0.3
MASK = torch.tensor(True)
STEPS = 12


def model(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    b = pyro.sample("b", dist.Normal(0.0, 1.0)) + pyro.sample("c", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(w * x + b, 0.5), obs=y)


def guide(x, y):
    for name in ("w", "b"):
        loc = pyro.param(f"loc_{name}", torch.tensor(0.5))
        pyro.sample(name, dist.Normal(loc, pyro.param(f"scale_{name}", torch.tensor(1.0))))


class Narrower(Messenger):
    """Makes the latents' priors and posteriors narrower, by a factor that may be changed."""

    def __init__(self):
        super().__init__()
        self.factor = 0.5
        self.factors = {"w": 1.0}

    def _pyro_sample(self, msg):
        if not msg["is_observed"] and isinstance(msg["fn"], dist.Normal):
            factor = self.factor * self.factors.get(msg["name"], 1.0)
            msg["fn"] = dist.Normal(msg["fn"].loc, factor * msg["fn"].scale)


class Counting(Narrower):
    """Its factor falls with every site."""

    def _pyro_post_sample(self, msg):
        self.factor *= 0.999


class Listening(Narrower):
    def _pyro_post_sample(self, msg):
        print(msg["name"])


def scaled_by_a_tensor():
    tensor = torch.tensor(0.5)
    return lambda i: poutine.scale(scale=tensor.fill_(0.5 + 0.1 * (i // 4)))


def conditioned():
    data = {"c": torch.tensor(0.3)}

    def around(i):
        if i == 6:
            data["c"] = torch.tensor(0.8)
        return poutine.condition(data=data)

    return around


def one_that_stays(kind):
    def make():
        handler = kind()

        def around(i):
            if i == 6:
                handler.factor = 0.7
            if i == 9:
                handler.factors["w"] = 0.8
            return handler

        return around

    return make


def written_to(make, write, value):
    """A handler over a tensor or array that is written to between steps."""

    def maker():
        held = value()

        def around(i):
            if i in (6, 9):
                write(held)
            return make(held)

        return around

    return maker


FOLLOWED = {
    "condition on a tensor that is written to": written_to(
        lambda c: poutine.condition(data={"c": c}), lambda c: c.add_(0.2), lambda: torch.tensor(0.3)
    ),
    "mask that is written to": written_to(
        lambda m: poutine.mask(mask=m), lambda m: m.logical_not_(), lambda: torch.tensor(True)
    ),
    "scale by an array that is written to": written_to(
        lambda a: poutine.scale(scale=float(a[0])), lambda a: a.__setitem__(0, 2.0), lambda: np.ones(1)
    ),
    "scale": lambda: lambda i: poutine.scale(scale=0.5),
    "scale that changes": lambda: lambda i: poutine.scale(scale=0.5 + (i > 5)),
    "scale by a tensor": scaled_by_a_tensor,
    "mask": lambda: lambda i: poutine.mask(mask=i > 5),
    "mask of a tensor": lambda: lambda i: poutine.mask(mask=MASK),
    "condition": conditioned,
    "seed": lambda: lambda i: poutine.seed(rng_seed=3),
    "the user's own": one_that_stays(Narrower),
}
STAYING = {
    "trace": lambda: lambda i: poutine.trace(param_only=True),
    "lift": lambda: lambda i: poutine.lift(prior={"loc_w": dist.Normal(0.0, 0.1)}),
    "replay": lambda: lambda i: poutine.replay(trace=poutine.Trace()),
    "one that counts": one_that_stays(Counting),
    "one that prints": one_that_stays(Listening),
    "anew, of the user's own": lambda: lambda i: Narrower(),
}


def run(make, maker, **options):
    pyro.clear_param_store()
    pyro.set_rng_seed(4)
    svi = make(model, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO(), **options)
    around, losses, seen = maker(), [], []
    for i in range(STEPS):
        with around(i) as found:
            losses.append(svi.step(X, Y))
        seen.append(len(found.trace.nodes) if isinstance(found, poutine.trace_messenger.TraceMessenger) else 0)
    values = {name: value.detach().clone() for name, value in pyro.get_param_store().items()}
    return losses, values, seen, svi


def assert_alike(maker, engine):
    losses, values, seen, _ = run(SVI, maker)
    found, own, own_seen, svi = run(vi.SVI, maker, engine=engine)
    assert found == pytest.approx(losses, rel=1e-4)
    assert own_seen == seen
    torch.testing.assert_close(own, values, rtol=1e-3, atol=1e-4)
    return svi


@pytest.mark.parametrize("engine", [pytest.param("traced", marks=pytest.mark.slow), "interpreted"])
@pytest.mark.parametrize("name", FOLLOWED)
def test_a_graph_holds_a_handler_around_the_step_as_part_of_the_program(name, engine):
    svi = assert_alike(FOLLOWED[name], engine)
    assert svi.engine.steps.get(engine, 0) >= 5, svi.engine


@pytest.mark.parametrize("name", STAYING)
def test_steps_under_a_handler_that_keeps_something_of_them_are_pyros(name, capsys):
    svi = assert_alike(STAYING[name], "traced")
    said = capsys.readouterr().out
    assert svi.engine.tier == "eager", svi.engine
    assert said.count("w\n") == (2 * 2 * STEPS if "prints" in name else 0)
