"""What a fit gives back: draws, predictions, figures, and a guide that works in plain Pyro."""

import copy
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoLaplaceApproximation, AutoMultivariateNormal, AutoNormal
from scipy import stats

import vipack as vi
from tests.training.programs import RECIPES, TABLE, X, local, normal

N = 25
XS = torch.linspace(-1, 1, N)
YS = 1.0 + 2.0 * XS + 0.3 * torch.randn(N, generator=torch.Generator().manual_seed(2))


def line(x, y=None):
    a = pyro.sample("a", dist.Normal(0.0, 5.0))
    b = pyro.sample("b", dist.Normal(torch.zeros(1), 5.0).to_event(1))
    mean = pyro.deterministic("mean", a + b[..., 0] * x)
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(mean, 0.3), obs=y)


@pytest.fixture(scope="module")
def fitted():
    return vi.fit(line, AutoMultivariateNormal, data=(XS, YS), steps=600)


# --- draws


def test_draws_have_the_shapes_of_their_sites(fitted):
    draws = fitted.sample(7)
    assert {name: tuple(value.shape) for name, value in draws.items()} == {"a": (7,), "b": (7, 1), "mean": (7, N)}
    torch.testing.assert_close(draws["mean"], draws["a"][:, None] + draws["b"] * XS)
    assert not any(value.requires_grad for value in draws.values())


def test_a_seed_gives_the_same_draws_and_another_seed_others(fitted):
    assert torch.equal(fitted.sample(5)["a"], fitted.sample(5)["a"])
    assert not torch.equal(fitted.sample(5)["a"], fitted.sample(5, seed=1)["a"])
    assert torch.equal(fitted.log_weights(5, seed=3), fitted.log_weights(5, seed=3))


def test_the_posterior_follows_the_fit_as_it_goes_on():
    fit = vi.fit(normal, AutoNormal, data=X, steps=1)
    before = fit.sample(5)["mu"]
    fit.resume(steps=20)
    assert not torch.equal(fit.sample(5)["mu"], before)


@pytest.mark.parametrize("name", ["sample", "predict", "elbo", "log_weights", "diagnose", "to_arviz", "summary"])
@pytest.mark.parametrize("number", [0, -1, 2.5, True, "many"])
def test_a_number_of_draws_must_be_a_positive_integer(fitted, name, number):
    with pytest.raises(vi.errors.UsageError, match="num_draws: expected a positive integer"):
        getattr(fitted, name)(number)


# --- draws by weight


def beta_model(x):
    p = pyro.sample("p", dist.Beta(1.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Bernoulli(p), obs=x)


def beta_off(x):
    pyro.sample("p", dist.Beta(4.0, 4.0))


def test_resampling_by_weight_mends_a_guide_that_is_off():
    """Posterior Beta(9, 3), guide Beta(4, 4); the weights' own sum to a few hundred draws in effect."""
    fit = vi.fit(beta_model, beta_off, data=torch.tensor([1.0] * 8 + [0.0] * 2), steps=0)
    truth = stats.beta(9, 3)
    raw, mended = (fit.sample(20_000, resample=resample)["p"].double() for resample in (False, True))
    assert float(raw.mean()) == pytest.approx(0.5, abs=0.01)
    ess = fit.diagnose(80_000).ess
    assert float(mended.mean()) == pytest.approx(truth.mean(), abs=5 * truth.std() / math.sqrt(min(ess, 20_000)))
    assert float(mended.std()) == pytest.approx(truth.std(), rel=0.05)


ROWS = 6
OBSERVED = torch.linspace(-2, 2, ROWS)


def rows_model(x):
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        total = pyro.deterministic("total", z.sum(-1), event_dim=0)
        pyro.sample("x", dist.Normal(total, 0.5), obs=x)


def rows_off(x):
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal(0.3 * x[:, None].expand(-1, 2), 0.9).to_event(1))


