import subprocess
import sys
import warnings

import arviz as az
import matplotlib
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from pyro.infer.autoguide import AutoNormal

import vipack as vi
from tests.export import models
from vipack.errors import UsageError
from vipack.export import to_arviz

matplotlib.use("Agg")


@pytest.fixture(scope="module")
def schools():
    return models.eight_schools().to_arviz(200, seed=3)


def dims(group) -> dict[str, tuple[str, ...]]:
    return {name: variable.dims for name, variable in group.data_vars.items()}


def test_eight_schools_has_every_group_with_dimensions_named_by_the_plate(schools):
    own, each, school = ("chain", "draw"), ("chain", "draw", "school"), ("school",)
    assert {group: dims(schools[group]) for group in schools.groups()} == {
        "posterior": {"mu": own, "tau": own, "eta": each, "theta": each},
        "posterior_predictive": {"obs": each},
        "log_likelihood": {"obs": each},
        "sample_stats": {"lp": own, "log_q": own, "log_weight": own},
        "observed_data": {"obs": school},
        "constant_data": {"sigma": school, "weight": ()},
    }
    assert dict(schools.posterior.sizes) == {"chain": 1, "draw": 200, "school": 8}


def test_posterior_holds_the_draws_of_fit_sample(schools):
    for name, draws in models.eight_schools().sample(200, seed=3).items():
        np.testing.assert_array_equal(schools.posterior[name].values[0], draws.numpy())


def test_predictive_draws_are_those_of_fit_predict(schools):
    predicted = models.eight_schools().predict(200, seed=3)["obs"]
    np.testing.assert_array_equal(schools.posterior_predictive["obs"].values[0], predicted.numpy())


def test_predictive_and_posterior_draws_belong_together(schools):
    residual = (schools.posterior_predictive.obs - schools.posterior.theta) / schools.constant_data.sigma
    count = residual.size
    assert abs(float(residual.std()) - 1) < 4 / np.sqrt(2 * count)


def test_log_likelihood_is_the_density_of_each_observation(schools):
    theta, observed = schools.posterior.theta.values[0], models.Y.numpy()
    expected = scipy.stats.norm(theta, models.SIGMA.numpy()).logpdf(observed)
    np.testing.assert_allclose(schools.log_likelihood.obs.values[0], expected, rtol=1e-5)


def test_sample_stats_are_the_log_densities(schools):
    weights = models.eight_schools().log_weights(200, seed=3).numpy()
    stats = schools.sample_stats
    np.testing.assert_array_equal(stats.log_weight.values[0], weights)
    np.testing.assert_allclose(stats.lp - stats.log_q, stats.log_weight)


def test_lp_is_prior_plus_likelihood(schools):
    p = schools.posterior
    prior = scipy.stats.norm(0, 5).logpdf(p.mu) + scipy.stats.halfcauchy(scale=5).logpdf(p.tau)
    prior = prior + scipy.stats.norm.logpdf(p.eta).sum(-1)
    np.testing.assert_allclose(schools.sample_stats.lp, prior + schools.log_likelihood.obs.sum("school"), rtol=1e-5)


def test_observed_and_constant_data_are_the_arguments(schools):
    np.testing.assert_array_equal(schools.observed_data.obs, models.Y)
    np.testing.assert_array_equal(schools.constant_data.sigma, models.SIGMA)
    assert "y" not in schools.constant_data  # it is observed
    assert "centred" not in schools.constant_data  # a flag is not data


def test_attributes_name_library_and_guide(schools):
    for group in schools.groups():
        assert schools[group].attrs["inference_library"] == "vipack"
        assert schools[group].attrs["guide"] == "AutoNormal"


def test_seed_decides_the_groups():
    fit = models.eight_schools()
    one, two, other = (fit.to_arviz(20, seed=seed) for seed in (1, 1, 2))
    for group in one.groups():
        assert one[group].identical(two[group])
    assert not one.posterior_predictive.equals(other.posterior_predictive)


# --- shapes and kinds of sites


def test_nested_plates_name_their_dimensions_and_placeholders_are_dropped():
    data = models.nested().to_arviz(7)
    lead = ("chain", "draw")
    assert dims(data.posterior) == {
        "mix": (*lead, "mix_dim_0"),
        "level": (*lead, "group"),
        "slope": (*lead, "group", "row", "slope_dim_0"),
        "doubled": (*lead, "group"),
        "tilt": (*lead, "group", "row", "tilt_dim_0"),
    }
    assert dims(data.posterior_predictive) == {"y": (*lead, "group", "row", "y_dim_0")}
    assert dims(data.log_likelihood) == {"y": (*lead, "group", "row")}
    assert dims(data.observed_data) == {"y": ("group", "row", "y_dim_0")}
    assert "constant_data" not in data.groups()


@pytest.mark.parametrize(
    ("dtype", "family"),
    [
        (torch.float32, "bernoulli"),
        (torch.float32, "poisson"),
        (torch.int64, "poisson"),
        (torch.uint8, "categorical"),
        (torch.bool, "categorical"),
    ],
)
def test_whole_numbers_are_integers_observed_and_replicated(dtype, family):
    data = models.counts(dtype, family).to_arviz(10)
    assert data.observed_data.y.dtype == data.posterior_predictive.y.dtype == np.int64
    np.testing.assert_array_equal(data.observed_data.y, [0, 1, 1, 0, 1])
    az.plot_ppc(data, show=False)


def test_enumerated_models_have_no_log_likelihood():
    data = models.enumerated().to_arviz(10)
    assert set(data.groups()) == {"posterior", "posterior_predictive", "sample_stats", "observed_data"}
    assert list(data.posterior) == ["loc", "which"]


