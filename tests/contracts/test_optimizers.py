"""Every optimizer that Pyro or torch exports takes Pyro's steps in every tier."""

import functools
import inspect

import pyro
import pyro.optim
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

import vipack as vi
from tests.contracts.line import X, Y, guide, model
from vipack.errors import VipackError

STEPS = 30

RATE = {"lr": 0.01}
OPTIONS = {"AdagradRMSProp": {"eta": 0.1}, "Adafactor": {"lr": 0.01}, "Adadelta": {}, "Rprop": {"lr": 1e-3}}
CLOSURES = {"LBFGS"}  # evaluate the loss themselves, which no SVI gives them
SPARSE = {"SparseAdam"}  # takes sparse gradients alone
MATRICES = {"Muon"}  # takes matrices alone
SCHEDULES = {
    "ChainedScheduler": None,  # made of other schedules, which pyro.optim cannot make for each parameter
    "ConstantLR": {"factor": 0.5, "total_iters": 5},
    "CosineAnnealingLR": {"T_max": 10},
    "CosineAnnealingWarmRestarts": {"T_0": 7},
    "CyclicLR": {"base_lr": 0.001, "max_lr": 0.05, "step_size_up": 4, "cycle_momentum": False},
    "ExponentialLR": {"gamma": 0.9},
    "LRScheduler": None,  # the root of all
    "LambdaLR": {"lr_lambda": lambda step: 1 / (1 + step)},
    "LinearLR": {"total_iters": 8},
    "MultiStepLR": {"milestones": [3, 9]},
    "MultiplicativeLR": {"lr_lambda": lambda step: 0.95},
    "OneCycleLR": {"max_lr": 0.05, "total_steps": 200, "cycle_momentum": False},
    "PolynomialLR": {"total_iters": 20},
    "PyroLRScheduler": None,
    "ReduceLROnPlateau": {"patience": 0, "factor": 0.5},
    "SequentialLR": None,  # likewise
    "StepLR": {"step_size": 4},
}
NOT_OPTIMIZERS = {"PyroOptim", "HorovodOptimizer", *SCHEDULES}
OF_PYRO = sorted(
    name
    for name in dir(pyro.optim)
    if name[0].isupper() and name not in NOT_OPTIMIZERS | SPARSE | MATRICES | CLOSURES | {"PyroMultiOptimizer"}
)
OF_TORCH = sorted(
    name
    for name, kind in vars(torch.optim).items()
    if inspect.isclass(kind) and issubclass(kind, Optimizer) and kind is not Optimizer
)
TIERS = ("eager", pytest.param("traced", marks=pytest.mark.slow), "interpreted")  # fits are traced with each


def options_of(name):
    return OPTIONS.get(name, RATE)


def losses_of(kind, optim, **options):
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    svi = kind(model, guide, optim, Trace_ELBO(), **options)
    losses = []
    for _ in range(STEPS):
        losses.append(svi.step(X, Y))
        if isinstance(optim, pyro.optim.PyroLRScheduler):
            optim.step(losses[-1]) if "Plateau" in str(optim.pt_scheduler_constructor) else optim.step()
    return losses, [pyro.param(name).detach().clone() for name in ("loc", "scale")], svi


@functools.cache
def pyros_steps(name):
    """Losses and parameters of Pyro's own SVI."""
    return losses_of(SVI, ALL[name]())[:2]


def fit_of(optim, **options):
    return vi.fit(model, guide, data=(X, Y), optim=optim, steps=STEPS, seed=0, **options)


def made(name):
    return getattr(pyro.optim, name)(dict(options_of(name)))


def scheduled(name):
    return getattr(pyro.optim, name)({"optimizer": torch.optim.Adam, "optim_args": dict(RATE), **SCHEDULES[name]})


ALL = {
    **{name: functools.partial(made, name) for name in OF_PYRO},
    **{name: functools.partial(scheduled, name) for name, options in SCHEDULES.items() if options is not None},
}


def test_nothing_that_pyro_exports_is_left_out():
    exported = {name for name in dir(pyro.optim) if name[0].isupper()}
    assert exported <= {*ALL, *NOT_OPTIMIZERS, *SPARSE, *MATRICES, *CLOSURES}


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("name", ALL)
def test_svi_takes_pyros_steps(name, tier):
    expected, parameters = pyros_steps(name)
    found, own, svi = losses_of(vi.SVI, ALL[name](), engine=tier)
    assert found == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(own, parameters, rtol=1e-3, atol=1e-4)
    assert tier == "eager" or svi.engine.steps.get("eager", 0) <= 3, svi.engine


@pytest.mark.parametrize("name", ALL)
def test_a_fit_takes_it(name):
    found, expected = (fit_of(ALL[name](), engine=tier) for tier in ("traced", "eager"))
    assert found.losses == pytest.approx(expected.losses, rel=1e-4)
    assert found.engine.steps.get("eager", 0) <= 2, found.engine


@pytest.mark.parametrize("name", [n for n in OF_TORCH if n not in SPARSE | MATRICES | CLOSURES])
def test_a_fit_takes_torchs(name):
    optim = functools.partial(getattr(torch.optim, name), **options_of(name))
    found, expected = (fit_of(optim, engine=tier) for tier in ("traced", "eager"))
    assert found.losses == pytest.approx(expected.losses, rel=1e-4)
    assert found.engine.steps.get("eager", 0) <= 2, found.engine


@pytest.mark.parametrize("tier", ["eager", "traced"])
@pytest.mark.parametrize("name", [n for n in OF_TORCH if n in SPARSE | MATRICES | CLOSURES])
def test_one_that_takes_no_such_steps_says_so(name, tier):
    """In plain Pyro it raises as well."""
    with pytest.raises(VipackError, match="optim: it raised"):
        fit_of(functools.partial(getattr(torch.optim, name), lr=0.01), engine=tier)


def test_a_schedule_of_torchs_own_class():
    def with_schedule(parameters):
        optimizer = torch.optim.NAdam(parameters, lr=0.01)
        return optimizer, LambdaLR(optimizer, lambda step: 1 / (1 + step))

    found, expected = (fit_of(with_schedule, engine=tier) for tier in ("traced", "eager"))
    assert found.losses == pytest.approx(expected.losses, rel=1e-4)
