"""After a verdict every answer uses the draws that it certifies, the same ones everywhere, and says which they are."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Predictive
from scipy import stats

import vipack as vi
from vipack import plots
from vipack.diagnostics import disagreement, loo, predictive_pvalues
from vipack.types import Judged, Verdict

OBSERVED = torch.tensor([1.0] * 8 + [0.0] * 2)
TRUTH = stats.beta(9, 3)  # of p, whose guide has a mean of .625 where .75 is right
COUNT = 4_000


def model(x=None, size=10):
    p = pyro.sample("p", dist.Beta(1.0, 1.0))
    pyro.deterministic("odds", p / (1 - p))
    with pyro.plate("rows", size if x is None else len(x)):
        return pyro.sample("x", dist.Bernoulli(p), obs=x)


def guide(x=None, size=10):
    a = pyro.param("a", torch.tensor(5.0), constraint=dist.constraints.positive)
    pyro.sample("p", dist.Beta(a, 3.0))


def exact(x=None, size=10):
    pyro.sample("p", dist.Beta(9.0, 3.0))


def far(x=None, size=10):
    pyro.sample("p", dist.Beta(5.0, 200.0))


def fitted(program=guide, data=OBSERVED):
    return vi.fit(model, program, data=data, steps=0)


@pytest.fixture(scope="module")
def judged():
    fit = fitted()
    assert fit.diagnose().verdict is Verdict.CORRECTED
    return fit


def near(value, tolerance=0.02):
    return pytest.approx(value, abs=tolerance)


RAW, RIGHT = 0.625, 0.75


# --- one rule


def test_a_fit_that_was_not_judged_shows_the_guides_draws_and_says_so():
    fit = fitted()
    assert fit.verdict is None
    assert float(fit.sample(COUNT)["p"].mean()) == near(RAW)
    assert torch.equal(fit.sample(50)["p"], fit.posterior.draws(50).latents["p"])
    assert fit.summary(100).attrs["draws"] == "draws of the guide; not judged: run fit.diagnose()"
    assert "not judged" in repr(fit)


MEANS = {
    "sample": lambda fit, **how: fit.sample(COUNT, **how)["p"].mean(),
    "deterministic": lambda fit, **how: (
        fit.sample(COUNT, **how)["odds"] / (1 + fit.sample(COUNT, **how)["odds"])
    ).mean(),
    "predict": lambda fit, **how: fit.predict(COUNT, **how)["x"].mean(),
    "predict for new data": lambda fit, **how: fit.predict(COUNT, data=(), fixed={"size": 4}, **how)["x"].mean(),
    "summary": lambda fit, **how: fit.summary(COUNT, **how).loc["p", "mean"],
    "arviz posterior": lambda fit, **how: fit.to_arviz(COUNT, **how).posterior["p"].values.mean(),
    "arviz predictive": lambda fit, **how: fit.to_arviz(COUNT, **how).posterior_predictive["x"].values.mean(),
    "arviz log likelihood": lambda fit, **how: np.exp(
        fit.to_arviz(COUNT, **how).log_likelihood["x"].values[0, :, 0]
    ).mean(),
    "predictive p-values": lambda fit, **how: predictive_pvalues(fit, num_draws=COUNT, **how).loc[
        ("x", "mean"), "predicted"
    ],
    "plot of marginals": lambda fit, **how: plotted_mean(plots.posterior(fit, num_draws=COUNT, **how)[0]),
    "plot of predictions": lambda fit, **how: plots.predictive(fit, num_draws=COUNT, **how)[0].lines[0].get_ydata()[1],
    "the posterior alone": lambda fit, **how: plotted_mean(plots.posterior(fit.posterior, num_draws=COUNT, **how)[0]),
}


def plotted_mean(ax):
    (point,) = [line for line in ax.lines if line.get_label() == "mean"]
    return point.get_xdata()[0]


@pytest.mark.parametrize("name", MEANS)
def test_after_corrected_every_answer_is_of_resampled_draws_and_of_raw_ones_on_request(name, judged):
    assert float(MEANS[name](judged)) == near(RIGHT)
    assert float(MEANS[name](judged, resample=True)) == float(MEANS[name](judged))
    assert float(MEANS[name](judged, resample=False)) == near(RAW)
    assert float(MEANS[name](fitted())) == near(RAW)
    assert float(MEANS[name](fitted(), resample=True)) == near(RIGHT)


def test_all_answers_are_of_the_same_draws(judged):
    draws = judged.sample(200, seed=3)
    data = judged.to_arviz(200, seed=3)
    np.testing.assert_array_equal(data.posterior["p"].values[0], draws["p"].numpy())
    np.testing.assert_array_equal(data.posterior["odds"].values[0], draws["odds"].numpy())
    assert judged.summary(200, seed=3).loc["p", "mean"] == pytest.approx(float(draws["p"].double().mean()))
    log_p = dist.Bernoulli(draws["p"][:, None]).log_prob(OBSERVED)
    np.testing.assert_allclose(data.log_likelihood["x"].values[0], log_p, rtol=1e-4)
    np.testing.assert_allclose(data.sample_stats["lp"].values[0], log_p.sum(1), rtol=1e-4)
    np.testing.assert_allclose(
        data.sample_stats["log_q"].values[0], dist.Beta(5.0, 3.0).log_prob(draws["p"]), rtol=1e-3, atol=1e-4
    )
    np.testing.assert_allclose(
        data.sample_stats["log_weight"], data.sample_stats["lp"] - data.sample_stats["log_q"], rtol=1e-6
    )
    np.testing.assert_array_equal(data.posterior_predictive["x"].values[0], judged.predict(200, seed=3)["x"].numpy())


def test_predictions_have_noise_of_their_own():
    """The latents and what is predicted from them must not be drawn with the same numbers."""

    def normal(x=None):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def wide(x=None):
        pyro.sample("z", dist.Normal(0.0, 1.0))

    fit = vi.fit(normal, wide, data=torch.tensor(0.0), steps=0)
    for how in (False, True):
        predicted = fit.predict(COUNT, resample=how)["x"].double()
        sd = math.sqrt(1.0 + (0.5 if how else 1.0))
        assert float(predicted.std()) == pytest.approx(sd, rel=0.05)


def test_a_seed_decides_resampled_draws_too(judged):
    for make in (lambda seed: judged.sample(100, seed=seed)["p"], lambda seed: judged.predict(100, seed=seed)["x"]):
        assert torch.equal(make(5), make(5))
        assert not torch.equal(make(5), make(6))


def test_few_draws_are_chosen_from_many():
    """Weights of forty draws say little: ten draws are as right on average as a thousand."""
    fit = fitted()
    few = torch.stack([fit.sample(10, seed=seed, resample=True)["p"].mean() for seed in range(60)])
    assert float(few.mean()) == pytest.approx(RIGHT, abs=4 * TRUTH.std() / math.sqrt(600))


@pytest.mark.parametrize("value", [1, "yes", 0.5])
def test_resample_is_true_false_or_none(judged, value):
    with pytest.raises(vi.errors.UsageError, match="resample: expected True"):
        judged.sample(10, resample=value)


# --- other verdicts


def test_after_trust_the_guides_own_draws_are_shown():
    fit = fitted(exact)
    assert fit.diagnose().verdict is Verdict.TRUST
    assert torch.equal(fit.sample(50)["p"], fit.posterior.draws(50).latents["p"])
    assert fit.summary(50).attrs["draws"] == "draws of the guide, whose means, sds and tails are certified (TRUST)"


def test_after_distrust_the_guides_own_draws_are_shown_and_nothing_is_certified():
    fit = fitted(far)
    assert fit.diagnose().verdict is Verdict.DISTRUST
    assert torch.equal(fit.sample(50)["p"], fit.posterior.draws(50).latents["p"])
    table = fit.summary(50)
    assert table.columns.name == "draws of the guide, DISTRUST"
    assert table.attrs["draws"] == "draws of the guide, of which nothing is certified, nor of resampled ones (DISTRUST)"
    again = fit.summary(50, resample=True).attrs["draws"]
    assert again == "resampled draws, of which nothing is certified, nor of the guide's own (DISTRUST)"


def test_figures_of_the_guide_itself_stay_what_they_are(judged):
    fresh = fitted()
    assert torch.equal(judged.log_weights(100), fresh.log_weights(100))
    assert judged.elbo(100) == fresh.elbo(100)
    table, other = (vi.compare({"one": fit}, num_draws=200, chains=False, modes=False) for fit in (judged, fresh))
    assert table["elbo"].tolist() == other["elbo"].tolist()
    assert Predictive(model, guide=judged.guide, num_samples=500)()["p"].mean() == near(RAW, 0.06)


# --- what was used is said


SAID = {
    "summary": lambda fit: fit.summary(50).attrs["draws"],
    "arviz": lambda fit: fit.to_arviz(20).attrs["draws"],
    "arviz group": lambda fit: fit.to_arviz(20).posterior.attrs["draws"],
    "p-values": lambda fit: predictive_pvalues(fit, num_draws=20).attrs["draws"],
    "marginals": lambda fit: title(plots.posterior(fit, num_draws=200)),
    "predictions": lambda fit: title(plots.predictive(fit, num_draws=20)),
    "disagreement": lambda fit: (
        disagreement({"a": fit, "b": fit}, num_draws=50, weighted=True)
        .attrs["draws"]["a"]
        .replace("weighted", "resampled")
    ),
}


def title(axes):
    return " ".join(axes[0].figure.get_suptitle().split())


@pytest.mark.parametrize("name", SAID)
def test_every_answer_says_which_draws_it_shows(name, judged):
    assert SAID[name](judged) == "resampled draws, whose means, sds and tails are certified (CORRECTED)"


def test_raw_draws_on_request_say_that_they_are_not_certified(judged):
    table = judged.summary(50, resample=False)
    assert table.attrs["draws"] == "draws of the guide, which are not certified; resampled ones are (CORRECTED)"
    assert table.columns.name == "draws of the guide, CORRECTED"


def test_a_printed_summary_shows_it(judged):
    assert str(judged.summary(50)).startswith("resampled draws, CORRECTED ")


def test_attributes_survive_a_netcdf_file(judged, tmp_path):
    import arviz

    path = str(tmp_path / "file.nc")
    judged.to_arviz(20).to_netcdf(path, engine="h5netcdf")
    attrs = arviz.from_netcdf(path, engine="h5netcdf").posterior.attrs
    assert (attrs["resampled"], attrs["verdict"]) == (1, "CORRECTED")
    assert fitted().to_arviz(20).attrs["verdict"] == "not judged"


def test_on_axes_that_are_given_and_in_a_forest_a_label_says_it(judged):
    from matplotlib.figure import Figure

    ax = Figure().add_subplot()
    plots.posterior(judged, "p", axes=ax, num_draws=100)
    assert "resampled draws" in ax.get_xlabel()

    def many(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(20), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def many_guide(x):
        pyro.sample("z", dist.Normal(x / 2, math.sqrt(0.5)).to_event(1))

    (forest,) = plots.posterior(vi.fit(many, many_guide, data=torch.zeros(20), steps=0), num_draws=50)
    assert "not judged: run fit.diagnose()" in forest.get_xlabel()


def test_arrays_that_are_given_say_nothing_and_are_not_resampled(judged):
    draws = judged.sample(50)
    axes = plots.posterior(draws, "p")
    assert axes[0].figure.get_suptitle() == ""
    with pytest.raises(vi.errors.UsageError, match="resample: draws that are given are shown as they are"):
        plots.posterior(draws, "p", resample=True)
    with pytest.raises(vi.errors.UsageError, match="resample: data that are given"):
        plots.predictive({"x": draws["p"][:, None]}, observed={"x": [1.0]}, resample=False)


def test_leave_one_out_weights_draws_whatever_the_verdict_and_says_so(judged):
    for fit, verdict in ((judged, "CORRECTED"), (fitted(), "not judged: run fit.diagnose()")):
        found = loo(fit, num_draws=COUNT)
        # Of Beta(9, 3): a one is predicted from seven ones and two zeros, a zero from eight and one.
        expected = 8 * math.log(8 / 11) + 2 * math.log(2 / 11)
        assert found.elpd.value == pytest.approx(expected, abs=0.1)
        assert f"weighted to be the posterior's ({verdict})" in str(found)


# --- for how long a verdict holds


def trained():
    return vi.fit(model, guide, data=OBSERVED, steps=3, seed=0, engine="eager", progress=False)


@pytest.mark.parametrize("engine", ["eager", "traced", "interpreted"])
def test_a_fit_that_goes_on_is_not_judged_any_more(engine):
    def line(x):
        loc = pyro.sample("loc", dist.Normal(0.0, 5.0))
        pyro.sample("x", dist.Normal(loc, 1.0).expand([3]).to_event(1), obs=x)

    from pyro.infer.autoguide import AutoNormal

    fit = vi.fit(line, AutoNormal, data=torch.ones(3), steps=40, engine=engine, progress=False)
    fit.diagnose(500)
    assert fit.verdict is not None
    fit.resume(steps=40)
    assert fit.verdict is None
    assert "not judged" in fit.summary(10).attrs["draws"]


def test_a_callback_in_a_resumed_run_meets_a_fit_that_is_not_judged():
    seen = []
    fit = trained()
    fit._trainer.plan = fit._trainer.plan.__class__(
        **{**fit._trainer.plan.__dict__, "callbacks": (vi.Every(1, lambda progress: seen.append(fit.verdict)),)}
    )
    fit.diagnose(500)
    fit.resume(steps=2)
    assert seen == [None, None]


def test_resuming_what_has_ended_changes_nothing():
    fit = trained()
    verdict = fit.diagnose(500).verdict
    fit.resume()
    assert fit.verdict is verdict


def test_the_verdict_goes_with_the_parameters_wherever_it_was_made():
    """Of the posterior, by vi.diagnostics.diagnose, or of several fits, by vi.compare."""
    one, two = fitted(), fitted()
    vi.diagnostics.diagnose(one.posterior)
    vi.compare({"two": two})
    assert one.verdict is two.verdict is Verdict.CORRECTED


def test_comparing_does_not_overrule_a_diagnosis():
    fit = fitted()
    fit.posterior.judge(Judged(Verdict.DISTRUST))
    table = vi.compare({"fit": fit}, chains=False, modes=False)
    assert table["verdict"].tolist() == ["CORRECTED"]
    assert fit.verdict is Verdict.DISTRUST


def test_the_last_diagnosis_counts():
    fit = fitted()
    fit.posterior.judge(Judged(Verdict.DISTRUST))
    fit.diagnose()
    assert fit.verdict is Verdict.CORRECTED


def test_looking_at_draws_before_and_after_leaves_raw_ones_as_they_were(judged):
    assert torch.equal(judged.sample(50, resample=False)["p"], fitted().sample(50)["p"])


# --- files


def test_the_verdict_is_kept_in_the_file(tmp_path, judged):
    judged.save(tmp_path / "fit")
    again = vi.load(tmp_path / "fit", model, guide)
    assert again.verdict is Verdict.CORRECTED
    assert torch.equal(again.sample(50)["p"], judged.sample(50)["p"])
    again.save(tmp_path / "again")
    assert vi.load(tmp_path / "again", model, guide).verdict is Verdict.CORRECTED


def test_a_fit_that_was_not_judged_is_not_after_loading(tmp_path):
    fitted().save(tmp_path / "fit")
    assert vi.load(tmp_path / "fit", model, guide).verdict is None


def test_a_file_without_a_verdict_is_one_that_was_not_judged(tmp_path, judged):
    judged.save(tmp_path / "fit")
    content = torch.load(tmp_path / "fit", weights_only=True)
    del content["verdict"]
    torch.save(content, tmp_path / "older")
    assert vi.load(tmp_path / "older", model, guide).verdict is None


def test_a_verdict_is_not_carried_to_other_data(tmp_path, judged):
    judged.save(tmp_path / "fit", data=False)
    assert vi.load(tmp_path / "fit", model, guide, data=OBSERVED).verdict is Verdict.CORRECTED
    assert vi.load(tmp_path / "fit", model, guide, data=1 - OBSERVED).verdict is None


def test_a_loaded_fit_that_goes_on_is_not_judged_any_more(tmp_path):
    fit = trained()
    fit.diagnose(500)
    fit.save(tmp_path / "fit")
    again = vi.load(tmp_path / "fit", model, guide)
    again.resume(steps=2)
    assert again.verdict is None


def test_a_verdict_that_is_none_is_a_damaged_file(tmp_path, judged):
    judged.save(tmp_path / "fit")
    content = torch.load(tmp_path / "fit", weights_only=True)
    torch.save({**content, "verdict": "SURELY"}, tmp_path / "forged")
    with pytest.raises(vi.errors.CheckpointError, match="damaged"):
        vi.load(tmp_path / "forged", model, guide)


# --- rows of their own, and new data

ROWS = torch.linspace(-2, 2, 40)
SD = math.sqrt(0.5)


def rows_model(x):
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.deterministic("twice", 2 * z)
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def rows_guide(x):
    """z | x ~ Normal(x / 2, sqrt(1/2)), here narrower and moved by .4 sd."""
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal(x / 2 + 0.4 * SD, 0.9 * SD))


@pytest.fixture(scope="module")
def by_rows():
    fit = vi.fit(rows_model, rows_guide, data=ROWS, steps=0)
    found = fit.diagnose()
    assert found.verdict is Verdict.CORRECTED, str(found)
    assert "row by row" in str(found)
    return fit


def test_answers_are_resampled_row_by_row(by_rows):
    draws = by_rows.sample(2_000)
    np.testing.assert_allclose(draws["z"].mean(0), ROWS / 2, atol=0.08)
    np.testing.assert_allclose(draws["z"].std(0), SD, rtol=0.12)
    torch.testing.assert_close(draws["twice"], 2 * draws["z"])
    assert min(len(draws["z"][:, row].unique()) for row in range(len(ROWS))) > 500
    np.testing.assert_allclose(by_rows.predict(2_000)["x"].mean(0), ROWS / 2, atol=0.15)
    np.testing.assert_allclose(by_rows.summary(2_000).loc["z[0]", "mean"], -1.0, atol=0.08)


def test_densities_are_those_of_the_draws_that_were_put_together(by_rows):
    data = by_rows.to_arviz(50)
    z = torch.from_numpy(data.posterior["z"].values[0]).double()
    lp = (dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(ROWS.double())).sum(1)
    log_q = dist.Normal(ROWS.double() / 2 + 0.4 * SD, 0.9 * SD).log_prob(z).sum(1)
    np.testing.assert_allclose(data.sample_stats["lp"].values[0], lp, rtol=1e-4)
    np.testing.assert_allclose(data.sample_stats["log_q"].values[0], log_q, rtol=1e-4, atol=1e-3)


def test_rows_that_disagree_are_not_weighted_together(by_rows):
    other = vi.fit(rows_model, rows_guide, data=ROWS, steps=0)
    table = disagreement({"one": by_rows, "two": other}, weighted=True, num_draws=1_000)
    assert (table["sd_ratio"] < 1.2).all()


def test_an_amortised_guide_is_weighted_by_the_new_rows_themselves(by_rows):
    """Also where they are as many as the fit's."""
    for new in (ROWS[:7] + 1.0, ROWS.flip(0) + 1.0):
        predicted = by_rows.predict(2_000, data=new)
        np.testing.assert_allclose(predicted["twice"].mean(0), new, atol=0.17)
        np.testing.assert_allclose(
            by_rows.predict(2_000, data=new, resample=False)["twice"].mean(0), new + 0.8 * SD, atol=0.1
        )


