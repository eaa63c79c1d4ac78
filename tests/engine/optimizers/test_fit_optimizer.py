"""Pyro's and torch's optimizers move a fit as they move a hand-written SVI loop, bit for bit, and are the fit's own."""

import math
from functools import partial
from itertools import pairwise

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import PyroLRScheduler
from torch.optim.lr_scheduler import ExponentialLR, LambdaLR, ReduceLROnPlateau

import vipack as vi
from tests.contracts.line import X, Y, guide, model
from vipack.engine.optimizers.default_optimizer import FINAL_RATE, LEARNING_RATE, CosineRate, DefaultOptimizer

STEPS = 6


def by_name(name):
    return {"lr": 0.05 if name == "loc" else 0.001}


def clipped_by_hook(params):
    params = list(params)

    def clip(*_):
        torch.nn.utils.clip_grad_norm_(params, 1.0)

    optimizer = torch.optim.SGD(params, lr=0.01, momentum=0.9)
    optimizer.register_step_pre_hook(clip)
    return optimizer


def with_schedule(schedule):
    def make(params):
        optimizer = torch.optim.Adam(params, lr=0.1)
        return optimizer, schedule(optimizer)

    return make


PYRO = {
    "Adam": lambda: pyro.optim.Adam({"lr": 0.05}),
    "ClippedAdam": lambda: pyro.optim.ClippedAdam({"lr": 0.05, "clip_norm": 1.0, "lrd": 0.9}),
    "SGD with momentum": lambda: pyro.optim.SGD({"lr": 1e-3, "momentum": 0.9}),
    "Adamax": lambda: pyro.optim.Adamax({"lr": 0.05}),
    "AdagradRMSProp": lambda: pyro.optim.AdagradRMSProp({"eta": 0.1}),
    "options by name": lambda: pyro.optim.Adam(by_name),
    "clipped norm": lambda: pyro.optim.Adam({"lr": 0.05}, {"clip_norm": 0.5}),
    "clipped values": lambda: pyro.optim.SGD({"lr": 0.01}, {"clip_value": 0.5}),
    "ExponentialLR": lambda: pyro.optim.ExponentialLR(
        {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.1}, "gamma": 0.8}
    ),
    "ReduceLROnPlateau": lambda: pyro.optim.ReduceLROnPlateau(
        {"optimizer": torch.optim.SGD, "optim_args": {"lr": 0.01}, "patience": 0, "factor": 0.5}
    ),
    "a schedule with clipping": lambda: pyro.optim.StepLR(
        {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.1}, "step_size": 2, "gamma": 0.5}, {"clip_norm": 1.0}
    ),
}
TORCH = {
    "Adam class": lambda: torch.optim.Adam,
    "AdamW partial": lambda: partial(torch.optim.AdamW, lr=0.05, weight_decay=0.1),
    "SGD partial with momentum": lambda: partial(torch.optim.SGD, lr=1e-3, momentum=0.9, nesterov=True),
    "SGD partial": lambda: partial(torch.optim.SGD, lr=1e-3),
    "RMSprop partial": lambda: partial(torch.optim.RMSprop, lr=0.01),
    "clipped by a hook": lambda: clipped_by_hook,
    "ExponentialLR": lambda: with_schedule(partial(ExponentialLR, gamma=0.8)),
    "LambdaLR": lambda: with_schedule(partial(LambdaLR, lr_lambda=lambda step: 1 / (1 + step))),
    "ReduceLROnPlateau": lambda: with_schedule(partial(ReduceLROnPlateau, patience=0, factor=0.5)),
    "per-parameter groups": lambda: (
        lambda params: torch.optim.SGD([{"params": [p], "lr": 0.01 / (i + 1)} for i, p in enumerate(params)])
    ),
}
ALL = {**{f"pyro {k}": v for k, v in PYRO.items()}, **{f"torch {k}": v for k, v in TORCH.items()}}


@pytest.fixture(autouse=True)
def store():
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()


def fitted(optim, steps=STEPS, **options):
    return vi.fit(model, guide, data=(X, Y), optim=optim, steps=steps, seed=3, **options)


def assert_equals_the_store(fit, losses):
    assert losses == fit.losses.tolist()
    for name, value in fit.params.items():
        assert torch.equal(value, pyro.param(name)), name


@pytest.mark.parametrize("name", PYRO)
def test_pyros_optimizer_equals_a_plain_svi_loop(name):
    fit = fitted(PYRO[name]())
    optim = PYRO[name]()
    svi = SVI(model, guide, optim, Trace_ELBO())
    pyro.set_rng_seed(3)
    losses = []
    for _ in range(STEPS):
        losses.append(svi.step(X, Y))
        if isinstance(optim, PyroLRScheduler):
            optim.step(losses[-1]) if name == "ReduceLROnPlateau" else optim.step()
    assert_equals_the_store(fit, losses)


@pytest.mark.parametrize("name", TORCH)
def test_torchs_optimizer_equals_a_loop_by_hand(name):
    fit = fitted(TORCH[name]())
    elbo = Trace_ELBO()
    guide(X, Y)  # declares the parameters, without a random number that matters
    params = [pyro.param(n).unconstrained() for n in ("loc", "scale")]
    made = TORCH[name]()(params)
    optimizer, schedule = made if isinstance(made, tuple) else (made, None)
    pyro.set_rng_seed(3)
    losses = []
    for _ in range(STEPS):
        losses.append(elbo.loss_and_grads(model, guide, X, Y))
        optimizer.step()
        optimizer.zero_grad()
        if schedule is not None:
            schedule.step(losses[-1]) if name == "ReduceLROnPlateau" else schedule.step()
    assert_equals_the_store(fit, losses)


