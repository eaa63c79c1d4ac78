"""A graph as text is the graph again, the same in every process, and holds no data."""

from __future__ import annotations

import operator
import pickle

import pytest
import torch
from torch import fx
from torch.fx.experimental.proxy_tensor import make_fx

from vipack.engine.graph.graph_text import GraphText


def traced(scale=2.0):
    def step(x, w):
        values, places = torch.max(x @ w, dim=-1)
        total = torch.cat([values, values * scale]).sum(dim=[0])
        return [total + torch.full((), 0.5), places.to(torch.float64), x.reshape(-1)[1:3]]

    return make_fx(step)(torch.randn(3, 4), torch.randn(4, 2))


def test_a_graph_survives():
    module = traced()
    module.graph.set_codegen(fx.graph.CodeGen())
    text = pickle.loads(pickle.dumps(GraphText.of(module)))
    inputs = torch.randn(3, 4), torch.randn(4, 2)
    for one, other in zip(module(*inputs), text.module()(*inputs), strict=True):
        assert torch.equal(one, other)


def test_equal_graphs_have_equal_texts_and_others_do_not():
    assert str(GraphText.of(traced())) == str(GraphText.of(traced()))
    assert str(GraphText.of(traced())) != str(GraphText.of(traced(3.0)))


def test_a_function_that_is_no_operation_is_refused():
    graph = fx.Graph()
    x = graph.placeholder("x")
    graph.output(graph.call_function(operator.add, (x, 1)))
    with pytest.raises(ValueError, match="not an operation"):
        GraphText.of(fx.GraphModule({}, graph))