def conditional(x, y=None):
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(x, 1.0))
        pyro.sample("y", dist.Normal(z, 1.0), obs=y)


def conditional_guide(x, y=None):
    """The posterior given y too is elsewhere: this one is of x alone."""
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal(x, 0.9))


def test_new_rows_without_their_observed_values_cannot_be_weighted_which_is_said():
    fit = vi.fit(conditional, conditional_guide, data=(ROWS, ROWS + 0.3), steps=0)
    fit.posterior.judge(Judged(Verdict.CORRECTED))
    with pytest.warns(
        vi.errors.TrustWarning, match=r"draws of the guide, which are not certified.*the guide draws 'z' for the new"
    ):
        found = fit.predict(100, data=(ROWS[:3],))
    assert torch.equal(found["y"], fit.predict(100, data=(ROWS[:3],), resample=False)["y"])
    with pytest.raises(vi.errors.UsageError, match="resample=True: the guide draws 'z' for the new data"):
        fit.predict(100, data=(ROWS[:3],), resample=True)
    assert fit.predict(100, data=(ROWS[:3], ROWS[:3]))["y"].shape == (100, 3)


def mixed(x, y=None):
    shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(x + shift, 1.0))
        pyro.sample("y", dist.Normal(z, 1.0), obs=y)


