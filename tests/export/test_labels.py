"""Names, labels and further groups that a user asks of the export, or that pandas brings."""

import arviz as az
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from pyro.infer.autoguide import AutoNormal

import vipack as vi
from tests.export import models
from vipack.errors import ModelError, TrustWarning, UsageError
from vipack.export.labels import Axis, axes_of
from vipack.types import Judged

PEOPLE = [f"p{i}" for i in range(12)]
FEATURES = ["age", "income", "bmi"]
X = pd.DataFrame(np.random.default_rng(0).normal(size=(12, 3)), index=PEOPLE, columns=FEATURES)
Y = pd.Series(X.to_numpy() @ [1.0, 2.0, 3.0], index=PEOPLE)


def regression(x, y=None):
    with pyro.plate("feature", x.shape[1]):
        beta = pyro.sample("beta", dist.Normal(0.0, 1.0))
    pair = pyro.sample("pair", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("row", len(x)):
        mean = pyro.deterministic("mean", x @ beta + pair.sum())
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def fitted(data, model=regression, **options):
    return vi.fit(model, AutoNormal, data=data, steps=100, progress=False, **options)


@pytest.fixture(scope="module")
def fit():
    return fitted({"x": X, "y": Y})


def labels(group):
    return {str(n): c.values.tolist() for n, c in group.coords.items() if n not in ("chain", "draw")}


# --- labels of pandas


def test_index_and_columns_label_the_plates_that_they_belong_to(fit):
    data = fit.to_arviz(20)
    assert labels(data.posterior) == {"feature": FEATURES, "pair_dim_0": [0, 1], "row": PEOPLE}
    assert labels(data.observed_data) == labels(data.log_likelihood) == {"row": PEOPLE}
    assert data.constant_data.x.dims == ("row", "feature")
    assert float(data.posterior.beta.sel(feature="bmi").mean()) == pytest.approx(
        float(fit.sample(20)["beta"][:, 2].mean()), rel=1e-5
    )
    assert "beta[bmi]" in az.summary(data, var_names=["beta"], kind="stats").index


@pytest.mark.parametrize("data", [(X, Y), {"x": X, "y": Y.to_numpy()}, {"x": X.to_numpy(), "y": Y}])
def test_any_argument_brings_the_labels_of_its_rows(data):
    assert labels(fitted(data).to_arviz(5).observed_data) == {"row": PEOPLE}


def test_a_single_frame_and_fixed_arguments_bring_theirs():
    def model(x, w):
        with pyro.plate("feature", x.shape[1]):
            beta = pyro.sample("beta", dist.Normal(0.0, 1.0))
        with pyro.plate("row", len(x)):
            pyro.sample("obs", dist.Normal(beta @ w, 1.0), obs=x.sum(1))

    own = fitted(X, model, fixed={"w": torch.ones(3)}).to_arviz(5)
    assert labels(own.posterior) == {"feature": FEATURES}
    fixed = fitted(X.to_numpy(), model, fixed={"w": pd.Series([1.0, 2.0, 3.0], FEATURES)}).to_arviz(5)
    assert labels(fixed.posterior) == {"feature": FEATURES}


def test_indexes_that_only_count_disagree_or_repeat_label_nothing():
    counted = [*range(12)]
    plain = fitted({"x": X.reset_index(drop=True), "y": Y.reset_index(drop=True)}).to_arviz(5)
    assert labels(plain.observed_data) == {"row": counted}
    other = fitted({"x": X, "y": Y.set_axis(PEOPLE[::-1])}).to_arviz(5)
    assert labels(other.observed_data) == {"row": counted}
    twice = fitted({"x": X.set_axis(PEOPLE[:6] * 2), "y": Y.to_numpy()}).to_arviz(5)
    assert labels(twice.observed_data) == {"row": counted}


def test_names_of_indexes_name_dimensions_that_no_plate_names():
    def model(y):
        z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        with pyro.plate("row", len(y)):
            pyro.sample("y", dist.Normal(z, 1.0).to_event(1), obs=y)

    data = fitted(X.rename_axis(columns="feature"), model).to_arviz(5, dims={"z": ["feature"]})
    assert data.observed_data.y.dims == ("row", "feature")
    assert data.posterior_predictive.y.dims[2:] == ("row", "feature")
    assert data.log_likelihood.y.dims[2:] == ("row",)
    assert labels(data.posterior) == {"feature": FEATURES}


def test_masked_observations_keep_the_labels_of_their_rows():
    def model(y, seen):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("row", len(y)), pyro.poutine.mask(mask=seen):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    seen = np.arange(12) % 3 > 0
    data = fitted((Y, seen), model).to_arviz(5)
    kept = [name for name, keep in zip(PEOPLE, seen, strict=True) if keep]
    assert labels(data.observed_data) == labels(data.log_likelihood) == {"y_dim_0": kept}
    named = fitted((Y.to_numpy(), seen), model).to_arviz(5, coords={"row": PEOPLE})
    assert labels(named.observed_data) == {"y_dim_0": kept}


@pytest.mark.parametrize(("index", "expected"), [
    (pd.Index(["a", "b"]), ["a", "b"]), (pd.Index([7, 3]), [7, 3]), (pd.CategoricalIndex(["u", "v"]), ["u", "v"]),
    (pd.MultiIndex.from_tuples([("a", 1), ("b", 2)]), ["a, 1", "b, 2"]), (pd.Index([True, False]), ["True", "False"]),
    (pd.period_range("2024-01", periods=2, freq="M"), ["2024-01", "2024-02"]),
    (pd.RangeIndex(2), None), (pd.Index(["a", None]), None),
])  # fmt: skip
def test_labels_are_numbers_dates_or_text(index, expected):
    (axis,) = axes_of(pd.Series([1.0, 2.0], index))
    assert (None if axis.labels is None else axis.labels.tolist()) == expected
    back = Axis.from_plain(axis.plain())
    np.testing.assert_array_equal(back.labels, axis.labels)


def test_dates_stay_dates_through_files(tmp_path):
    days = pd.date_range("2024-03-01", periods=12)
    fit = fitted({"x": X.set_axis(days), "y": Y.set_axis(days)})
    fit.save(tmp_path / "fit")
    for each in (fit, vi.load(tmp_path / "fit", regression, AutoNormal)):
        data = each.to_arviz(5)
        np.testing.assert_array_equal(data.posterior.row.values, days.to_numpy())
        data.to_netcdf(str(tmp_path / "fit.nc"))
        np.testing.assert_array_equal(az.from_netcdf(str(tmp_path / "fit.nc")).posterior.row.values, days.to_numpy())


# --- coords and dims


def test_coords_and_dims_name_and_label_and_go_before_those_of_pandas(fit):
    data = fit.to_arviz(5, dims={"pair": ["side"], "beta": [None]}, coords={"side": ["l", "r"], "row": range(12)})
    assert labels(data.posterior) == {"feature": FEATURES, "side": ["l", "r"], "row": [*range(12)]}
    renamed = fit.to_arviz(5, dims={"y": ["person"], "mean": ["person"]}, coords={"person": torch.arange(12)})
    assert renamed.posterior_predictive.y.dims == ("chain", "draw", "person")
    assert labels(renamed.observed_data) == {"person": [*range(12)]}


def test_dims_of_a_site_in_plates_are_all_of_them_or_those_that_no_plate_names():
    nested = models.nested()
    one = nested.to_arviz(3, dims={"slope": ["side"]})
    both = nested.to_arviz(3, dims={"slope": ["group", "row", "side"]})
    assert one.posterior.slope.dims == both.posterior.slope.dims == ("chain", "draw", "group", "row", "side")


@pytest.mark.parametrize(("asked", "message"), [
    ({"dims": {"gama": ["x"]}}, "no variable 'gama'; there are 'beta'"),
    ({"dims": {"pair": ["a", "b"]}}, r"2 names \['a', 'b'\], but 'pair' has 1 dimensions"),
    ({"dims": {"pair": "side"}}, "expected a list of names, found 'side'"),
    ({"dims": {"pair": ["chain"]}}, "neither 'chain' nor 'draw'"),
    ({"dims": ["side"]}, "dims: expected a dict"),
    ({"coords": {"raw": [1]}}, "no dimension 'raw'; there are 'feature'"),
    ({"coords": {"row": [1, 2]}}, r"'row'\]: found labels of shape \(2,\), expected 12"),
    ({"coords": PEOPLE}, "coords: expected a dict"),
    ({"prior": 0}, "prior: expected a positive integer"),
])  # fmt: skip
def test_what_is_not_there_is_named(fit, asked, message):
    with pytest.raises(UsageError, match=message):
        fit.to_arviz(5, **asked)


# --- predictions and the prior


def test_new_data_give_predictions_with_labels_of_their_own(fit):
    new = X.iloc[:4].set_axis(["n0", "n1", "n2", "n3"])
    data = fit.to_arviz(50, data={"x": new}, seed=2)
    assert labels(data.predictions) == {"row": ["n0", "n1", "n2", "n3"]}
    assert data.predictions_constant_data.x.dims == ("row", "feature")
    np.testing.assert_allclose(data.predictions_constant_data.x, new.to_numpy(), rtol=1e-6)
    expected = fit.predict(50, data={"x": new}, seed=2)
    for name in ("y", "mean"):
        np.testing.assert_array_equal(data.predictions[name].values[0], expected[name].numpy())
    assert labels(data.posterior)["row"] == PEOPLE
    assert labels(fit.to_arviz(5, data={"x": new.to_numpy()}).predictions) == {"row": [0, 1, 2, 3]}


def test_as_many_new_rows_do_not_get_the_labels_of_the_old(fit):
    assert labels(fit.to_arviz(5, data={"x": X.to_numpy()}).predictions)["row"] == [*range(12)]


def test_predictions_say_which_draws_they_are_from():
    def model(x, y=None):
        with pyro.plate("row", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z + x, 1.0), obs=y)

    def guide(x, y=None):
        scale = pyro.param("scale", torch.tensor(0.7))
        with pyro.plate("row", len(x)):
            pyro.sample("z", dist.Normal((0.0 if y is None else y - x) / 2, scale))

    fit = vi.fit(model, guide, data={"x": torch.zeros(5), "y": torch.ones(5)}, steps=1, progress=False)
    fit.posterior.judge(Judged(vi.diagnostics.Verdict.CORRECTED))
    with pytest.warns(TrustWarning, match="not given") as caught:
        data = fit.to_arviz(20, data={"x": torch.zeros(3)})
    assert caught[0].filename == __file__
    assert data.posterior.attrs["resampled"] == 1
    assert data.predictions.attrs["resampled"] == 0
    with pytest.raises(UsageError, match="resample=True"):
        fit.to_arviz(20, data={"x": torch.zeros(3)}, resample=True)


