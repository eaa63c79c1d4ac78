"""A run that diverged goes on from its best state, in every tier of the engine as in the eager one."""

import functools
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import vipack as vi
from vipack.errors import DivergenceWarning
from vipack.types import StopReason

X = torch.full((10,), 5.0)
TIERS = ("traced", "interpreted", "auto")
OPTIMIZERS = {
    "Adam": lambda: pyro.optim.Adam({"lr": 0.02}),
    "ClippedAdam": lambda: pyro.optim.ClippedAdam({"lr": 0.02}),
    "SGD with momentum": lambda: pyro.optim.SGD({"lr": 0.001, "momentum": 0.9}),
    "AdagradRMSProp": lambda: pyro.optim.AdagradRMSProp({}),
    "RMSprop": lambda: pyro.optim.RMSprop({"lr": 0.02}),
    "torch's Adam": lambda: functools.partial(torch.optim.Adam, lr=0.02),
    "torch's SGD": lambda: functools.partial(torch.optim.SGD, lr=0.005, momentum=0.9),
    "a schedule": lambda: pyro.optim.ExponentialLR(
        {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.02}, "gamma": 0.9999}
    ),
    "a schedule of torch's": lambda: adam_with_schedule,
}


def adam_with_schedule(parameters):
    optimizer = torch.optim.Adam(parameters, lr=0.02)
    return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 50, 0.99)


def cliff(x):
    """The data pull w to 5, but beyond 1.5 the loss is NaN."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(w + 0 * torch.sqrt(1.5 - w), 1.0), obs=x)


def steep(x):
    """Beyond 1.5 the loss is finite and its gradient is not."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    edge = torch.sqrt(torch.where(w > 1.5, 0.0 * w, 1.0 + 0.0 * w))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(w + 0.0 * edge, 1.0), obs=x)


def deceptive(x):
    """The gradient always says that w should grow, and beyond 3 that makes the loss rise and rise."""
    w = pyro.sample("w", dist.Normal(0.0, 10.0))
    there = w.detach()
    pyro.factor("x", 10 * (w - there) - 100 * torch.relu(there - 3.0))


def narrow(x):
    """The guide draws w almost exactly."""
    pyro.sample("w", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1e-4))


def fitted(model, engine, steps=600, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DivergenceWarning)
        return vi.fit(model, narrow, data=X, steps=steps, engine=engine, seed=3, **options)


def assert_equal(found, expected):
    assert found.stopped == expected.stopped
    assert found.steps == expected.steps == sum(found.engine.steps.values())
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-3)
    for name, value in expected.params.items():
        torch.testing.assert_close(found.params[name], value, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def eager():
    """Fits in the eager tier, each made once."""
    return functools.cache(lambda model, **options: fitted(model, "eager", **options))


@pytest.mark.parametrize(
    ("model", "engine"),
    [
        *((cliff, tier) for tier in TIERS),
        pytest.param(cliff, "compiled", marks=pytest.mark.slow),
        *((m, tier) for m in (steep, deceptive) for tier in ("traced", "interpreted")),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_the_default_optimizer_recovers_in_every_tier_as_in_the_eager_one(model, engine, eager):
    expected = eager(model)
    assert expected.stopped.reason is StopReason.STEPS
    assert expected.steps == 600
    assert 0.5 < expected.params["loc"] < 3.0  # it began at 0, and would be NaN or beyond 5
    found = fitted(model, engine)
    assert_equal(found, expected)
    assert found.engine.tier != "eager", found.engine


@pytest.mark.parametrize("engine", ["traced", "interpreted"])
@pytest.mark.parametrize("model", [cliff, deceptive], ids=lambda model: model.__name__)
def test_several_starts_that_diverge_recover_one_by_one(model, engine, eager):
    fit = fitted(model, engine, restarts=2)
    assert fit.stopped.reason is StopReason.STEPS
    assert np.isfinite(fit.restarts).all()
    assert_equal(fit, eager(model))  # the guide has no beginning to choose, so both starts are this one
    assert "they diverged side by side" in fit.engine.reason


def test_several_starts_with_an_optimizer_of_the_users_keep_the_best_finite_state():
    optim = functools.partial(torch.optim.Adam, lr=0.02)
    fit = fitted(cliff, "traced", steps=300, restarts=3, optim=optim)
    assert fit.stopped.reason is StopReason.DIVERGED
    assert all(bool(value.isfinite().all()) for value in fit.params.values())
    assert all(bool(draws.isfinite().all()) for draws in fit.sample(10).values())


@pytest.mark.parametrize("engine", [pytest.param("traced", marks=pytest.mark.slow), "interpreted"])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("model", [cliff, steep], ids=lambda model: model.__name__)
def test_other_optimizers_end_and_go_on_as_in_the_eager_tier(model, name, engine):
    found, expected = (fitted(model, tier, steps=300, optim=OPTIMIZERS[name]()) for tier in (engine, "eager"))
    assert found.stopped.reason is StopReason.DIVERGED
    assert_equal(found, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DivergenceWarning)
        found.resume(30), expected.resume(30)
    assert_equal(found, expected)


@pytest.mark.parametrize("every", [1, 3])
def test_a_step_whose_gradient_is_not_finite_counts_nowhere(every, eager):
    """Its loss is finite, and an earlier call of the engine may have given it."""
    found = fitted(steep, "traced", callbacks=vi.Every(every, lambda progress: None))
    assert_equal(found, eager(steep))


@pytest.mark.parametrize("engine", ["eager", "traced"])
def test_a_recovered_run_is_saved_and_goes_on(engine, tmp_path):
    kept = fitted(cliff, engine, steps=300)
    kept.save(tmp_path / "fit")
    loaded = vi.load(tmp_path / "fit", cliff, narrow)
    for fit in (loaded, kept):
        with pytest.warns(DivergenceWarning, match="ended worse than it was"):  # from the start on, more slowly
            fit.resume(100)
    assert loaded.stopped == kept.stopped
    np.testing.assert_allclose(loaded.losses, kept.losses, rtol=1e-3)


def test_averaging_begins_anew_after_a_recovery(eager):
    assert_equal(fitted(cliff, "traced", average=True), eager(cliff, average=True))
