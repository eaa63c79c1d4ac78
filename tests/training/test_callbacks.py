"""What a callback sees of a run, and that the run does not mind."""

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch import nn

import vipack as vi

X = torch.linspace(-1.0, 1.0, 20)[:, None]
Y = X[:, 0] ** 2


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1, 3), nn.BatchNorm1d(3, affine=False), nn.Tanh(), nn.Linear(3, 1))


def error(network):
    """Of a network in evaluation mode, which normalises by its buffers."""
    network.eval()
    with torch.no_grad():
        found = float(((network(X)[:, 0] - Y) ** 2).mean())
    network.train()
    return found


@pytest.mark.parametrize("engine", ["eager", "traced", "interpreted"])
def test_a_callback_validates_a_network_with_its_buffers(network, engine):
    def model(x, y):
        pyro.module("network", network)
        noise = pyro.sample("noise", dist.HalfNormal(1.0))
        with pyro.plate("row", len(x)):
            pyro.sample("y", dist.Normal(network(x)[:, 0], 0.1 + noise), obs=y)

    def fitted(steps, *callbacks):
        network.load_state_dict(start)
        return vi.fit(model, AutoNormal, data={"x": X, "y": Y}, steps=steps, seed=0, engine=engine, callbacks=callbacks)

    def validate(progress):
        progress.to_pyro()
        errors.append(error(network))
        buffers.append(network[1].running_var.clone())
        stored.append(pyro.param("AutoNormal.locs.noise").detach().clone())

    start, errors, buffers, stored = copy.deepcopy(network.state_dict()), [], [], []
    alone = fitted(60)
    watched = fitted(60, vi.Every(20, validate))
    assert watched.losses.tolist() == alone.losses.tolist()  # it goes on as if nobody had looked
    watched.to_pyro()
    assert errors[-1] == error(network)
    assert torch.equal(buffers[-1], network[1].running_var)
    assert torch.equal(stored[-1], watched.params["AutoNormal.locs.noise"])
    assert errors[0] > errors[-1]
    assert not torch.equal(buffers[0], buffers[-1])
