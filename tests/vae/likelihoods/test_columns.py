import numpy as np
import pytest
import torch
from torch.nn.functional import softplus

import vipack as vi
from tests.vae.table import COLUMNS, data_of, small_vae
from vipack.errors import DataError, SupportError, UsageError
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


def test_equal_columns_are_computed_together_and_come_back_in_order():
    mixed = {
        "a": Counts(),
        "b": Categories(3),
        "c": Continuous(),
        "d": Categories(3),
        "e": Categories(2),
        "f": Counts(),
    }
    torch.manual_seed(0)
    x = torch.stack([5.0 + torch.poisson(torch.full((500,), 9.0)), *torch.randint(2, (5, 500)).float()], -1)
    x = torch.where(torch.rand(500, 6) < 0.1, torch.nan, x)
    likelihood = MixedColumns(mixed)
    parameters = likelihood.initialize(x)
    assert len(parameters) == 1 + 3 + 1 + 3 + 2 + 1
    draws = likelihood(parameters.expand(4_000, -1)).sample()
    likelihood.check(draws)
    for column in range(6):
        values = x[~x[:, column].isnan(), column]
        se = values.std() / len(values) ** 0.5 + draws[:, column].std() / len(draws) ** 0.5
        assert abs(draws[:, column].mean() - values.mean()) < 4 * se + 0.01


def test_a_reconstruction_has_the_class_that_is_most_probable_over_the_draws():
    columns = {"a": Categories(3), "b": Continuous(), "c": Categories(3), "d": Categories(2)}
    likelihood = MixedColumns(columns)
    h = 3 * torch.randn(11, 7, 9, generator=torch.Generator().manual_seed(0))  # draws, rows, the decoder's numbers
    draws = likelihood(h)
    average = draws.of_expectations(draws.expectations.mean(0))
    shares = {"a": h[..., :3].softmax(-1), "c": h[..., 3:6].softmax(-1), "d": h[..., 7:].softmax(-1)}
    for index, name in enumerate(columns):
        expected = shares[name].mean(0).argmax(-1).float() if name in shares else draws.mean[..., index].mean(0)
        torch.testing.assert_close(average[:, index], expected)


def test_class_columns_of_reconstructions_are_classes():
    vae, x = small_vae("MixedColumns"), data_of("MixedColumns")
    with torch.no_grad():
        vae.decoder.head.weight.mul_(20)  # so that classes change from draw to draw
    fit = vi.fit(vae.model, vae.guide, data=x, steps=0)
    latents = fit.encode(num_draws=30).draws["z"]
    each = torch.stack([fit.decode(z)["x"][:, 2] for z in latents])
    assert (each != each[0]).any()
    likely = fit.reconstruct(num_draws=30)["x"]
    assert set(likely[:, 2].tolist()) <= {0.0, 1.0, 2.0}
    assert not torch.equal(likely[:, 1], likely[:, 1].round())


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
    with pytest.raises(DataError, match="column 'region' has no value that is not missing"):
        likelihood.initialize(torch.tensor([[1.0, 0.0, torch.nan, 4.0]]))


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
