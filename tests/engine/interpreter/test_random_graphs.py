"""Random graphs of tensors of random shapes and strides run by the interpreter as torch runs them."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.interpreter.interpreted import run

SIZES = st.sampled_from([1, 2, 3, 5])
SAFE = {  # of any number, with a result that neither overflows nor is undefined
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": torch.nn.functional.softplus,
    "sin": torch.sin,
    "exp of minus its square": lambda x: (-x.square()).exp(),
    "log of one more than its square": lambda x: x.square().log1p(),
    "erf": torch.erf,
    "abs": torch.abs,
    "clamp": lambda x: x.clamp(-0.7, 1.3),
    "lgamma": lambda x: (x.abs() + 0.5).lgamma(),
    "neg": torch.neg,
    "double": torch.Tensor.double,
    "single": torch.Tensor.float,
}
PAIRS = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": lambda x, y: x / (1 + y.abs()),
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "where": lambda x, y: torch.where(x > y, x, 2 * y),
    "logaddexp": torch.logaddexp,
}


@st.composite
def programs(draw):
    """The shape and type of each input, and operations as names with choices, which :func:`evaluated` carries out."""
    shapes = draw(st.lists(st.lists(SIZES, max_size=3), min_size=1, max_size=3))
    doubles = [draw(st.booleans()) for _ in shapes]
    kinds = ["one", "two", "sum", "logsumexp", "view", "index", "matmul", "cat", "cumsum", "gather", "softmax"]
    steps = draw(st.lists(st.tuples(st.sampled_from(kinds), *[st.integers(0, 1_000)] * 4), min_size=1, max_size=10))
    return list(zip(map(tuple, shapes), doubles, strict=True)), steps


def broadcastable(x, y):
    return all(a == b or 1 in (a, b) for a, b in zip(reversed(x.shape), reversed(y.shape), strict=False))


def evaluated(steps, inputs):
    values = list(inputs)
    for kind, *choices in steps:
        x, y = values[choices[0] % len(values)], values[choices[1] % len(values)]
        dim = choices[2] % x.dim() if x.dim() else None
        if kind == "one":
            values.append(list(SAFE.values())[choices[3] % len(SAFE)](x))
        elif kind == "two" and broadcastable(x, y):
            values.append(list(PAIRS.values())[choices[3] % len(PAIRS)](x, y))
        elif kind == "sum":
            values.append(x.sum() if choices[3] % 3 == 0 or dim is None else x.sum(dim, keepdim=choices[3] % 3 == 1))
        elif kind == "matmul" and x.dim() >= 2 and y.dim() >= 1 and x.dtype == y.dtype:
            inner = y.shape[-2] if y.dim() > 1 else y.shape[0]
            if x.shape[-1] == inner and (x.dim() == y.dim() == 2 or y.dim() == 1):
                values.append(x @ y)
        elif dim is None:
            continue
        elif kind == "logsumexp":
            values.append(x.logsumexp(dim, keepdim=bool(choices[3] % 2)))
        elif kind == "softmax":
            values.append(x.softmax(dim))
        elif kind == "cumsum":
            values.append(x.cumsum(dim))
        elif kind == "view":
            views = [x.movedim(dim, 0), x.unsqueeze(dim), x.reshape(-1), x.flip(dim), x.expand(2, *x.shape)]
            values.append(views[choices[3] % len(views)])
        elif kind == "index":
            size = x.shape[dim]
            start = choices[3] % size
            pieces = [x.select(dim, start), x.narrow(dim, start, size - start), x.diff(dim=dim) if size > 1 else x]
            values.append(pieces[choices[1] % len(pieces)])
        elif kind == "gather":
            index = torch.arange(choices[3] % 4 + 1) % x.shape[dim]
            values.append(x.index_select(dim, index))
        elif kind == "cat":
            values.append(torch.cat([x, x.square().clamp(max=9.0)], dim))
    return values


def check(folder, program, seed):
    kinds, steps = program
    torch.manual_seed(seed)
    inputs = [torch.randn(shape, dtype=torch.float64 if double else torch.float32) for shape, double in kinds]

    def function(*given):
        results = evaluated(steps, given)[len(given) :]
        return [result.clone() for result in results if result.is_floating_point()] or [given[0] + 1]

    ours, _ = run(folder, function, inputs)
    for got, expected in zip(ours, function(*inputs), strict=True):
        tolerance = 2e-4 if torch.float32 in (got.dtype, *(x.dtype for x in inputs)) else 1e-10
        torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True}


@settings(max_examples=30, **QUIET)
@given(program=programs(), seed=st.integers(0, 10))
def test_random_graphs(folder, program, seed):
    check(folder, program, seed)


@pytest.mark.slow
@settings(max_examples=500, **QUIET)
@given(program=programs(), seed=st.integers(0, 10_000))
def test_many_random_graphs(folder, program, seed):
    check(folder, program, seed)
