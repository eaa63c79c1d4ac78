"""A captured step is a pure function: nothing outside of it changes, and nothing of the data is frozen into it."""

from __future__ import annotations

import random

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from pyro.infer.autoguide import AutoDelta, AutoNormal
from pyro.nn import PyroModule
from torch import nn
from torch.distributions.utils import tril_matrix_to_vec, vec_to_tril_matrix

from tests.engine.capture.captured import captured
from vipack.engine.capture.capture import Layout, tensors_of
from vipack.engine.capture.purify import _tril_matrix_to_vec, _vec_to_tril_matrix, pure_objectives
from vipack.program import Arguments

X = torch.linspace(-1, 1, 6)
Y = 2 * X + 0.3


def model(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(w[0] * x + w[1], 0.5), obs=y)


def step(found, leaves=None):
    parameters = found.program.parameters
    inputs = [parameters.unconstrained[name].detach() for name in found.graph.layout.names]
    leaves = tensors_of(found.batch)[0] if leaves is None else leaves
    return found.graph(inputs, list(parameters.buffers().values()), leaves)[: 1 + len(inputs)]


def test_capturing_changes_no_generator_and_no_parameter():
    program = captured(model, AutoNormal, (X, Y)).program
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    values = {name: value.detach().clone() for name, value in program.parameters.unconstrained.items()}
    torch.manual_seed(3)
    state = torch.get_rng_state()
    captured(model, AutoNormal, (X, Y))
    torch.set_rng_state(before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()  # noqa: NPY002
    assert all(torch.equal(value, values[name]) for name, value in program.parameters.unconstrained.items())
    assert all(value.grad is None for value in program.parameters.tensors())
    assert len(pyro.get_param_store()) == 0
    assert state.shape == before[0].shape


def test_other_data_give_another_loss():
    found = captured(model, AutoNormal, (X, Y))
    torch.manual_seed(0)
    one = float(step(found)[0])
    torch.manual_seed(0)
    other = float(step(found, [X, Y + 1.0])[0])
    torch.manual_seed(0)
    with found.program.bound(Arguments((X, Y + 1.0))):
        expected = Trace_ELBO().loss(found.program.model, found.program.guide, X, Y + 1.0)
    assert other == pytest.approx(expected, rel=1e-5)
    assert abs(one - other) > 1e-3


def test_inputs_are_left_as_they_are():
    found = captured(model, AutoNormal, (X, Y))
    parameters = [found.program.parameters.unconstrained[n].detach().clone() for n in found.graph.layout.names]
    again = [value.clone() for value in parameters]
    found.graph(parameters, [], [X, Y])
    assert all(map(torch.equal, parameters, again))


class Linear(PyroModule):
    """All its parameters are plain nn.Parameters, of which Pyro hears only through PyroModule."""

    def __init__(self):
        super().__init__()
        self.layer = PyroModule[nn.Linear](1, 2)

    def forward(self, x, y):
        loc, log_scale = self.layer(y.mean().reshape(1))
        pyro.sample("w", dist.Normal(loc.expand(2), log_scale.exp()).to_event(1))


def test_plain_parameters_of_pyro_modules_get_gradients():
    found = captured(model, Linear(), (X, Y))
    assert found.graph.unused == frozenset()
    assert all(gradient.abs().max() > 0 for gradient in step(found)[1:])


def test_a_parameter_that_the_loss_does_not_need_is_named():
    def guide(x, y):
        pyro.param("idle", torch.tensor(1.0))
        pyro.sample("w", dist.Delta(pyro.param("at", torch.zeros(2)), event_dim=1))

    found = captured(model, guide, (X, Y))
    assert found.graph.unused == {"idle"}


def test_one_tensor_under_two_names_is_one_input():
    shared = nn.Parameter(torch.zeros(2))
    one, two = nn.Module(), nn.Module()
    one.weight = two.weight = shared

    def guide(x, y):
        pyro.module("one", one)
        pyro.module("two", two)
        pyro.sample("w", dist.Delta(one.weight + two.weight, event_dim=1))

    found = captured(model, guide, (X, Y))
    layout = Layout.of(found.program.parameters)
    assert layout.names == ("one$$$weight",)
    assert layout.aliases == {"one$$$weight": "one$$$weight", "two$$$weight": "one$$$weight"}


def test_an_enumerated_term_of_probability_zero_has_a_finite_gradient():
    """The one branch on data of Pyro's that is written as a ``where``."""

    def chained(y):
        p = pyro.sample("p", dist.Beta(2.0, 2.0))
        k = pyro.sample(
            "k", dist.Categorical(torch.stack([p, 1 - p, torch.zeros(())])), infer={"enumerate": "parallel"}
        )
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(torch.tensor([-1.0, 1.0, 0.0])[k], 1.0), obs=y)

    loss = TraceEnum_ELBO(max_plate_nesting=1)
    found = captured(chained, AutoDelta, Y, loss=loss)
    value, gradient = step(found)
    with found.program.bound(found.batch):
        expected = loss.loss_and_grads(found.program.model, found.program.guide, Y)
        (theirs,) = [parameter.grad for parameter in found.program.parameters.tensors()]
    assert float(value) == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(gradient, theirs)


@pytest.mark.parametrize("diag", [0, -1, -2])
@pytest.mark.parametrize("n", [2, 3, 5])
def test_triangles_are_read_and_written_as_torch_does(n, diag):
    matrix = torch.randn(4, n, n)
    vector = tril_matrix_to_vec(matrix, diag)
    assert torch.equal(_tril_matrix_to_vec(matrix, diag), vector)
    if vector.shape[-1]:
        assert torch.equal(_vec_to_tril_matrix(vector, diag), vec_to_tril_matrix(vector, diag))


def test_the_stand_ins_are_gone_afterwards():
    import pyro.infer.trace_elbo as module

    before = module.torch_item, torch.Tensor.item
    with pure_objectives():
        assert module.torch_item is not before[0]
    assert (module.torch_item, torch.Tensor.item) == before
    with pytest.raises(ValueError, match="stop"), pure_objectives():
        raise ValueError("stop")
    assert (module.torch_item, torch.Tensor.item) == before
    assert "item" not in torch.Tensor.__dict__
