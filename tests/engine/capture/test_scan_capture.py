"""A recursion written as a scan trains in every tier as its Python loop does, from one small graph."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

import vipack as vi
from vipack.objectives import StickingTheLanding

Y = torch.randn(40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def priors():
    mu = pyro.sample("mu", dist.Normal(torch.zeros((), dtype=Y.dtype), 1.0))
    a0 = pyro.sample("a0", dist.LogNormal(torch.zeros((), dtype=Y.dtype), 1.0))
    a1 = pyro.sample("a1", dist.Beta(torch.ones((), dtype=Y.dtype), 3.0))
    return mu, a0, a1


def loop(y):
    mu, a0, a1 = priors()
    v, vs = torch.ones((), dtype=y.dtype), []
    for t in range(len(y)):
        vs.append(v)
        v = a0 + a1 * (y[t] - mu) ** 2 + 0.3 * v
    pyro.sample("y", dist.Normal(mu, torch.stack(vs).sqrt()).to_event(1), obs=y)


def scanned(y):
    mu, a0, a1 = priors()

    def step(v, y, mu, a0, a1):
        return a0 + a1 * (y - mu) ** 2 + 0.3 * v, v

    _, vs = vi.scan(step, torch.ones((), dtype=y.dtype), y, constants=(mu, a0, a1))
    pyro.sample("y", dist.Normal(mu, vs.sqrt()).to_event(1), obs=y)


def fitted(model, tier, steps=30, **options):
    return vi.fit(model, AutoNormal, data=Y, steps=steps, engine=tier, progress=False, **options)


@pytest.fixture(scope="module")
def eager():
    return fitted(loop, "eager")


@pytest.mark.parametrize("tier", ["eager", "traced", "interpreted"])
def test_losses_are_those_of_the_python_loop(eager, tier):
    fit = fitted(scanned, tier)
    assert fit.engine.tier == tier
    np.testing.assert_allclose(fit.losses, eager.losses, rtol=1e-9)


def by(number):
    return lambda level, x, z: (level * torch.tensor(number) + x * z, level)


def short(numbers):
    """Recursions of a few turns, whose bodies differ in a constant alone."""

    def model(y):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        level = 0.3 * z
        for number in numbers:
            level, levels = vi.scan(by(number), level, y, constants=(z,))
        pyro.sample("y", dist.Normal(levels, 1.0).to_event(1), obs=y)

    return model


@pytest.mark.parametrize("tier", ["traced", "interpreted"])
@pytest.mark.parametrize("numbers", [(0.5,), (0.9,), (0.5, 0.9), (0.9, 0.5)], ids=str)
def test_short_recursions_with_constants_of_their_own(numbers, tier):
    y = Y[:5].float()
    found, expected = (vi.fit(short(numbers), AutoNormal, data=y, steps=30, engine=t) for t in (tier, "eager"))
    assert found.engine.tier == tier, found.engine
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-4)


def test_the_compiled_tier_leaves_it_to_the_interpreter():
    fit = fitted(scanned, "compiled")
    assert fit.engine.tier == "interpreted"
    assert "scan over time" in fit.engine.reason


def test_particles_side_by_side():
    plain, quick = (
        fitted(scanned, tier, loss=StickingTheLanding(num_particles=4)) for tier in ("eager", "interpreted")
    )
    assert quick.engine.tier == "interpreted"
    np.testing.assert_allclose(quick.losses, plain.losses, rtol=1e-9)


def test_starts_side_by_side():
    fit = fitted(scanned, "interpreted", steps=20, restarts=3)
    assert fit.engine.tier == "interpreted"
    assert np.isfinite(fit.restarts).all()


def test_its_graph_does_not_grow_with_the_number_of_steps():
    def nodes(rows):
        fit = vi.fit(scanned, AutoNormal, data=Y[:rows], steps=3, engine="traced", progress=False)
        (shape,) = fit._trainer.engine._shapes
        return len(shape.runner.step.module.graph.nodes)

    assert nodes(10) == nodes(40) < 400
