"""The quick way through torch's tracer gives the graphs that torch's own gives, and refuses what that refuses."""

from __future__ import annotations

import pytest
import torch
from torch.func import functionalize

from vipack.compat import tracer as torchs
from vipack.compat.names import PrivateName
from vipack.compat.tracer import recorded, traced_with_values, traced_without_values

DATA = torch.arange(6.0).reshape(2, 3)
WEIGHT = torch.nn.Parameter(torch.ones(3))
X = torch.tensor([0.5, 1.5, -2.0])


def gradient(x):
    y = x.clone().requires_grad_(True)
    (torch.nn.functional.softplus(y).log() * 2 + y.abs().sqrt()).sum().backward()
    return [y.grad]


def draws(x):
    noise = torch.randn(3, dtype=x.dtype)
    return [noise.mul_(x).add_(1.0), torch.empty(3).normal_(), torch._standard_gamma(x.exp())]


def writes(x):
    y = torch.zeros_like(x)
    y[1:] = x[:2]
    view = y.view(3, 1)
    view.add_(1)
    return [y, view, x.t_() if x.dim() == 2 else x]


def constants(x):
    """Numbers that the program writes down may be read, as torch's tracer knows them."""
    scale = torch.tensor(2.0)
    scale += 1
    return [x * scale, x * float(scale), x + torch.tensor([1.0, 2.0, 3.0])]


PROGRAMS = {
    "gradient": gradient,
    "draws": draws,
    "writes": writes,
    "constants": constants,
    "held": lambda x: [DATA @ x, x * WEIGHT, DATA.sum() * x],
    "lists": lambda x: [torch.cat([x, x]), torch.stack((x, DATA[0])), x[torch.tensor([0, 2])], x[None, :, None]],
    "several": lambda x: [*torch.split(x, 1), *x.max(0), *torch.linalg.slogdet(torch.diag(x))],
    "composite": lambda x: [torch.einsum("ij,j->i", DATA, x), torch.nn.functional.linear(x, DATA), x.softmax(-1)],
    "types": lambda x: [x.double(), x.to(torch.int64), torch.zeros((), device="cpu"), x.contiguous(), x == 1.5],
    "functional": functionalize(writes, remove="mutations"),
    "vectorized": lambda x: [torch.vmap(lambda v: (v * DATA[0]).sum() + v.exp())(x)],
}
TRACERS = {
    "without values": traced_without_values,
    "with values": traced_with_values,
    "recorded": lambda f: recorded(f, freeze=True),
}


@pytest.fixture
def torchs_own(monkeypatch):
    """Trace as torch does."""

    def without():
        monkeypatch.setattr(PrivateName, "there", property(lambda self: self is not torchs.PROXY_MODE))

    return without


def lines(module):
    """Each node of a graph, and what it says of its result."""
    said = []
    for node in module.graph.nodes:
        value = node.meta.get("val")
        shape = isinstance(value, torch.Tensor) and (value.shape, value.stride(), value.dtype, value.device)
        said.append((node.op, node.name, node.target, str(node.args), str(node.kwargs), shape))
    return said


@pytest.mark.parametrize("tracer", TRACERS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_graph_is_torchs_own(program, tracer, torchs_own):
    trace = TRACERS[tracer](PROGRAMS[program])
    quick = trace(X.clone())
    torchs_own()
    own = trace(X.clone())
    expected, found = lines(own), lines(quick)
    if tracer == "recorded":  # which describes nothing
        expected, found = [line[:-1] for line in expected], [line[:-1] for line in found]
    assert found == expected
    assert len(found) > 3
    torch.manual_seed(0)
    results = quick(X.clone())
    torch.manual_seed(0)
    torch.testing.assert_close(results, own(X.clone()), rtol=0, atol=0)


def test_sizes_that_depend_on_values_are_left_to_torch(torchs_own):
    """They are symbols to it, which what follows must know of."""

    def masked(x):
        return [x[x > 0] * 2 + 1, x * 3]

    trace = traced_without_values(masked)
    quick = trace(X.clone())
    torchs_own()
    own = trace(X.clone())
    assert any(type(node.meta["val"].shape[0]) is torch.SymInt for node in quick.graph.nodes if "val" in node.meta)
    assert [line[:4] for line in lines(quick)] == [line[:4] for line in lines(own)]


@pytest.mark.parametrize("tracer", ["without values", "with values"])
def test_a_value_that_is_read_is_refused(tracer):
    with pytest.raises(Exception, match=r"(?i)data-dependent|get value out of a tracing tensor"):
        TRACERS[tracer](lambda x: [x * float(x[0])])(X)


def test_most_operations_take_the_quick_way(monkeypatch):
    """Else nothing would be gained."""
    own, asked = torchs._own_dispatch(), []

    def counting(self, func, types, args=(), kwargs=None):
        asked.append(func)
        return own(self, func, types, args, kwargs)

    torchs._quick_dispatch.cache_clear()
    monkeypatch.setattr(torchs, "_own_dispatch", lambda: counting)
    graph = traced_without_values(gradient)(X)
    torchs._quick_dispatch.cache_clear()
    assert asked == []
    assert len(graph.graph.nodes) > 8