def test_the_prior_is_drawn_from_the_model_alone():
    fit = models.eight_schools()
    data = fit.to_arviz(10, prior=4_000, seed=1)
    assert {n: v.dims[2:] for n, v in data.prior.data_vars.items()} == {
        "mu": (), "tau": (), "eta": ("school",), "theta": ("school",),
    }  # fmt: skip
    assert dict(data.prior.sizes) == {"chain": 1, "draw": 4_000, "school": 8}
    assert scipy.stats.kstest(data.prior.mu.values[0], scipy.stats.norm(0, 5).cdf).pvalue > 1e-4
    assert scipy.stats.kstest(data.prior.tau.values[0], scipy.stats.halfcauchy(scale=5).cdf).pvalue > 1e-4
    computed = data.prior.mu + data.prior.tau * data.prior.eta
    np.testing.assert_allclose(data.prior.theta, computed, rtol=1e-3, atol=1e-3)
    noise = (data.prior_predictive.obs - data.prior.theta) / models.SIGMA.numpy()
    assert abs(float(noise.median())) < 0.02
    assert data.prior.attrs["draws"] == "draws of the prior"
    assert data.prior.identical(fit.to_arviz(10, prior=4_000, seed=1).prior)


def test_as_many_draws_of_the_prior_as_of_the_posterior_by_default(fit):
    assert fit.to_arviz(7, prior=True).prior.sizes["draw"] == 7
    assert {"prior", "predictions"}.isdisjoint(fit.to_arviz(7).groups())