def test_resampling_is_row_by_row_where_latents_belong_to_rows():
    """z | x is Normal with mean .4 x/.9 and known covariance; joint weights of the rows would repeat a few draws."""
    fit = vi.fit(rows_model, rows_off, data=OBSERVED, steps=0)
    precision = np.eye(2) + np.ones((2, 2)) / 0.25
    cov = np.linalg.inv(precision)
    mean = (cov @ np.ones(2) / 0.25)[:, None] * OBSERVED.numpy()
    draws = fit.sample(8_000, resample=True)
    z = draws["z"].double().numpy()
    assert z.shape == (8_000, ROWS, 2)
    np.testing.assert_allclose(z.mean(0), mean.T, atol=0.06)
    np.testing.assert_allclose(z.std(0), np.sqrt(cov[0, 0]), rtol=0.06)
    for row in range(ROWS):
        assert np.corrcoef(z[:, row].T)[0, 1] == pytest.approx(cov[0, 1] / cov[0, 0], abs=0.05)
    assert len(np.unique(z[:, 0, 0])) > 3_000
    torch.testing.assert_close(draws["total"], draws["z"].sum(-1))  # deterministic sites belong to the new draws


# --- predictions


def test_predictions_of_the_fits_own_data(fitted):
    predicted = fitted.predict(4_000)
    assert {name: tuple(value.shape) for name, value in predicted.items()} == {"y": (4_000, N), "mean": (4_000, N)}
    residual = predicted["y"] - predicted["mean"]
    assert float(residual.mean()) == pytest.approx(0.0, abs=0.005)
    assert float(residual.std()) == pytest.approx(0.3, rel=0.02)
    assert float((predicted["y"].mean(0) - YS).abs().max()) < 1.0


def test_predictions_of_new_data(fitted):
    new = torch.tensor([5.0, -5.0, 0.0])
    predicted = fitted.predict(4_000, data=new)
    assert predicted["y"].shape == (4_000, 3)
    draws = fitted.sample(4_000)
    expected = draws["a"][:, None] + draws["b"] * new
    torch.testing.assert_close(predicted["mean"], expected)
    assert torch.equal(fitted.predict(5, data={"x": new})["y"], fitted.predict(5, data=(new,))["y"])
    assert torch.equal(fitted.predict(5, data=new.numpy())["y"], fitted.predict(5, data=new)["y"])


def test_predictions_draw_the_observed_site_even_if_it_is_passed(fitted):
    predicted = fitted.predict(50, data=(XS, YS))
    assert float(predicted["y"].std(0).min()) > 0.1


def test_predictions_with_new_fixed_arguments():
    def model(x, noise, y=None):
        a = pyro.sample("a", dist.Normal(0.0, 5.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(a * x, noise), obs=y)

    fit = vi.fit(model, AutoNormal, data={"x": XS, "y": YS}, fixed={"noise": 0.3}, steps=300)
    own, louder = (fit.predict(3_000, data={"x": XS}, fixed=fixed)["y"] for fixed in (None, {"noise": 30.0}))
    assert float(own.std()) < 3.0
    assert float(louder.std()) == pytest.approx(30.0, rel=0.05)


def test_local_latents_cannot_be_predicted_for_other_rows():
    fit = vi.fit(local, AutoNormal, data=X, steps=5)
    assert fit.predict(3, data=X)["x"].shape == (3, len(X))
    with pytest.raises(vi.errors.ShapeError, match=r"'z'.*does not fit the new data.*amortised"):
        fit.predict(3, data=X[:4])


def test_an_amortised_guide_predicts_for_other_rows():
    fit = vi.fit(**RECIPES["VAE"], steps=5)
    assert fit.predict(3, data=TABLE[:7])["x"].shape == (3, 7, 4)
    assert fit.predict(3, data=torch.cat([TABLE, TABLE]))["x"].shape == (3, 60, 4)


def test_new_data_of_the_wrong_kind_are_named(fitted):
    with pytest.raises(vi.errors.SignatureError, match="the model takes"):
        fitted.predict(3, data={"z": XS})


# --- figures


def test_elbo_is_the_mean_of_the_log_weights_with_its_standard_error(fitted):
    weights, elbo = fitted.log_weights(500), fitted.elbo(500)
    assert weights.shape == (500,)
    assert weights.dtype == torch.float64
    assert elbo.value == pytest.approx(float(weights.mean()))
    assert elbo.se == pytest.approx(float(weights.std()) / math.sqrt(500))
    assert float(elbo) == elbo.value
    assert str(elbo) == f"{elbo.value:.2f} ± {elbo.se:.2f}"


def test_the_loss_estimates_minus_the_elbo(fitted):
    assert -fitted.losses[-100:].mean() == pytest.approx(fitted.elbo(2_000).value, abs=0.5)


def test_the_summary_has_a_row_for_each_element(fitted):
    table = fitted.summary(3_000)
    assert list(table.columns) == ["mean", "sd", "5%", "50%", "95%"]
    assert list(table.index[:3]) == ["a", "b[0]", "mean[0]"]
    assert len(table) == 2 + N
    draws = fitted.sample(3_000)["a"].double().numpy()
    np.testing.assert_allclose(
        table.loc["a"], [draws.mean(), draws.std(ddof=1), *np.quantile(draws, [0.05, 0.5, 0.95])]
    )


def test_a_summary_of_many_elements_is_not_too_large():
    def wide(x):
        with pyro.plate("rows", 5_000):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z.mean(), 1.0), obs=x)

    fit = vi.fit(wide, AutoNormal, data=torch.tensor(1.0), steps=1)
    table = fit.summary(4_000)  # torch.quantile takes at most 16 million numbers
    assert len(table) == 5_000
    assert (table["5%"] < table["50%"]).all()


