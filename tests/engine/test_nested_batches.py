"""Batches in lists, dicts and tuples, other ones at each step, share one graph and give Pyro's numbers."""

import collections

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch.distributions import constraints

import vipack as vi

STEPS = 30
Pair = collections.namedtuple("Pair", "one two")
FORMS = {
    "a list": lambda a, b: (([a, b],), {}),
    "a dict": lambda a, b: (({"one": a, "two": b},), {}),
    "a tuple": lambda a, b: (((a, b),), {}),
    "a named tuple": lambda a, b: ((Pair(a, b),), {}),
    "nested": lambda a, b: (([{"one": a}, (b, [a])],), {}),
    "keywords": lambda a, b: ((a,), {"more": [b, {"two": a}]}),
    "beside plain values": lambda a, b: (({"one": a, "name": "x", "number": 3, "none": None, "more": [b]},), {}),
}


def tensors_in(value):
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for part in parts for tensor in tensors_in(part)]


def model(batch, **more):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    for i, values in enumerate(tensors_in([batch, more])):
        with pyro.plate(f"rows {i}", len(values)):
            pyro.sample(f"x {i}", dist.Normal(w, 1.0), obs=values)


def guide(batch, **more):
    scale = pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)
    pyro.sample("w", dist.Normal(pyro.param("loc", torch.tensor(0.0)), scale))


def stepped(kind, form, **options):
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    svi = kind(model, guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO(), **options)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(STEPS):
        args, kwargs = form(torch.randn(5, generator=generator), torch.randn(3, generator=generator))
        losses.append(svi.step(*args, **kwargs))
    return losses, svi


@pytest.mark.parametrize(
    ("name", "tier"),
    [
        *((name, "interpreted") for name in FORMS),  # before which a step is traced
        *(pytest.param(name, "traced", marks=[pytest.mark.slow] * (name != "nested")) for name in FORMS),
    ],
)
def test_many_batches_share_a_graph(name, tier):
    expected, _ = stepped(SVI, FORMS[name])
    found, svi = stepped(vi.SVI, FORMS[name], engine=tier)
    assert found == pytest.approx(expected, rel=1e-4)
    assert svi.engine.steps == {"eager": 2, tier: STEPS - 2}, svi.engine