def test_whole_numbers_and_masks_are_in_the_prior_predictive_as_elsewhere():
    counts = models.counts(torch.float32, "poisson").to_arviz(5, prior=True)
    assert counts.prior_predictive.y.dtype == np.int64
    masked = models.masked("obs_mask").to_arviz(5, prior=True)
    assert masked.prior_predictive.y_observed.sizes["y_observed_dim_0"] == 3
    summed_out = models.enumerated().to_arviz(5, prior=True)
    assert summed_out.prior.which.dtype == np.int64


def test_an_improper_prior_is_named():
    def model(x):
        mu = pyro.sample("mu", dist.ImproperUniform(dist.constraints.real, (), ()))
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    fit = vi.fit(model, AutoNormal, data=torch.tensor(1.0), steps=1, progress=False)
    with pytest.raises(ModelError, match="'mu' has an improper prior"):
        fit.to_arviz(5, prior=True)


def test_the_arviz_plots_of_these_groups_run(fit):
    import matplotlib

    matplotlib.use("Agg")
    data = fit.to_arviz(50, prior=True, data={"x": X.iloc[:4]})
    az.plot_ppc(data, group="prior", num_pp_samples=5, show=False)
    az.plot_dist_comparison(data, var_names=["beta"])
    matplotlib.pyplot.close("all")
