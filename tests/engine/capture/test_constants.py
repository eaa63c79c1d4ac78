"""Constants that a program makes as it runs are of the fit's type in every tier."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

import vipack


def model(y):
    rate = pyro.sample("rate", dist.Gamma(torch.full((3,), 0.2), torch.ones(3)).to_event(1))
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.Normal(rate.sum() * torch.scalar_tensor(0.1), torch.tensor(0.3)), obs=y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_captured_step_uses_the_very_constants_of_the_program(dtype):
    y = torch.linspace(-1.0, 1.0, 20, dtype=dtype)
    eager, traced = (
        vipack.fit(model, AutoNormal, data=y, steps=30, seed=0, engine=tier) for tier in ("eager", "traced")
    )
    assert traced.engine.steps["traced"] > 20
    # A constant rounded to float32 moves the loss by 1e-8 of itself.
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert abs(traced.losses / eager.losses - 1).max() < tolerance
