"""What is set for torch and Pyro around a call of vipack's does not reach what the call does."""

import contextlib
import functools

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal
from pyro.poutine import runtime

import vipack as vi

X = 1.0 + torch.randn(12, generator=torch.Generator().manual_seed(0))


def model(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    pyro.deterministic("twice", 2 * mu)
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


def fitted(engine="traced", **options):
    return vi.fit(model, AutoNormal, data=X, steps=40, engine=engine, progress=False, **options)


OTHER = fitted(seed=1)
MODES = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu"),
    "inference_mode in autocast": lambda: _both(torch.autocast("cpu"), torch.inference_mode()),
}
HANDLERS = {
    "mask": lambda: poutine.mask(mask=False),
    "scale": lambda: poutine.scale(scale=3.0),
    "trace": poutine.trace,
    "condition": lambda: poutine.condition(data={"mu": torch.tensor(9.0)}),
    "block": poutine.block,
    "plate": lambda: pyro.plate("other", 3),
    "enum": lambda: poutine.enum(first_available_dim=-2),
    "uncondition": poutine.uncondition,
}
ANSWERS = {
    "sample": lambda fit: {name: value.tolist() for name, value in fit.sample(5, seed=1).items()},
    "predict": lambda fit: fit.predict(5, seed=1)["x"].tolist(),
    "predict for new data": lambda fit: fit.predict(5, data=X[:3], seed=1)["x"].tolist(),
    "elbo": lambda fit: fit.elbo(20, seed=1).value,
    "diagnose": lambda fit: str(fit.diagnose(200, seed=1).reasons),
    "summary": lambda fit: fit.summary(20).to_dict(),
    "to_arviz": lambda fit: fit.to_arviz(5).posterior["mu"].values.tolist(),
    "loo": lambda fit: vi.diagnostics.loo(fit, num_draws=100).elpds.tolist(),
    "compare": lambda fit: vi.compare({"one": fit, "two": OTHER}, num_draws=200, repeats=2).elbo.tolist(),
    "predictive_pvalues": lambda fit: vi.diagnostics.predictive_pvalues(fit, num_draws=50).to_dict(),
    "posterior": lambda fit: fit.posterior.draws(5, seed=1).log_weights.tolist(),
    "plot": lambda fit: [line.get_ydata().tolist() for line in vi.plots.posterior(fit, num_draws=50)[0].lines],
}


@functools.cache
def elsewhere(answer):
    return repr(ANSWERS[answer](fitted("eager")))


@functools.cache
def losses_elsewhere(engine):
    return fitted(engine).losses.tolist()


@contextlib.contextmanager
def _both(one, two):
    with one, two:
        yield


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("engine", ["eager", "traced", "interpreted"])
def test_a_fit_trains_whatever_torch_is_told_around_it(mode, engine):
    with MODES[mode]():
        found = fitted(engine)
    assert found.losses.tolist() == losses_elsewhere(engine)
    assert found.losses[-1] < found.losses[0]


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("around", [*MODES, *HANDLERS])
def test_answers_are_what_they_are_elsewhere(around, answer):
    fit = fitted("eager")
    expected = elsewhere(answer)
    with {**MODES, **HANDLERS}[around]():
        found = ANSWERS[answer](fit)
    assert repr(found) == expected
    assert runtime._PYRO_STACK == []


@pytest.mark.parametrize("around", HANDLERS)
def test_training_refuses_handlers_around_it(around):
    fit = fitted("eager")
    trains = {
        "fit": lambda: fitted("eager"),
        "check": lambda: vi.check(model, AutoNormal, data=X),
        "resume": lambda: fit.resume(5),
        "vsbc": lambda: vi.vsbc(model, AutoNormal, data=X, simulations=2, steps=2),
    }
    for name, train in trains.items():
        with HANDLERS[around](), pytest.raises(vi.errors.UsageError, match=f"^{name}: called inside a handler"):
            train()
    assert fit.steps == 40


def test_a_fits_guide_heeds_what_stands_around_it():
    fit = fitted("eager")
    with poutine.trace() as seen, poutine.scale(scale=3.0):
        fit.guide(X)
    assert seen.trace.nodes["mu"]["scale"] == 3.0


def test_a_callback_may_fit_and_ask_whatever_the_outer_fit_was_called_in():
    found = []
    with torch.no_grad():
        fitted(callbacks=vi.Every(20, lambda progress: found.append(fitted("eager").losses.tolist()) and False))
    assert found == [fitted("eager").losses.tolist()] * 2


def test_data_made_in_inference_mode_can_be_trained_with():
    with torch.inference_mode():
        data = X.clone()
    found = vi.fit(model, AutoNormal, data=data, steps=40, engine="traced", progress=False)
    assert found.losses.tolist() == fitted().losses.tolist()


def test_a_plate_around_a_question_goes_on_as_before():
    fit = fitted("eager")
    with pyro.plate("other", 3):
        fit.sample(2)
        assert pyro.sample("z", dist.Normal(0.0, 1.0)).shape == (3,)
