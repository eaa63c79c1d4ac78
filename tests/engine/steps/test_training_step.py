"""A step takes over the graph of its program as it is, without tracing it a second time."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch import nn

import vipack as vi
from vipack.engine.steps import training_step

X = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
LAYERS = {
    "dropout": lambda: nn.Dropout(0.3),
    "alpha dropout": lambda: nn.AlphaDropout(0.3),
    "batch norm": lambda: nn.BatchNorm1d(4),
}


def program(layer):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), LAYERS[layer](), nn.Tanh(), nn.Linear(4, 1))

    def model(x):
        pyro.module("net", net)
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(net(x).squeeze(-1) + w, 1.0), obs=x[:, 0])

    return model


@pytest.mark.parametrize("layer", LAYERS)
def test_networks_that_draw_or_keep_statistics_are_traced_once(layer, monkeypatch):
    enclosed = []
    enclose = training_step._enclosed
    monkeypatch.setattr(training_step, "_enclosed", lambda *given: (enclosed.append(layer), enclose(*given))[1])
    options = {"data": X, "steps": 20, "seed": 0, "progress": False}
    found = vi.fit(program(layer), AutoNormal, engine="traced", **options)
    assert found.engine.tier == "traced"
    assert enclosed == [layer]
    expected = vi.fit(program(layer), AutoNormal, engine="eager", **options)
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-4)
