"""Random forms of data give the fit of plain tensors; random interruptions of a run give the run that was not interrupted."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyro.infer.autoguide import AutoNormal

import vipack as vi

N = 8
COLUMNS = {
    "flat": torch.linspace(-1.0, 1.0, N),
    "table": torch.randn(N, 3, generator=torch.Generator().manual_seed(0)),
    "kind": torch.tensor([0, 1, 2, 1, 0, 2, 2, 1]),
    "flag": torch.arange(N) % 3 == 0,
    "cube": torch.randn(N, 2, 2, generator=torch.Generator().manual_seed(1)),
}
FORMS = {
    "tensor": lambda x: x,
    "numpy": lambda x: x.numpy(),
    "columns in memory": lambda x: np.asfortranarray(x.numpy()),
    "every other row": lambda x: torch.stack([x, x], 1).flatten(0, 1)[::2],
    "backwards in memory": lambda x: np.ascontiguousarray(x.numpy()[::-1])[::-1],
    "leaf that wants a gradient": lambda x: x.clone().requires_grad_() if x.is_floating_point() else x,
    "pandas": lambda x: x.numpy() if x.dim() > 2 else (pd.Series if x.dim() == 1 else pd.DataFrame)(x.numpy()),
    "read-only": lambda x: _read_only(x.numpy().copy()),
}
QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True}


def _read_only(x):
    x.setflags(write=False)
    return x


def model(*columns, **named):
    columns = (*columns, *(named[name] for name in sorted(named)))
    mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 0.5))
    with pyro.plate("rows", len(columns[0])):
        for index, column in enumerate(columns):
            value = column.to(mean.dtype)
            event = value.dim() - 1
            pyro.sample(f"x_{index}", dist.Normal(mean, scale).expand(value.shape).to_event(event), obs=value)


@st.composite
def containers(draw):
    """Names of columns with a form for each, and what holds them."""
    names = draw(st.lists(st.sampled_from(list(COLUMNS)), min_size=1, max_size=4, unique=True))
    forms = [draw(st.sampled_from(list(FORMS))) for _ in names]
    holder = draw(st.sampled_from(["one", "tuple", "dict"]))
    names, forms = (names[:1], forms[:1]) if holder == "one" else (names, forms)
    return names, forms, holder, draw(st.sampled_from([None, 1, 3, N])), draw(st.integers(0, 5))


def losses(names, forms, holder, batch_size, seed):
    columns = [FORMS[form](COLUMNS[name].clone()) for name, form in zip(names, forms, strict=True)]
    data = {
        "one": lambda: columns[0],
        "tuple": lambda: tuple(columns),
        "dict": lambda: dict(zip(names, columns, strict=True)),
    }
    options = {"batch_size": batch_size, "seed": seed, "engine": "eager", "progress": False}
    return vi.fit(model, AutoNormal, data=data[holder](), steps=4, **options).losses


def check_container(container):
    names, forms, *rest = container
    found, expected = losses(names, forms, *rest), losses(names, ["tensor"] * len(names), *rest)
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=10, **QUIET)
@given(container=containers())
def test_the_form_of_the_data_does_not_matter(container):
    check_container(container)


@pytest.mark.slow
@settings(max_examples=500, **QUIET)
@given(container=containers())
def test_the_form_of_the_data_does_not_matter_in_many_more(container):
    check_container(container)


@st.composite
def interruptions(draw):
    """Steps of each piece of a run, what happens between two pieces, and how the run is made."""
    pieces = draw(st.lists(st.integers(1, 12), min_size=2, max_size=4))
    between = [draw(st.sampled_from(["resume", "save and load", "draws"])) for _ in pieces[1:]]
    tier = draw(st.sampled_from(["eager", "traced", "interpreted"]))
    batch_size = draw(st.sampled_from([None, 3, 4]))
    return pieces, between, tier, batch_size, draw(st.integers(0, 5))


def optim():
    return pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.99})


def check_interruption(interruption, path):
    pieces, between, tier, batch_size, seed = interruption
    options = {"batch_size": batch_size, "seed": seed, "engine": tier, "progress": False}
    data = (COLUMNS["flat"], COLUMNS["table"])
    whole = vi.fit(model, AutoNormal, data=data, steps=sum(pieces), optim=optim(), **options)
    fit = vi.fit(model, AutoNormal, data=data, steps=pieces[0], optim=optim(), **options)
    for steps, act in zip(pieces[1:], between, strict=True):
        if act == "save and load":
            fit.save(path)
            fit = vi.load(path, model, AutoNormal, optim=optim())
        elif act == "draws":
            torch.manual_seed(99)  # what others draw meanwhile
            fit.sample(3)
        fit.resume(steps=steps)
    np.testing.assert_array_equal(fit.losses, whole.losses)
    for name, value in whole.params.items():
        assert torch.equal(fit.params[name], value), name


@settings(max_examples=5, **QUIET)
@given(interruption=interruptions())
def test_a_run_in_pieces_is_the_run(tmp_path_factory, interruption):
    check_interruption(interruption, tmp_path_factory.getbasetemp() / "pieces")


@pytest.mark.slow
@settings(max_examples=500, **QUIET)
@given(interruption=interruptions())
def test_many_runs_in_pieces_are_the_run(tmp_path_factory, interruption):
    check_interruption(interruption, tmp_path_factory.getbasetemp() / "pieces")
