"""What no graph can repeat runs as Pyro runs it, and the reason is named; nothing is frozen silently."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceTailAdaptive_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import nn

import vipack as vi
from tests.engine.capture.unsteady import DRAWS, STATE, VALUES, WAYS, Y, around, guide
from vipack.errors import EngineWarning

STEPS = 60


def named(maker):
    return maker.__name__


def fitted(maker, engine, steps=STEPS, **options):
    return vi.fit(**maker(), optim=pyro.optim.Adam({"lr": 0.02}), steps=steps, seed=3, engine=engine, **options)


def by_pyro(maker, steps=STEPS):
    """Losses and parameters of a plain loop."""
    pyro.clear_param_store()
    program = maker()
    svi = SVI(program["model"], program["guide"], pyro.optim.Adam({"lr": 0.02}), program.get("loss", Trace_ELBO()))
    pyro.set_rng_seed(3)
    losses = [svi.step(program["data"]) for _ in range(steps)]
    return losses, dict(pyro.get_param_store().items())


def assert_stays_eager(fit, reason):
    assert fit.engine.tier == "eager"
    assert fit.engine.steps == {"eager": STEPS}
    assert fit.engine.reason.startswith("eager: ")
    assert reason in fit.engine.reason


@pytest.mark.parametrize("maker", [*VALUES, *list(DRAWS)[:2]], ids=named)
def test_what_leaves_torch_runs_as_in_pyro(maker):
    fit = fitted(maker, "compiled")
    assert_stays_eager(fit, {**VALUES, **DRAWS}[maker])
    losses, params = by_pyro(maker)
    assert fit.losses.tolist() == losses
    assert all(torch.equal(value, params[name]) for name, value in fit.params.items())


@pytest.mark.parametrize("maker", WAYS, ids=named)
def test_programs_that_branch_take_pyros_steps_by_several_graphs(maker):
    fit = fitted(maker, "traced")
    losses, params = by_pyro(maker)
    np.testing.assert_allclose(fit.losses, losses, rtol=1e-4)
    for name, value in fit.params.items():
        torch.testing.assert_close(value, params[name], rtol=1e-3, atol=1e-4)
    assert fit.engine.steps["traced"] >= STEPS // 3, fit.engine


@pytest.mark.parametrize("maker", [*list(DRAWS)[2:], *STATE], ids=named)
def test_what_goes_on_in_python_is_not_frozen(maker):
    """Preparing a fit runs the program a few times, so a counter starts elsewhere than in a plain loop: eager is the truth."""
    eager = fitted(maker, "eager")
    fit = fitted(maker, "traced")
    assert_stays_eager(fit, {**DRAWS, **STATE}[maker])
    assert fit.losses.tolist() == eager.losses.tolist()
    assert all(torch.equal(value, eager.params[name]) for name, value in fit.params.items())


def test_numbers_that_can_stay_tensors_are_captured():
    def maker():
        return around(lambda z: 1.0 + abs(z.item()))

    eager, fit = fitted(maker, "eager"), fitted(maker, "traced")
    assert fit.engine.tier == "traced"
    np.testing.assert_allclose(fit.losses, eager.losses, rtol=1e-5)


class Remembering(nn.Module):
    """Keeps what it computed last for someone to look at, which no run reads again."""

    def __init__(self) -> None:
        super().__init__()
        self.last = torch.zeros(())

    def forward(self, z):
        self.last = 0.5 * z.detach()
        return 1.0 + self.last


def test_a_value_kept_for_show_is_no_reason_to_stay_eager():
    module = Remembering()
    fit = vi.fit(**around(module), steps=20, engine="traced")
    assert fit.engine.tier == "traced"
    assert type(module.last) is torch.Tensor
    assert float(module.last) == float(module.last)  # with a value, unlike a tracer's own tensors


def annealed(engine, changes, steps=STEPS):
    """A weight that a callback sets at some steps."""
    state = {"weight": 0.1}

    def anneal(progress):
        if progress.step in changes:
            state["weight"] *= 1.5

    return vi.fit(**around(lambda z: state["weight"]), steps=steps, engine=engine, callbacks=vi.Every(5, anneal))


def test_what_a_callback_sets_from_outside_is_seen_at_once():
    eager, fit = annealed("eager", (20, 40)), annealed("traced", (20, 40))
    np.testing.assert_allclose(fit.losses, eager.losses, rtol=1e-5)
    assert fit.engine.tier == "traced"
    assert fit.engine.steps["traced"] > STEPS // 2


def test_what_a_callback_sets_again_and_again_runs_eagerly_with_a_warning():
    changes = range(5, STEPS, 5)
    with pytest.warns(EngineWarning, match="'state'"):
        fit = annealed("traced", changes)
    np.testing.assert_allclose(fit.losses, annealed("eager", changes).losses, rtol=1e-5)
    assert fit.engine.tier == "eager"
    assert "changed from outside" in fit.engine.reason


def late_parameter(engine):
    """A guide that finds out during training that it needs another parameter."""
    state = {"shifted": False}

    def shifting(y):
        loc = pyro.param("loc", torch.tensor(0.2))
        if state["shifted"]:
            loc = loc + pyro.param("shift", torch.tensor(0.1))
        pyro.sample("z", dist.Normal(loc, 0.5))

    def shift(progress):
        state["shifted"] = True

    model = around(lambda z: 1.0)["model"]
    return vi.fit(model, shifting, data=Y, steps=STEPS, engine=engine, callbacks=vi.Every(30, shift))


def test_a_parameter_that_is_created_later_is_trained():
    eager, fit = late_parameter("eager"), late_parameter("traced")
    assert float(eager.params["shift"]) != pytest.approx(0.1)
    np.testing.assert_allclose(fit.losses, eager.losses, rtol=1e-5)
    torch.testing.assert_close(fit.params, eager.params, rtol=1e-4, atol=1e-5)
    assert fit.engine.tier == "traced"


def ragged(make, engine=None):
    """Single steps on data of a new length each time, then of the same ones again."""
    pyro.clear_param_store()
    program = around(lambda z: 1.0)
    options = {} if engine is None else {"engine": engine}
    svi = make(program["model"], program["guide"], pyro.optim.Adam({"lr": 0.02}), Trace_ELBO(), **options)
    pyro.set_rng_seed(3)
    rows = torch.linspace(-1.0, 2.0, 30)
    return svi, [svi.step(rows[:n]) for n in [*range(2, 30), *range(2, 6)]]


def test_data_of_ever_new_shapes_are_not_captured_for_ever():
    _, losses = ragged(SVI)
    svi, found = ragged(vi.SVI, "traced")
    np.testing.assert_allclose(found, losses, rtol=1e-5)
    assert svi.engine.steps["eager"] >= 15
    assert "shape" in svi.engine.reason


def test_a_number_that_is_another_at_every_call_is_captured_once():
    """KL annealing with the weight as an argument."""

    def run(make, **options):
        pyro.clear_param_store()

        def model(y, weight):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.plate("rows", len(y)), pyro.poutine.scale(scale=weight):
                pyro.sample("y", dist.Normal(z, 1.0), obs=y)

        svi = make(model, lambda y, weight: guide(y), pyro.optim.Adam({"lr": 0.02}), Trace_ELBO(), **options)
        pyro.set_rng_seed(3)
        return svi, [svi.step(Y, (k + 1) / 30) for k in range(30)]

    _, losses = run(SVI)
    svi, found = run(vi.SVI, engine="traced")
    np.testing.assert_allclose(found, losses, rtol=1e-5)
    assert svi.engine.steps["eager"] <= 6


@pytest.mark.filterwarnings("error")
def test_an_infinite_loss_is_no_warning_as_in_pyro():
    def at_a_level(y):
        level = pyro.sample("level", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(level, 0.5), obs=y)

    def run(make, **options):
        pyro.clear_param_store()
        pyro.set_rng_seed(4)
        loss = TraceTailAdaptive_ELBO(num_particles=5, vectorize_particles=True, max_plate_nesting=1)
        svi = make(at_a_level, AutoNormal(at_a_level), pyro.optim.Adam({"lr": 0.05}), loss, **options)
        return [svi.step(Y) for _ in range(5)], dict(pyro.get_param_store().items())

    losses, parameters = run(SVI)
    found, found_parameters = run(vi.SVI, engine="traced")
    assert found == losses == [float("inf")] * 5  # the objective has a gradient and no value
    torch.testing.assert_close(found_parameters, parameters)