def mixed_guide(x, y=None):
    pyro.sample("shift", dist.Normal(0.0, 0.5))
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal(x, 1.0))


def test_latents_of_the_fit_beside_those_of_new_rows_cannot_be_weighted_either():
    fit = vi.fit(mixed, mixed_guide, data=(ROWS[:5], ROWS[:5]), steps=0)
    fit.posterior.judge(Judged(Verdict.CORRECTED))
    with pytest.warns(vi.errors.TrustWarning, match="and other latents for the fit's"):
        fit.predict(10, data=(ROWS[:3],))


def test_local_latents_of_the_fit_are_predicted_for_the_same_rows():
    """A guide that does not read the data: its draws, and their weights, are the fit's rows', whatever the covariate."""

    def local(x, y=None):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.deterministic("scaled", x * z)
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    def own(x, y=None):
        with pyro.plate("rows", 40):
            pyro.sample("z", dist.Normal(torch.full((40,), 0.2), 0.8))

    fit = vi.fit(local, own, data=(torch.ones(40), torch.full((40,), 1.0)), steps=0)
    fit.posterior.judge(Judged(Verdict.CORRECTED))
    found = fit.predict(2_000, data=(torch.full((40,), 10.0),))["scaled"]
    assert float(found.mean()) == pytest.approx(5.0, abs=0.1)
    with pytest.raises(vi.errors.ShapeError, match="does not fit the new data"):
        fit.predict(10, data=(torch.ones(4),))