def test_repr_tells_guide_steps_loss_and_reason(fitted):
    text = repr(fitted)
    assert text.startswith("Fit(FittedGuide(AutoMultivariateNormal), 600 steps, loss ")
    assert text.endswith("steps used up: 600 steps)")
    assert "loss" not in repr(vi.fit(normal, AutoNormal, data=X, steps=0))


def test_parameters_are_copies_in_their_own_space(fitted):
    scale = fitted.params["AutoMultivariateNormal.scale"]
    assert (scale > 0).all()
    scale.zero_()
    assert (fitted.params["AutoMultivariateNormal.scale"] > 0).all()


def test_the_check_and_the_engine_are_reported(fitted):
    assert fitted.check.ok
    assert "AutoMultivariateNormal.loc" in fitted.check.parameters
    assert fitted.engine.tier in ("traced", "interpreted", "compiled")
    assert sum(fitted.engine.steps.values()) == 600
    assert str(fitted.engine).startswith(f"{fitted.engine.tier} (1 eager, ")


# --- the guide in plain Pyro


def test_the_guide_draws_from_the_posterior_in_predictive(fitted):
    pyro.set_rng_seed(0)
    draws = Predictive(line, guide=fitted.guide, num_samples=500, return_sites=("a", "b", "y"))(XS)
    own = fitted.sample(2_000)
    assert float(draws["a"].mean()) == pytest.approx(float(own["a"].mean()), abs=5 * 0.06 / math.sqrt(500))
    assert float(draws["b"].mean()) == pytest.approx(float(own["b"].mean()), abs=5 * 0.11 / math.sqrt(500))
    assert draws["y"].shape[0] == 500


@pytest.mark.parametrize("name", ["AutoNormal", "by hand from 1", "VAE in batches", "local latents", "float64"])
def test_the_guide_reads_and_leaves_nothing_in_the_global_store(name):
    recipe = RECIPES[name]
    fit = vi.fit(**recipe, steps=5)
    data = recipe["data"].double() if name == "float64" else recipe["data"]
    for key in fit.params:  # what a fit before this one may have left there
        pyro.get_param_store()._params[key] = torch.full((1,), math.nan)
    store = {key: value.clone() for key, value in pyro.get_param_store()._params.items()}
    trace = poutine.trace(fit.guide).get_trace(data)
    trace.compute_log_prob()
    assert trace.log_prob_sum().isfinite()
    latents = {s.name for s in fit.check.table.of_kind("latent")}
    assert latents <= set(trace.nodes)
    assert pyro.get_param_store()._params.keys() == store.keys()
    assert all(bool(value.isnan().all()) for value in pyro.get_param_store()._params.values())


