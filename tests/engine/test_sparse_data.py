"""Sparse data train at every tier that is asked for, as far up as sparse tensors can go."""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import scipy.sparse
from pyro.infer.autoguide import AutoNormal

import vipack


def counts(table):
    rate = pyro.sample("rate", dist.Gamma(1.0, 1.0))
    with pyro.plate("document", table.shape[0]):
        pyro.sample("table", dist.Poisson(rate).expand(table.shape).to_event(1), obs=table.to_dense())


@pytest.mark.parametrize("tier", ["auto", "eager", "traced", "compiled"])
def test_a_sparse_matrix_trains_in_minibatches(tier):
    table = scipy.sparse.random(60, 10, density=0.3, format="csr", random_state=0)
    table.data[:] = 2.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vipack.errors.EngineWarning)  # engine="compiled" says that it cannot
        fit = vipack.fit(counts, AutoNormal, data=table, batch_size=20, steps=300, engine=tier, seed=0)
    assert fit.steps == 300
    assert (fit.engine.tier == "eager") == (tier == "eager")
