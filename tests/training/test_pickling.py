"""A fit and what it gives can be pickled and copied: the copy answers, is saved and goes on as the fit does."""

import concurrent.futures
import copy
import functools
import multiprocessing
import pickle

import cloudpickle
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Predictive
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch import nn
from torch.utils.data import TensorDataset

import vipack as vi
from tests.training.programs import RECIPES, X, normal
from vipack.errors import UnpicklableError

STEPS = 12
NETWORK = nn.Sequential(nn.Linear(1, 3, bias=False), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 1))
COLUMN = torch.linspace(-1.0, 1.0, 20)[:, None]


def by_network(x, y=None):
    """Of a module of the process's own, not of an argument."""
    network = pyro.module("network", NETWORK)
    noise = pyro.sample("noise", dist.HalfNormal(1.0))
    with pyro.plate("row", len(x)):
        pyro.sample("y", dist.Normal(network(x)[:, 0], 0.1 + noise), obs=y)


def slow(name):
    return {"lr": 0.01 if "scale" in name else 0.05}


FITS = {
    **{
        name: functools.partial(vi.fit, **{"steps": STEPS, **recipe})
        for name, recipe in RECIPES.items()
        if "by hand" not in name  # functions in functions, which pickle cannot store
    },
    "a network": functools.partial(
        vi.fit, by_network, AutoNormal, data={"x": COLUMN, "y": COLUMN[:, 0] ** 2}, batch_size=5, steps=STEPS
    ),
    "a guide that is an instance": lambda: vi.fit(normal, AutoNormal(normal), data=X, steps=STEPS),
    "a pyro optimizer": lambda: vi.fit(normal, AutoNormal, data=X, steps=STEPS, optim=pyro.optim.Adam(slow)),
    "several starts": lambda: vi.fit(normal, AutoNormal, data=X, steps=STEPS, restarts=2),
    "no guide": lambda: vi.fit(normal, data=X),
    "a data set": lambda: vi.fit(normal, AutoNormal, data=TensorDataset(X), batch_size=4, steps=STEPS),
    "an open end": lambda: vi.fit(normal, AutoNormal, data=X, stop=vi.Converged(tolerance=1e6, min_steps=200)),
}


@pytest.fixture(scope="module")
def fitted():
    return functools.cache(lambda name: FITS[name]())


def pickled(value):
    return pickle.loads(pickle.dumps(value))


COPIES = {
    "pickle": pickled,
    "pickle, protocol 2": lambda value: pickle.loads(pickle.dumps(value, protocol=2)),
    "cloudpickle": lambda value: cloudpickle.loads(cloudpickle.dumps(value)),
    "deepcopy": copy.deepcopy,
}


def assert_equal_draws(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def assert_alike(found, expected):
    """As they stand."""
    assert_equal_draws(found.params, expected.params)
    assert_equal_draws(found.sample(20, seed=1), expected.sample(20, seed=1))
    np.testing.assert_array_equal(found.losses, expected.losses)
    assert (found.steps, found.stopped, found.restarts) == (expected.steps, expected.stopped, expected.restarts)
    assert found.verdict == expected.verdict
    assert str(found.engine) == str(expected.engine)
    assert str(found.check) == str(expected.check)
    assert found.data_fingerprint == expected.data_fingerprint
    assert str(found.stages) == str(expected.stages)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == "no guide" else n for n in FITS])
def test_a_pickled_fit_is_the_fit_and_goes_on_as_it_does(name, fitted, tmp_path):
    fit, found = fitted(name), pickled(fitted(name))
    assert_alike(found, fit)
    if isinstance(fit.posterior.observed.get("y", X), torch.Tensor):
        assert_equal_draws(found.predict(10, seed=2), fit.predict(10, seed=2))
    found.save(tmp_path / "found"), fit.save(tmp_path / "fit")
    again = pickled(fit)
    found.resume(5), again.resume(5)
    np.testing.assert_array_equal(found.losses, again.losses)
    assert_equal_draws(found.params, again.params)
    assert fit.steps == len(fit.losses) == found.steps - 5  # the copy alone has gone on


@pytest.mark.parametrize("name", ["a network", "several starts", "a pyro optimizer"])
@pytest.mark.parametrize("how", COPIES)
def test_every_way_of_copying(how, name, fitted):
    assert_alike(COPIES[how](fitted(name)), fitted(name))


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_goes_on_bit_for_bit(how):
    fit = vi.fit(normal, AutoNormal, data=X, batch_size=4, steps=STEPS, engine="eager")
    found = COPIES[how](fit)
    fit.resume(10), found.resume(10)
    assert_alike(found, fit)


