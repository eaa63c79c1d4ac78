"""Data laid out in columns train as data laid out in rows."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

import vipack as vi

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
Y = X.sum(1) + torch.randn(60, generator=torch.Generator().manual_seed(1))


def model(x, y):
    beta = pyro.sample("beta", dist.Normal(torch.zeros(4), 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(x @ beta, 1.0), obs=y)


@pytest.mark.parametrize("tier", ["traced", "interpreted", pytest.param("compiled", marks=pytest.mark.slow)])
def test_columns_train_as_rows(tier):
    columns = X.t().contiguous().t()
    assert not columns.is_contiguous()
    options = {"steps": 12, "batch_size": 20, "progress": False}
    fit = vi.fit(model, AutoNormal, data=(columns, Y), engine=tier, **options)
    assert fit.engine.tier == tier, fit.engine.reason
    np.testing.assert_allclose(
        fit.losses, vi.fit(model, AutoNormal, data=(X, Y), engine="eager", **options).losses, rtol=1e-5
    )