def test_minibatches_equal_a_plain_loop_over_a_subsampled_plate():
    def whole(rows):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("data", len(X), subsample=rows):
            pyro.sample("y", dist.Normal(w[0] * X[rows] + w[1], 0.5), obs=Y[rows])

    fit = fitted(pyro.optim.Adam({"lr": 0.05}), batch_size=4)
    svi = SVI(whole, lambda rows: guide(X, Y), pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    generator = torch.Generator().manual_seed(3)
    pyro.set_rng_seed(3)
    losses = [svi.step(rows) for _ in range(2) for rows in torch.randperm(len(X), generator=generator).split(4)]
    assert_equals_the_store(fit, losses)


@pytest.mark.parametrize("name", ALL)
def test_one_optimizer_serves_two_fits_without_mixing_them(name):
    alone = fitted(ALL[name]())
    optim = ALL[name]()
    fitted(optim, steps=4)
    assert getattr(optim, "optim_objs", {}) == {}
    again = fitted(optim)
    assert again.losses.tolist() == alone.losses.tolist()
    assert all(torch.equal(value, alone.params[key]) for key, value in again.params.items())


@pytest.mark.parametrize("name", [*ALL, "default"])
def test_a_saved_state_goes_on_bit_for_bit(name, tmp_path):
    make = ALL.get(name, lambda: None)
    straight = fitted(make(), steps=10)
    first = fitted(make(), steps=4) if name != "default" else fitted(None, steps=10, callbacks=vi.Every(4, stop_now))
    first.save(tmp_path / "fit")
    vi.load(tmp_path / "fit", model, guide, optim=make()).save(tmp_path / "again")  # before it takes a step
    second = vi.load(tmp_path / "again", model, guide, optim=make())
    second.resume(10 - second.steps)
    assert second.losses.tolist() == straight.losses.tolist()
    assert all(torch.equal(value, straight.params[key]) for key, value in second.params.items())


@pytest.mark.parametrize("name", ALL)
def test_a_run_moves_up_with_every_optimizer_whatever_state_it_keeps(name):
    fit, eager = (fitted(ALL[name](), steps=20, engine=tier) for tier in ("traced", "eager"))
    assert fit.engine.steps["eager"] <= 2, fit.engine.reason
    assert fit.losses == pytest.approx(eager.losses, rel=1e-4)


def stop_now(progress):
    return True


@pytest.mark.parametrize(
    "optim", [pyro.optim.Adam({"lr": 0.1}), partial(torch.optim.Adam, lr=0.1)], ids=["pyro", "torch"]
)
def test_a_parameter_that_a_step_does_not_use_stays_and_keeps_its_moments(optim):
    """In plain Pyro too: an optimizer moves only what the step's programs have asked for."""

    def run(step):
        def sometimes(x, y):
            step()
            loc = pyro.param("loc", torch.zeros(2))
            if step.count % 2:
                loc = loc + pyro.param("extra", torch.ones(2))
            pyro.sample("w", dist.Normal(loc, 0.1).to_event(1))

        return sometimes

    class Counter:
        count = 0

        def __call__(self):
            self.count += 1

    seen = []
    counter = Counter()
    vi.fit(
        model, run(counter), data=(X, Y), steps=5, optim=optim, callbacks=vi.Every(1, lambda p: seen.append(p.params()))
    )
    moved = [not torch.equal(a["extra"], b["extra"]) for a, b in pairwise(seen)]
    assert moved in ([True, False, True, False], [False, True, False, True])
    assert all(not torch.equal(a["loc"], b["loc"]) for a, b in pairwise(seen))


def test_the_default_rate_falls_along_a_half_cosine():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer, schedule = DefaultOptimizer(100)([parameter])
    rates = []
    for _ in range(101):
        rates.append(optimizer.param_groups[0]["lr"])
        parameter.grad = torch.zeros(1)
        optimizer.step()
        schedule.step()
    assert rates[0] == LEARNING_RATE
    assert rates[100] == pytest.approx(FINAL_RATE * LEARNING_RATE)
    assert rates[50] == pytest.approx(LEARNING_RATE * (1 + FINAL_RATE) / 2)
    assert rates == sorted(rates, reverse=True)


def test_a_rate_without_an_end_stays_until_it_is_cooled():
    rate = CosineRate(0, None)
    assert [rate(step) for step in (0, 10, 10_000)] == [1.0, 1.0, 1.0]
    rate.start, rate.length = 100, 50
    assert rate(100) == 1.0
    assert rate(125) == pytest.approx((1 + FINAL_RATE) / 2)
    assert rate(150) == rate(1_000) == pytest.approx(FINAL_RATE)
    assert math.isclose(rate(99), 1.0)


@pytest.mark.parametrize("schedule", ["exponential", "a function of the step"])
def test_groups_with_a_schedule_run_in_the_traced_tier(schedule):
    schedules = {
        "exponential": partial(ExponentialLR, gamma=0.9),
        "a function of the step": partial(LambdaLR, lr_lambda=[lambda step: 1 / (1 + step), lambda step: 0.9**step]),
    }

    def make(params):
        first, *others = params
        optimizer = torch.optim.Adam([{"params": others}, {"params": [first], "lr": 0.01}], lr=0.1)
        return optimizer, schedules[schedule](optimizer)

    eager, traced = fitted(make, steps=20, engine="eager"), fitted(make, steps=20, engine="traced")
    assert traced.engine.tier == "traced", traced.engine
    torch.testing.assert_close(traced.params, eager.params)