def test_the_guide_replays_the_model(fitted):
    trace = poutine.trace(fitted.guide).get_trace(XS, YS)
    replayed = poutine.trace(poutine.replay(line, trace=trace)).get_trace(XS, YS)
    assert torch.equal(replayed.nodes["a"]["value"], trace.nodes["a"]["value"])
    weight = replayed.log_prob_sum() - trace.log_prob_sum()
    assert abs(float(weight.detach()) - fitted.elbo().value) < 10


def test_the_guide_can_be_evaluated_by_pyros_own_elbo(fitted):
    pyro.set_rng_seed(0)
    losses = torch.tensor([Trace_ELBO().loss(line, fitted.guide, XS, YS) for _ in range(200)])
    elbo = fitted.elbo(4_000)
    assert float(-losses.mean()) == pytest.approx(
        elbo.value, abs=4 * float(losses.std()) / math.sqrt(200) + 4 * elbo.se
    )


@pytest.mark.parametrize("guide", [AutoNormal, AutoMultivariateNormal], ids=lambda guide: guide.__name__)
def test_methods_of_automatic_guides_work(guide):
    fit = vi.fit(line, guide, data=(XS, YS), steps=400)
    median, quantiles = fit.guide.median(XS, YS), fit.guide.quantiles([0.05, 0.95], XS, YS)
    table = fit.summary(20_000)
    assert float(median["a"]) == pytest.approx(table.loc["a", "50%"], abs=0.01)
    assert [float(q) for q in quantiles["a"]] == pytest.approx(list(table.loc["a", ["5%", "95%"]]), abs=0.01)
    assert not dict(pyro.get_param_store().items())


def test_attributes_of_automatic_guides_are_there(fitted):
    assert fitted.guide.loc.shape == (2,)
    assert fitted.guide.latent_dim == 2
    assert repr(fitted.guide) == "FittedGuide(AutoMultivariateNormal)"
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = fitted.guide.no_such_thing


def test_the_point_of_a_point_guide_is_its_median():
    fit = vi.fit(line, AutoDelta, data=(XS, YS), steps=400)
    torch.testing.assert_close(fit.guide.median()["a"], fit.params["AutoDelta.a"])


def test_a_laplace_approximation_can_be_asked_for():
    fit = vi.fit(line, AutoLaplaceApproximation, data=(XS, YS), steps=800)
    laplace = fit.guide.laplace_approximation(XS, YS)
    assert laplace.loc.shape == (2,)


def test_parameters_can_be_taken_to_pyros_store():
    """After to_pyro, plain Pyro goes on from where the fit is."""
    recipe = RECIPES["by hand from 1"]
    fit = vi.fit(**recipe, steps=30)
    fit.to_pyro()
    for name, value in fit.params.items():
        torch.testing.assert_close(pyro.param(name).detach(), value)
    svi = SVI(recipe["model"], recipe["guide"], pyro.optim.Adam({"lr": 1e-9}), Trace_ELBO(num_particles=200))
    weights = fit.log_weights(4_000)
    assert -svi.step(X) == pytest.approx(float(weights.mean()), abs=5 * float(weights.std()) / math.sqrt(200))
    before = fit.params["loc"].clone()
    pyro.param("loc").data.fill_(99.0)
    assert torch.equal(fit.params["loc"], before)


def test_modules_get_their_weights_when_taken_to_pyro():
    recipe = RECIPES["VAE"]
    encoder = recipe["guide"].__self__.encoder
    before = encoder.weight.detach().clone()
    fit = vi.fit(**recipe, steps=5)
    assert torch.equal(encoder.weight, before)
    try:
        fit.to_pyro()
        assert torch.equal(encoder.weight.detach(), fit.params["encoder$$$weight"])
        assert not torch.equal(encoder.weight, before)
    finally:
        with torch.no_grad():
            encoder.weight.copy_(before)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_of_the_guide_is_one(copied):
    """A deep copy stands still when the fit goes on."""
    fit = vi.fit(line, AutoNormal, data=(XS, YS), steps=40, engine="eager")
    guide, before = copied(fit.guide), fit.guide.median(XS, YS)
    fit.resume(100)
    after = fit.guide.median(XS, YS)
    assert float(after["a"]) != float(before["a"])
    expected = before if copied is copy.deepcopy else after
    assert float(guide.median(XS, YS)["a"]) == float(expected["a"])
    assert repr(guide) == repr(fit.guide)
