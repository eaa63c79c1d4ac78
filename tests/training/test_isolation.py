"""Fits touch neither each other nor anything of the process: run in turn, they are what they are alone, bit for bit."""

import random

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoNormal

import vipack as vi
from tests.training.programs import RECIPES, VAES, X, guide_from, normal

STEPS = 14
# Twenty fits: every recipe once, and three of them with another seed too.
RUNS = [(name, 0) for name in RECIPES] + [("AutoNormal", 1), ("VAE", 1), ("DataLoader", 1)]


def start(name, seed, **options):
    return vi.fit(**RECIPES[name], seed=seed, steps=STEPS, **options)


def assert_same(one, other):
    np.testing.assert_array_equal(one.losses, other.losses)
    assert one.params.keys() == other.params.keys()
    for name, value in one.params.items():
        assert torch.equal(value, other.params[name]), name
    state, other_state = (fit._trainer.program.parameters.state()["buffers"] for fit in (one, other))
    assert all(torch.equal(value, other_state[name]) for name, value in state.items())


@pytest.fixture(scope="module")
def alone():
    return {run: start(*run) for run in RUNS}


def test_twenty_fits_in_turn_are_what_they_are_alone(alone):
    assert len(RUNS) == 20
    order = random.Random(0)
    fits = {run: start(*run, callbacks=vi.Every(1, lambda progress: True)) for run in RUNS}
    for _ in range(STEPS - 1):
        for run in order.sample(RUNS, len(RUNS)):
            fits[run].resume()
    for run, fit in fits.items():
        assert fit.steps == STEPS
        assert_same(fit, alone[run])


def test_looking_at_a_fit_does_not_disturb_it(alone):
    run = ("VAE in batches", 0)
    fit = start(*run, callbacks=vi.Every(5, lambda progress: True))
    while fit.steps < STEPS:
        fit.sample(3)
        fit.elbo(5)
        fit.predict(2)
        fit.guide(RECIPES[run[0]]["data"])
        fit.params["encoder$$$weight"].zero_()
        fit.resume()
    assert_same(fit, alone[run])


def test_a_seed_decides_everything():
    torch.rand(7), random.random(), np.random.rand(3)  # noqa: NPY002
    one = start("NumPy's noise", 5)
    pyro.set_rng_seed(99)
    assert_same(one, start("NumPy's noise", 5))
    assert not np.array_equal(one.losses, start("NumPy's noise", 6).losses)


# --- the process


def generators():
    return torch.get_rng_state().clone(), np.random.get_state(), random.getstate()  # noqa: NPY002


def process():
    """Everything global that a fit could touch."""
    torch_state, numpy_state, python_state = generators()
    vae_modules = [VAES[0].decoder, VAES[0].encoder, VAES[1].encoder]
    return {
        "torch": torch_state.tolist(),
        "numpy": [part.tolist() if isinstance(part, np.ndarray) else part for part in numpy_state],
        "python": python_state,
        "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "validation": torch.distributions.Distribution._validate_args,
        "settings": pyro.settings.get(),
        "store": {name: value.tolist() for name, value in pyro.get_param_store().items()},
        "handlers": list(pyro.poutine.runtime._PYRO_STACK),
        "values": [value.tolist() for module in vae_modules for value in module.state_dict().values()],
        "objects": [id(value) for module in vae_modules for value in (*module.parameters(), *module.buffers())],
        "gradients": [value.grad is None for module in vae_modules for value in module.parameters()],
        "modes": [part.training for module in vae_modules for part in module.modules()],
    }


def use_everything(name, path):
    options = RECIPES[name]
    vi.check(options["model"], options["guide"], data=options["data"], loss=options.get("loss"))
    fit = start(name, 0)
    fit.sample(3), fit.sample(4, resample=True), fit.predict(3), fit.elbo(4), fit.diagnose(50), fit.summary(5)
    fit.log_weights(3), fit.to_arviz(3), repr(fit)
    fit.save(path)
    others = {key: options[key] for key in ("model", "guide", "loss", "optim") if key in options}
    keeps_data = torch.is_tensor(options["data"])
    loaded = vi.load(path, data=None if keeps_data else options["data"], **others)
    loaded.resume(2)
    vi.compare({"one": fit, "two": loaded}, num_draws=50)


@pytest.mark.parametrize("name", ["AutoNormal", "VAE in batches", "mixture", "NumPy's noise", "float64", "DataLoader"])
def test_the_process_is_left_as_it_was(name, tmp_path):
    pyro.param("loc", torch.tensor(3.0))
    pyro.param("encoder$$$weight", torch.tensor(4.0))
    random.seed(1), np.random.seed(1)  # noqa: NPY002
    np.random.normal()  # noqa: NPY002  (half a pair: NumPy keeps the other half)
    before = process()
    use_everything(name, tmp_path / "fit")
    after = process()
    for part, value in before.items():
        assert after[part] == value, part


def test_an_error_leaves_the_process_as_it_was():
    def broken(x):
        normal(x)
        raise LookupError("halfway")

    before = process()
    with pytest.raises(vi.errors.ModelError, match="halfway"):
        vi.fit(broken, AutoNormal, data=X)
    assert process() == before


def test_a_plain_svi_loop_beside_fits_is_undisturbed():
    """It uses the global store, under names that the fits' guides use too."""

    def svi_alone(between):
        pyro.clear_param_store()
        pyro.set_rng_seed(4)
        svi = SVI(normal, guide_from(0.3), pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
        losses = []
        for _ in range(10):
            losses.append(svi.step(X))
            between()
        return losses, {name: value.detach().clone() for name, value in pyro.get_param_store().items()}

    fit = vi.fit(normal, guide_from(0.0), data=X, steps=10, callbacks=vi.Every(1, lambda progress: True))
    losses, params = svi_alone(lambda: None)
    between_losses, between_params = svi_alone(lambda: fit.steps < 10 and fit.resume())
    assert losses == between_losses
    assert all(torch.equal(value, between_params[name]) for name, value in params.items())
    pyro.clear_param_store()
    assert_same(fit, vi.fit(normal, guide_from(0.0), data=X, steps=10))


def test_an_automatic_guide_may_serve_several_fits():
    guide = AutoNormal(normal)
    one, two = (vi.fit(normal, guide, data=X, steps=5, seed=seed) for seed in (0, 1))
    assert_same(one, vi.fit(normal, AutoNormal(normal), data=X, steps=5, seed=0))
    assert not np.array_equal(one.losses, two.losses)
    assert guide.prototype_trace is None  # it was never run itself


def test_parameters_of_the_model_belong_to_the_fit_too():
    def model(x):
        scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
        mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mu, scale), obs=x)

    one, two = (vi.fit(model, AutoDelta, data=X * factor, steps=30) for factor in (1.0, 3.0))
    assert "scale" in one.params
    assert one.params["scale"] != two.params["scale"]
    assert not dict(pyro.get_param_store().items())
