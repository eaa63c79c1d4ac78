import numpy as np
import pytest
import torch
from torch.nn.functional import softplus

import vipack as vi
from tests.vae.table import COLUMNS, data_of, small_vae
from vipack.errors import SupportError, UsageError
from vipack.vae.likelihoods import Binary, Categories, Continuous, Counts, MixedColumns


def test_density_is_the_sum_over_the_entries_that_are_there():
    likelihood = MixedColumns(COLUMNS)
    h = torch.randn(1, 6)
    normal, own = torch.distributions.Normal, softplus(torch.tensor(0.5413)) + 1e-3
    terms = [
        normal(h[0, 0], own).log_prob(torch.tensor(0.4)),
        torch.distributions.Bernoulli(logits=h[0, 1]).log_prob(torch.tensor(1.0)),
        h[0, 2:5].log_softmax(-1)[2],
        torch.distributions.NegativeBinomial(torch.tensor(0.5413).exp(), logits=h[0, 5] - 0.5413).log_prob(
            torch.tensor(7.0)
        ),
    ]
    x = torch.tensor([[0.4, 1.0, 2.0, 7.0]])
    torch.testing.assert_close(likelihood(h).log_prob(x), torch.stack(terms).sum()[None])
    for missing in range(4):
        partly = x.clone()
        partly[0, missing] = torch.nan
        expected = sum(term for index, term in enumerate(terms) if index != missing)
        torch.testing.assert_close(likelihood(h).log_prob(partly), expected[None])
    assert likelihood(h).log_prob(torch.full((1, 4), torch.nan)) == 0


def test_missing_entries_have_no_gradient():
    likelihood = MixedColumns(COLUMNS)
    h = torch.randn(1, 6, requires_grad=True)
    likelihood(h).log_prob(torch.tensor([[torch.nan, 1.0, torch.nan, 3.0]])).sum().backward()
    assert h.grad[0, [0, 2, 3, 4]].tolist() == [0, 0, 0, 0]
    assert (h.grad[0, [1, 5]] != 0).all()


def test_the_encoder_is_told_what_is_missing():
    likelihood = MixedColumns(COLUMNS)
    features = likelihood.features(torch.tensor([[torch.nan, 0.0, torch.nan, 0.0], [0.0, 0.0, 1.0, torch.nan]]))
    assert features.shape == (2, 10)
    assert features[0, 6:].tolist() == [0, 1, 0, 1]
    assert features[0, 2:5].tolist() == [0, 0, 0]
    assert features[1, 2:5].tolist() == [0, 1, 0]


def test_a_value_that_its_column_cannot_have_names_the_column():
    likelihood = MixedColumns(COLUMNS)
    good = [1.0, 0.0, 2.0, 4.0]
    for index, bad, message in (
        (0, torch.inf, "column 'height' .* finite numbers or NaN"),
        (1, 2.0, "column 'member' .* 0 or 1 or NaN"),
        (2, 3.0, "column 'region' .* whole numbers from 0 to 2"),
        (3, 0.5, "column 'visits' .* whole counts"),
    ):
        row = list(good)
        row[index] = bad
        with pytest.raises(SupportError, match=rf"site 'x': {message}"):
            likelihood.check(torch.tensor([good, row]))
    with pytest.raises(SupportError, match=r"column 'region' .* has no value"):
        likelihood.check(torch.tensor([[1.0, 0.0, torch.nan, 4.0]]))


def test_a_fit_learns_from_incomplete_rows():
    vae, x = small_vae("MixedColumns"), data_of("MixedColumns")
    assert x.isnan().any()
    fit = vi.fit(vae.model, vae.guide, data=x, steps=60, engine="traced")
    assert np.isfinite(fit.losses).all()
    assert np.mean(fit.losses[-10:]) < np.mean(fit.losses[:10])
    draws = fit.predict(3)["x"]
    assert draws.shape == (3, *x.shape)
    assert not draws.isnan().any()


def test_columns_must_be_columns():
    with pytest.raises(UsageError, match="expected a dict from names to Continuous"):
        MixedColumns({"a": "binary"})
    with pytest.raises(UsageError, match="found no columns"):
        MixedColumns({})
    with pytest.raises(UsageError, match="num_classes must be at least 2"):
        Categories(1)
    assert MixedColumns({"a": Continuous(), "b": Binary(), "c": Counts()}).parameter_shape == (3,)
