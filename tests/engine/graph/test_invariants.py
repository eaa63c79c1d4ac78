"""What depends on the data alone is computed once, and again when the data change."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch.utils.data import TensorDataset

import vipack as vi
from vipack.engine.steps import runner
from vipack.engine.steps.training_step import assemble

TIERS = ["traced", "interpreted", "compiled"]
COUNTS = torch.tensor([3.0, 0.0, 7.0, 2.0, 4.0, 1.0])
HELD = torch.ones(6)


def poisson(counts):
    """Whose log probability has log(counts!)."""
    rate = pyro.sample("rate", dist.LogNormal(0.0, 1.0))
    with pyro.plate("rows", len(counts)):
        pyro.sample("counts", dist.Poisson(rate), obs=counts)


def offset(counts):
    rate = pyro.sample("rate", dist.LogNormal(0.0, 1.0))
    with pyro.plate("rows", len(counts)):
        pyro.sample("counts", dist.Poisson(rate * HELD.exp()), obs=counts)


def fitted(engine, model=poisson, counts=COUNTS, steps=60, **options):
    optim = pyro.optim.Adam({"lr": 0.02})
    return vi.fit(model, AutoNormal, data=counts, steps=steps, engine=engine, optim=optim, progress=False, **options)


@pytest.fixture
def steps(monkeypatch):
    """The operators of each step that is put together."""
    made = []

    def noted(*args, **options):
        step = assemble(*args, **options)
        made.append([str(node.target) for node in step.module.graph.nodes])
        return step

    monkeypatch.setattr(runner, "assemble", noted)
    return made


@pytest.mark.parametrize("restarts", [1, 3])
def test_a_step_does_not_compute_what_depends_on_the_data_alone(restarts, steps):
    fitted("traced", restarts=restarts)
    assert steps
    assert not any("lgamma" in operator for step in steps for operator in step)


def test_a_step_of_a_batch_computes_what_depends_on_its_rows(steps):
    fitted("traced", batch_size=3)
    fitted("traced", counts=TensorDataset(COUNTS), batch_size=3)
    assert len(steps) == 2
    assert all(any("lgamma" in operator for operator in step) for step in steps)


def test_what_is_large_and_cheap_is_not_kept(steps):
    def shifted(counts):
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(counts)):
            pyro.sample("counts", dist.Normal(loc, 1.0), obs=counts + 1.5)

    fitted("traced", model=shifted, counts=torch.zeros(40_000))
    fitted("traced", model=shifted, counts=torch.zeros(40))
    large, small = steps
    assert large.count("aten.add.Tensor") == small.count("aten.add.Tensor") + 1


@pytest.mark.parametrize(
    ("model", "engine"),
    [
        *((poisson, tier) for tier in TIERS),
        *((offset, tier) for tier in ("traced", "interpreted")),
        pytest.param(offset, "compiled", marks=pytest.mark.slow),
    ],
)
def test_data_that_are_written_to_while_a_run_goes_on_are_seen(engine, model):
    def losses(tier):
        counts = COUNTS.clone()
        HELD.fill_(1.0)

        def change(progress):
            (counts if model is poisson else HELD).add_(1.0)

        return fitted(tier, model, counts, callbacks=vi.Every(20, change)).losses

    assert losses(engine) == pytest.approx(losses("eager"), rel=1e-4)


@pytest.mark.parametrize("engine", TIERS)
def test_calls_of_svi_on_other_data_and_on_changed_data_are_pyros(engine):
    def losses(make, **options):
        pyro.clear_param_store()
        pyro.set_rng_seed(2)
        svi = make(poisson, AutoNormal(poisson), pyro.optim.Adam({"lr": 0.02}), Trace_ELBO(), **options)
        counts, told = COUNTS.clone(), []
        for step in range(40):
            if step == 20:
                counts = COUNTS + 5.0
            if step % 7 == 6:
                counts.add_(1.0)
            told.append(svi.step(counts))
        return told

    assert losses(vi.SVI, engine=engine) == pytest.approx(losses(SVI), rel=1e-4)


@pytest.mark.parametrize("restarts", [1, 3])
@pytest.mark.parametrize(
    "shaped", [torch.zeros_like, torch.ones_like, lambda z: z.new_zeros(()), lambda z: torch.full_like(z, 2.0)]
)
def test_data_may_meet_constants_of_a_latents_shape(shaped, restarts):
    """As in ``total = offset + torch.zeros_like(mu)`` before a loop over time."""

    def model(counts):
        rate = pyro.sample("rate", dist.LogNormal(0.0, 1.0))
        with pyro.plate("rows", len(counts)):
            pyro.sample("counts", dist.Poisson(rate * (counts[0] + shaped(rate)).exp()), obs=counts)

    def losses(engine):
        return fitted(engine, model, steps=20, restarts=restarts).losses

    assert losses("traced") == pytest.approx(losses("eager"), rel=1e-4)
