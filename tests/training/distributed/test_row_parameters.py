"""Parameters of rows are told from others by what batches move."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoNormal

from tests.training.distributed.programs import CASES, N
from vipack.training.distributed.row_parameters import parameters_of_rows
from vipack.training.prepare import Problem, prepare


def of_rows(model, guide, data, batch_size=40):
    prepared = prepare(Problem(model, data, batch_size=batch_size), guide, seed=0, loss=Trace_ELBO())
    before = prepared.program.parameters.digest()
    known = parameters_of_rows(prepared.program, Trace_ELBO(), prepared.rows, batch_size, 0)
    assert prepared.program.parameters.digest() == before
    assert all(value.grad is None for value in prepared.program.parameters.tensors())
    return known


def test_those_of_an_automatic_guide_and_of_a_guide_by_hand():
    hierarchical, topics = CASES["hierarchical"], CASES["topics"]
    assert of_rows(hierarchical.model, hierarchical.guide, hierarchical.data) == {
        "AutoNormal.locs.theta": 0,
        "AutoNormal.scales.theta": 0,
    }
    assert of_rows(topics.model, topics.guide, topics.data) == {"document_loc": 0, "document_log_scale": 0}


def test_parameters_that_all_rows_share_are_none_however_many_they_are():
    columns = torch.randn(N, N, generator=torch.Generator().manual_seed(0))

    def as_many_as_rows(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([N]).to_event(1))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(x @ w, 1.0), obs=x[:, 0])

    assert of_rows(as_many_as_rows, AutoNormal, columns) == {}


def test_rows_that_look_at_each_other_are_none():
    def smoothed(y):
        with pyro.plate("rows", N, subsample_size=len(y)):
            theta = pyro.sample("theta", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(theta, 1.0), obs=y)

    def guide(y):
        loc = pyro.param("loc", lambda: torch.zeros(N))
        level = loc - loc.mean()
        with pyro.plate("rows", N, subsample_size=len(y)) as rows:
            pyro.sample("theta", dist.Normal(level[rows], 1.0))

    assert of_rows(smoothed, guide, torch.randn(N, generator=torch.Generator().manual_seed(1))) == {}