def test_enumerated_latents_are_integers_with_their_plates():
    which = models.enumerated().to_arviz(10).posterior.which
    assert which.dims == ("chain", "draw", "row")
    assert which.dtype == np.int64
    assert set(which.values.ravel()) <= {0, 1}


@pytest.mark.parametrize("how", ["obs_mask", "poutine.mask", ".mask"])
def test_masked_observations_are_left_out(how):
    name = "y_observed" if how == "obs_mask" else "y"
    data = models.masked(how).to_arviz(50)
    kept = f"{name}_dim_0"
    assert dims(data.observed_data) == {name: (kept,)}
    np.testing.assert_array_equal(data.observed_data[name], [1, 2, 3])
    np.testing.assert_array_equal(data.observed_data[kept], [0, 2, 3])
    assert dims(data.posterior_predictive) == dims(data.log_likelihood) == {name: ("chain", "draw", kept)}
    expected = scipy.stats.norm(data.posterior.mu, 1).logpdf
    for i, value in enumerate([1, 2, 3]):
        np.testing.assert_allclose(data.log_likelihood[name][..., i], expected(value), rtol=1e-4)
    assert az.loo(data).n_data_points == 3


def test_small_sparse_arguments_are_made_dense():
    data = models.sparse(size=4).to_arviz(5)
    assert dims(data.constant_data) == {"x": ("row", "x_dim_1")}
    np.testing.assert_array_equal(data.constant_data.x, [[1, 0, 0, 0], [0, 2, 0, 0], [3, 0, 0, 0]])


def test_large_sparse_arguments_are_left_out_and_named():
    data = models.sparse(size=4_000_000).to_arviz(5)
    assert "constant_data" not in data.groups()
    assert "x (3, 4000000)" in data.attrs["left_out"]
    assert "posterior_predictive" in data.groups()


def test_names_that_clash_are_kept_apart():
    with pytest.warns(vi.errors.DataWarning) as caught:
        data = models.clashing().to_arviz(5)
    assert [warning.filename for warning in caught] == [__file__]
    for words in ("variable 'chain' is 'chain_site'", "dimension 'draw' is 'draw_dim'", "dimension 'x' is 'x_dim'"):
        assert words in str(caught[0].message)
    lead = ("chain", "draw")
    assert dims(data.posterior) == {"chain_site": lead, "scope.z": (*lead, "draw_dim", "x_dim")}
    assert dims(data.constant_data) == {"x": ("x_dim",)}
    # The observations are one row for both of the plate called draw: each has a density in each.
    assert dims(data.observed_data) == {"obs": ("x_dim",)}
    assert dims(data.log_likelihood) == {"obs": (*lead, "draw_dim", "x_dim")}
    assert dims(data.posterior_predictive) == {"obs": (*lead, "draw_dim", "x_dim")}


def test_more_draws_than_memory_holds_are_refused_before_any_is_made():
    with pytest.raises(UsageError, match=r"num_draws=1000000000: each draw holds 26 numbers.*at most 38,461,538"):
        to_arviz(models.eight_schools().posterior, 1_000_000_000)


# --- ArviZ 0.23 at work


def test_summary_has_a_row_for_every_scalar(schools):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # one chain has no R-hat
        table = az.summary(schools, kind="stats")
    assert list(table.index[:3]) == ["mu", "tau", "eta[0]"]
    assert len(table) == 18
    assert table.loc["mu", "mean"] == pytest.approx(float(schools.posterior.mu.mean()), abs=6e-4)


def test_loo_equals_the_hand_computation_on_a_conjugate_model():
    y = models.conjugate_data()
    exact = 0.0
    for i in range(len(y)):
        mean, sd = models.conjugate_posterior(np.delete(y, i))
        exact += scipy.stats.norm(mean, np.hypot(sd, models.NOISE)).logpdf(y[i])
    found = [az.loo(models.conjugate().to_arviz(1_000, seed=seed)).elpd_loo for seed in range(12)]
    se = np.std(found, ddof=1) / np.sqrt(len(found))
    assert se < 0.05
    assert abs(np.mean(found) - exact) < 4 * se


def test_arviz_plots_run(schools):
    az.plot_ppc(schools, num_pp_samples=5, show=False)
    az.plot_trace(schools, var_names=["mu"], show=False)
    az.plot_posterior(schools, show=False)
    az.plot_forest(schools, var_names=["theta"], show=False)
    matplotlib.pyplot.close("all")


@pytest.mark.filterwarnings("ignore::vipack.errors.DataWarning")  # of names that clash
@pytest.mark.parametrize("make", [models.eight_schools, models.clashing, lambda: models.masked("obs_mask")])
def test_netcdf_round_trip(make, tmp_path):
    data = make().to_arviz(20)
    data.to_netcdf(str(tmp_path / "fit.nc"))
    back = az.from_netcdf(str(tmp_path / "fit.nc"))
    assert back.groups() == data.groups()
    for group in data.groups():
        assert back[group].identical(data[group])


def test_the_adapter_needs_no_torch():
    code = "import sys; sys.modules['torch'] = sys.modules['pyro'] = None; import vipack.export.arviz"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_single_observation_has_no_dimension():
    def one(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    def one_by_one(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        for i in pyro.plate("rows", len(x)):
            pyro.sample(f"x_{i}", dist.Normal(mu, 1.0), obs=x[i])

    single = vi.fit(one, AutoNormal, data=torch.tensor(1.5), steps=5, progress=False).to_arviz(4)
    assert single.observed_data.x.shape == ()
    assert float(single.observed_data.x) == 1.5
    assert single.posterior_predictive.x.shape == single.log_likelihood.x.shape == (1, 4)
    rows = vi.fit(one_by_one, AutoNormal, data=torch.ones(2), steps=5, progress=False).to_arviz(4)
    assert rows.observed_data.x_1.shape == ()
