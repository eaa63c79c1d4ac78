"""A log joint density at many points is a number at each and its gradient, and leads back to nothing else."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from vipack.diagnostics.density import ManyPoints
from vipack.program import Arguments, LogJoint, Program


def test_a_network_that_the_model_holds_is_not_remembered_from_point_to_point():
    network = nn.Linear(2, 3)

    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(network(z), 1.0).to_event(1), obs=x)

    x = torch.tensor([0.5, -1.0, 2.0])
    program = Program(model, model, dtype=torch.float32, device=torch.device("cpu"))
    points = torch.randn(5, 2)
    values, gradients = ManyPoints(LogJoint(program, Arguments((x,), {})), points[0])(points)
    assert not values.requires_grad
    assert not gradients.requires_grad
    residual = x - network(points)
    expected = -0.5 * ((points**2).sum(1) + (residual**2).sum(1) + 5 * torch.log(torch.tensor(2 * torch.pi)))
    assert torch.allclose(values, expected, atol=1e-5)
    assert torch.allclose(gradients, -points + residual @ network.weight, atol=1e-5)


def reading(x):
    """Reads a float, a whole number and a truth value from what no latent decides."""
    scale = float(x.abs().max())
    z = pyro.sample("z", dist.Normal(torch.zeros(int(x.sum())), scale).to_event(1))
    shift = 1.0 if (x > 0).all() else 0.0
    pyro.sample("x", dist.Normal(z.sum(), torch.ones(()) * scale + shift).expand([3]).to_event(1), obs=x)


def told(x):
    z = pyro.sample("z", dist.Normal(torch.zeros(6), 3.0).to_event(1))
    pyro.sample("x", dist.Normal(z.sum(), 4.0).expand([3]).to_event(1), obs=x)


def many_points(model, x):
    program = Program(model, model, dtype=torch.float32, device=torch.device("cpu"))
    return ManyPoints(LogJoint(program, Arguments((x,), {})), torch.zeros(6))


def test_a_model_may_read_numbers_from_its_data():
    x, points = torch.tensor([1.0, 2.0, 3.0]), torch.randn(7, 6)
    ours, expected = many_points(reading, x), many_points(told, x)
    for _ in range(2):  # once captured, once replayed
        torch.testing.assert_close(ours(points), expected(points))


def test_a_number_that_a_latent_decides_is_not_frozen():
    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(6), 3.0).to_event(1))
        pyro.sample("x", dist.Normal(float(z.detach().sum()), 4.0).expand([3]).to_event(1), obs=x)

    with pytest.raises(RuntimeError):
        many_points(model, torch.tensor([1.0, 2.0, 3.0]))(torch.randn(7, 6))