def test_a_judged_fit_stays_judged_with_its_answers():
    fit = vi.fit(normal, AutoMultivariateNormal, data=X, steps=400)
    diagnosis = fit.diagnose(400)
    found = pickled(fit)
    assert found.verdict == diagnosis.verdict
    assert str(found.diagnose(400)) == str(diagnosis)
    assert found.summary(200).equals(fit.summary(200))
    found.resume(1)
    assert found.verdict is None
    assert fit.verdict is diagnosis.verdict


def test_a_shallow_copy_is_the_same_fit():
    fit = vi.fit(normal, AutoNormal, data=X, steps=STEPS)
    shallow = copy.copy(fit)
    assert_alike(shallow, fit)
    shallow.resume(3)
    assert fit.steps == STEPS + 3


def test_what_a_fit_gives_can_be_pickled(fitted):
    fit = fitted("a network")
    other = vi.fit(by_network, AutoMultivariateNormal, data={"x": COLUMN, "y": COLUMN[:, 0] ** 2}, steps=STEPS)
    given = {
        "check": fit.check,
        "diagnosis": fit.diagnose(200),
        "elbo": fit.elbo(50),
        "engine": fit.engine,
        "stopped": fit.stopped,
        "stages": fit.stages,
        "losses": fit.losses.tolist(),
        "comparison": vi.compare({"one": fit, "other": other}, num_draws=200),
        "summary": fit.summary(50),
    }
    for name, value in given.items():
        for found in (pickled(value), copy.deepcopy(value)):
            assert str(found) == str(value), name
    assert_equal_draws(pickled(fit.sample(20)), fit.sample(20))
    assert_equal_draws(pickled(fit.posterior).draws(20).sites, fit.posterior.draws(20).sites)
    assert_equal_draws(pickled(fit.posterior.draws(20)).sites, fit.posterior.draws(20).sites)


@pytest.mark.parametrize("how", COPIES)
def test_a_guide_that_was_copied_draws_what_the_guide_draws(how, fitted):
    guide = fitted("a network").guide
    expected, found = (
        Predictive(by_network, guide=each, num_samples=3)(COLUMN) for each in map(seeded, (guide, COPIES[how](guide)))
    )
    assert_equal_draws(found, expected)


def seeded(guide):
    pyro.set_rng_seed(0)
    return guide


def test_a_fit_travels_to_another_process_and_back(fitted):
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        draws, found = pool.submit(drawn, fitted("a network")).result(timeout=300)
    assert_equal_draws(draws, fitted("a network").sample(20, seed=1))
    assert_alike(found, fitted("a network"))


def drawn(fit):
    return fit.sample(20, seed=1), fit


# --- what cannot be pickled


def local_model():
    def model(x):
        pyro.sample(
            "x", dist.Normal(pyro.sample("loc", dist.Normal(0.0, 1.0)), 1.0).expand([len(x)]).to_event(1), obs=x
        )

    return model


REFUSED = {
    "model": lambda: vi.fit(local_model(), AutoNormal, data=X, steps=2),
    "guide": lambda: vi.fit(normal, lambda x: AutoNormal(normal)(x), data=X, steps=0),
    "optim": lambda: vi.fit(normal, AutoNormal, data=X, steps=2, optim=lambda p: torch.optim.SGD(p, lr=1e-3)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_one_line_names_what_pickle_cannot_store(name):
    fit = REFUSED[name]()
    with pytest.raises(UnpicklableError, match=rf"^{name}: .*top level of a module.*fit.save\(path\).*$") as caught:
        pickle.dumps(fit)
    assert isinstance(caught.value, pickle.PicklingError)
    assert "\n" not in str(caught.value)
    assert_alike(cloudpickle.loads(cloudpickle.dumps(fit)), fit)
    assert_alike(copy.deepcopy(fit), fit)


def test_callbacks_and_rules_of_ones_own_stay_behind():
    seen = []
    fit = vi.fit(
        normal,
        AutoNormal,
        data=X,
        steps=STEPS,
        stop=lambda losses, seconds: None,
        callbacks=lambda progress: seen.append(progress.step),
    )
    count = len(seen)
    pickled(fit).resume(5)
    assert len(seen) == count
