"""Densities that torch.vmap refuses run under it, with the numbers that torch and Pyro give without it."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import Multinomial

from vipack.program import Arguments, LogJoint, Program, seeded
from vipack.program.densities.vmappable import vmappable_densities

F64 = {"dtype": torch.float64}


def multinomial(z):
    return dist.Multinomial(10, logits=torch.cat([z, z[:1] * 0])), torch.tensor([4.0, 0.0, 3.0, 3.0], **F64)


def impossible_category(z):
    """Never seen, and of probability zero: it must not turn the sum into NaN."""
    probs = torch.cat([z.softmax(-1), z[:1] * 0])
    return dist.Multinomial(10, probs=probs), torch.tensor([4.0, 3.0, 3.0, 0.0], **F64)


def ordered_logistic(z):
    return dist.OrderedLogistic(z[0] * torch.arange(5.0, **F64), z.sort().values), torch.tensor([0, 1, 3, 2, 2])


def hidden_markov(z):
    start, moves = z[:2].log_softmax(-1), torch.stack([z[:2], z[1:]]).log_softmax(-1)
    return dist.DiscreteHMM(start, moves, dist.Normal(z[:2], 1.0)), torch.arange(7.0, **F64) / 3


CASES = [multinomial, impossible_category, ordered_logistic, hidden_markov]


def model_of(case):
    def model():
        z = pyro.sample("z", dist.Normal(torch.zeros(3, **F64), 1.0).to_event(1))
        density, value = case(z)
        pyro.sample("y", density.to_event(len(density.batch_shape)), obs=value)

    return model


@pytest.mark.parametrize("case", CASES)
def test_the_log_joint_runs_under_vmap_with_pyros_numbers(case):
    program = Program(model_of(case), lambda: None, dtype=torch.float64, device=torch.device("cpu"))
    with seeded(0):
        joint = LogJoint(program, Arguments())
    u = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), **F64)
    gradients, values = torch.func.vmap(torch.func.grad_and_value(joint))(u)
    for point, gradient, value in zip(u, gradients, values, strict=True):
        leaf = point.clone().requires_grad_(True)
        with pyro.validation_enabled(False):
            density, data = case(leaf)
            expected = dist.Normal(torch.zeros(3, **F64), 1.0).log_prob(leaf).sum() + density.log_prob(data).sum()
        torch.testing.assert_close(value, expected.detach())
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, leaf)[0])
        assert gradient.isfinite().all()


def test_torch_and_pyro_are_as_before_after_the_block():
    before = Multinomial.log_prob, dist.OrderedLogistic.__init__
    with vmappable_densities():
        assert Multinomial.log_prob is not before[0]
    assert (Multinomial.log_prob, dist.OrderedLogistic.__init__) == before
