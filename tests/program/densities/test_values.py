"""Observed values outside a support are shown themselves, with where they are and the cure that fits; latents may bear an argument's name."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

import vipack as vi
from vipack.errors import DataError, DataWarning, SiteError, SupportError

BITS = torch.rand(20, 6, generator=torch.Generator().manual_seed(0)).round()
GREY = torch.rand(20, 6, generator=torch.Generator().manual_seed(1))
GREY[:, :3] = 0.0  # the first values of a row are right
BYTES = (GREY * 255).round()


def with_one(value):
    data = BITS.clone()
    data[3, 5] = value
    return data


def bernoulli(x):
    return dist.Bernoulli(torch.full(x.shape, 0.5)).to_event(x.dim() - 1)


def classes(x):
    return dist.Categorical(torch.ones(len(x), 3))


OUTSIDE = [
    (bernoulli, with_one(7.0), ("[7] (1 of 120, the first at index [3, 5])", "from 0 to 7")),
    (bernoulli, GREY, ("(60 of 120, the first at index [0, 3])", "grey levels from 0 to 1", "x.bernoulli()", "ContinuousBernoulli")),
    (bernoulli, BYTES, ("pixels from 0 to 255", "x = x / 255", "x.bernoulli()")),
    (bernoulli, BYTES.byte(), ("pixels from 0 to 255", "x = x / 255")),
    (bernoulli, (GREY * 16).round(), ("pixels from 0 to 16", "x / 16")),
    (bernoulli, 2 * GREY - 1, ("(x + 1) / 2",)),
    (bernoulli, 2 * BITS - 1, ("[-1]", "(y > 0).float()")),
    (bernoulli, BITS[:, 0] + 1, ("[2]", "subtract 1")),
    (lambda x: dist.ContinuousBernoulli(torch.full(x.shape, 0.5)).to_event(1), BYTES, ("pass x / 255",)),
    (classes, torch.tensor([1, 2, 3] * 5), ("[3] (5 of 15, the first at index [2])", "numbered from 0: subtract 1")),
    (classes, torch.tensor([0, 2, 7] * 5), ("[7]", "whole numbers from 0 to 2")),
    (lambda x: dist.Poisson(torch.ones(x.shape)).to_event(1), GREY, ("whole numbers alone", "raw counts")),
    (lambda x: dist.Binomial(5, torch.full(x.shape, 0.5)).to_event(1), with_one(9.0), ("[9]", "from 0 to 5")),
    (lambda x: dist.LogNormal(torch.zeros(x.shape), 1.0).to_event(1), GREY, ("[0] (60 of 120", "correct the data")),
    (lambda x: dist.Dirichlet(torch.ones(x.shape)), GREY, ("(120 of 120", "Simplex")),
]  # fmt: skip


def checked(likelihood, data, mask=None):
    def model(x):
        with pyro.plate("rows", len(x)):
            fn = likelihood(x) if mask is None else likelihood(x).mask(mask)
            pyro.sample("x", fn, obs=x)

    return vi.check(model, lambda x: None, data=data).errors


@pytest.mark.parametrize(("likelihood", "data", "words"), OUTSIDE)
def test_what_is_outside_is_shown_with_its_cure(likelihood, data, words):
    (error,) = checked(likelihood, data)
    assert isinstance(error, SupportError)
    assert [word for word in words if word not in str(error)] == []
    assert "tensor([" not in str(error)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("data", [BITS, GREY])
def test_missing_pixels_are_named_as_such(value, data):
    data = data.clone()
    data[7, 4] = value
    (error,) = checked(bernoulli, data)
    assert isinstance(error, DataError)
    assert "argument 'x' has 1 NaN or infinite value(s)" in str(error)


def test_what_a_mask_leaves_out_does_not_decide_the_cure():
    data = torch.cat([2 * BITS[:, 0] - 1, torch.tensor([-99.0])])
    (error,) = checked(bernoulli, data, mask=data > -99)
    assert "(y > 0).float()" in str(error)


def test_a_latent_of_the_guide_may_have_the_name_of_an_argument():
    """As labels that are given for some batches only."""

    def model(x, y, known=False):
        with pyro.plate("rows", len(x)):
            label = pyro.sample("y", dist.Normal(0.0, 1.0), obs=y if known else None)
            pyro.sample("x", dist.Normal(label[:, None], 1.0).expand([len(x), 6]).to_event(1), obs=x)

    def guide(x, y, known=False):
        with pyro.plate("rows", len(x)):
            if not known:
                pyro.sample("y", dist.Normal(x.mean(1) + pyro.param("offset", torch.tensor(0.0)), 1.0))

    data = {"x": GREY, "y": GREY[:, 3]}
    assert vi.check(model, guide, data=data).errors == ()
    with pytest.warns(DataWarning, match="'y' changes nothing"):
        assert vi.fit(model, guide, data=data, steps=3, progress=False).steps == 3
    assert vi.fit(model, lambda *_, **__: None, data=data, fixed={"known": True}, steps=0).steps == 0


@pytest.mark.parametrize("guide", [AutoNormal, lambda x, y: None])
def test_one_that_no_guide_was_written_for_is_a_forgotten_obs(guide):
    def model(x, y):
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(slope, 1.0), obs=x)
            pyro.sample("y", dist.Normal(slope * x, 1.0))

    error = vi.check(model, guide, data=(GREY[:, 3], GREY[:, 4])).errors[0]
    assert isinstance(error, SiteError)
    assert "did you forget obs=y" in str(error)
