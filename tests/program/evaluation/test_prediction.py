"""Predictions: as large as the data they are for, from latents that mean what they meant in the fit."""

import functools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Predictive, TraceEnum_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from pyro.infer.reparam import LocScaleReparam
from torch.distributions import constraints

import vipack as vi
from vipack.diagnostics import loo, predictive_pvalues
from vipack.posterior import Posterior
from vipack.program import Arguments

GENERATOR = torch.Generator().manual_seed(0)
N = 30
X = torch.randn(N, generator=GENERATOR)
Y = 2 * X + 0.1 * torch.randn(N, generator=GENERATOR)
ENUM = {"loss": TraceEnum_ELBO(max_plate_nesting=1)}


# --- the size of the data at hand


def by_subsample_size(x, y=None):
    """As the documentation writes the batch plate; groups stand beside it."""
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("group", 3):
        shift = pyro.sample("shift", dist.Normal(0.0, 0.1))
    with pyro.plate("obs", N, subsample_size=len(x)):
        pyro.sample("y", dist.Normal(slope * x + shift.mean(-1), 0.1), obs=y)


def by_own_minibatches(x, y=None):
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("obs", len(x), subsample_size=min(5, len(x))) as rows:
        pyro.sample("y", dist.Normal(slope * x[rows], 0.1), obs=None if y is None else y[rows])


@functools.cache
def fitted(batch_size=None):
    return vi.fit(by_subsample_size, AutoNormal, data=(X, Y), steps=300, batch_size=batch_size)


@pytest.mark.parametrize("batch_size", [None, 7])
@pytest.mark.parametrize("rows", [1, 7, N, N + 20])
def test_a_plate_of_all_rows_has_those_of_new_data(rows, batch_size):
    fit = fitted(batch_size)
    new = torch.linspace(-1, 1, rows)
    found = fit.predict(400, data=(new,))["y"]
    assert found.shape == (400, rows)
    if rows <= N:
        assert found.shape == Predictive(by_subsample_size, guide=fit.guide, num_samples=400)(new)["y"].shape
    torch.testing.assert_close(found.mean(0), fit.sample(400)["slope"].mean() * new, rtol=0, atol=0.1)


@pytest.mark.parametrize("rows", [1, 7, N, N + 20])
def test_a_model_that_takes_minibatches_itself_predicts_all_rows(rows):
    fit = vi.fit(by_own_minibatches, AutoNormal, data=(X, Y), steps=5)
    assert fit.predict(3, data=(torch.zeros(rows),))["y"].shape == (3, rows)
    assert fit.predict(3)["y"].shape == (3, N)


@pytest.mark.parametrize("batch_size", [None, 7])
def test_log_likelihoods_and_loo_are_of_the_data_at_hand(batch_size):
    fit = fitted(batch_size)
    new = Posterior(fit._trainer.program, Arguments((X[:7], Y[:7])))
    draws = new.draws(5)
    slope, shift = draws.latents["slope"], draws.latents["shift"]
    expected = dist.Normal(slope[:, None] * X[:7] + shift.mean(1)[:, None], 0.1).log_prob(Y[:7])
    torch.testing.assert_close(new.log_likelihood(draws.latents)["y"], expected, rtol=1e-4, atol=1e-4)
    prior = dist.Normal(0.0, 1.0).log_prob(slope) + dist.Normal(0.0, 0.1).log_prob(shift).sum(1)
    torch.testing.assert_close(draws.log_joint, (prior + expected.sum(1)).double(), rtol=1e-4, atol=1e-3)
    assert loo(new, num_draws=200).elpds.shape == (7,)


@pytest.mark.parametrize("rows", [1, 7, N + 20])
def test_a_batch_plate_of_a_fixed_size_takes_that_of_new_data(rows):
    def model(x, y=None):
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        with pyro.plate("obs", N):
            pyro.sample("y", dist.Normal(slope * x, 0.1), obs=y)

    fit = vi.fit(model, AutoNormal, data=(X, Y), batch_size=7, steps=5)
    assert fit.predict(3, data=(torch.zeros(rows),))["y"].shape == (3, rows)
    assert fit.predict(3)["y"].shape == (3, N)


def test_fixed_arguments_as_long_as_the_plate_do_not_hide_the_new_rows():
    def model(x, y=None, *, weights):
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        with pyro.plate("obs", N, subsample_size=len(x)):
            pyro.sample("y", dist.Normal(slope * x + weights.mean(), 0.1), obs=y)

    fit = vi.fit(model, AutoNormal, data=(X, Y), fixed={"weights": torch.zeros(N)}, steps=5)
    assert fit.predict(3, data=(X[:4],))["y"].shape == (3, 4)


def test_data_that_are_a_part_of_a_population_count_for_all_of_it():
    """plate(N, subsample_size=len(x)) as in a loop by hand: what Pyro's ELBO maximises is evaluated."""

    def model(x, y=None):
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        with pyro.plate("obs", 10 * N, subsample_size=len(x)):
            pyro.sample("y", dist.Normal(slope * x, 1.0), obs=y)

    fit = vi.fit(model, AutoNormal, data=(X, Y), steps=5)
    draws = fit.posterior.draws(5)
    slope = draws.latents["slope"]
    expected = dist.Normal(0.0, 1.0).log_prob(slope) + 10 * dist.Normal(slope[:, None] * X, 1.0).log_prob(Y).sum(1)
    torch.testing.assert_close(draws.log_joint, expected.double(), rtol=1e-5, atol=1e-4)
    assert fit.predict(3, data=(X[:4],))["y"].shape == (3, 4)


def test_a_guide_in_plain_pyro_has_plates_of_the_new_data():
    def guide(x, y=None):
        pyro.sample("slope", dist.Normal(pyro.param("at", torch.tensor(2.0)), 0.1))
        with pyro.plate("group", 3):
            pyro.sample("shift", dist.Normal(0.0, 0.1))
        with pyro.plate("obs", N, subsample_size=len(x)):
            pyro.sample("idle", dist.Normal(x, 1.0), infer={"is_auxiliary": True})

    fit = vi.fit(by_subsample_size, guide, data=(X, Y), steps=5)
    assert poutine.trace(fit.guide).get_trace(X[:6]).nodes["idle"]["value"].shape == (6,)
    assert Predictive(by_subsample_size, guide=fit.guide, num_samples=4)(X[:6])["y"].shape == (4, 6)


# --- latents that do not fit


def local(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("row", len(x)):
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.sample("x", dist.Normal(z, 0.1), obs=x)


@pytest.mark.parametrize("fitted_rows", [1, 7])  # one value would broadcast to all new rows
def test_a_local_latent_of_other_rows_is_named_with_its_shapes(fitted_rows):
    fit = vi.fit(local, AutoNormal, data=X[:fitted_rows], steps=2)
    with pytest.raises(vi.errors.ShapeError, match=rf"'z' has values of shape \({fitted_rows},\).*shape is \(12,\)"):
        fit.predict(3, data=X[:12])


def test_the_site_that_does_not_fit_is_named_and_no_other():
    def model(x, group, y=None, *, groups):
        with pyro.plate("group", groups):
            shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
        with pyro.plate("pair", 2):
            other = pyro.sample("other", dist.Normal(0.0, 1.0))
        with pyro.plate("row", len(x)):
            pyro.sample("y", dist.Normal(shift[group] + other.sum() * x, 1.0), obs=y)

    group = torch.arange(N) % 3
    fit = vi.fit(model, AutoNormal, data=(X, group, Y), fixed={"groups": 3}, steps=2)
    assert fit.predict(3, data=(X[:4], group[:4]))["y"].shape == (3, 4)
    with pytest.raises(vi.errors.ShapeError, match=r"latent site 'shift' has values of shape \(3,\).*\(5,\)"):
        fit.predict(3, data=(X[:4], group[:4]), fixed={"groups": 5})


def test_a_model_that_fails_on_new_data_says_so_itself():
    fit = vi.fit(local, AutoNormal, data=X, steps=2)
    with pytest.raises(vi.errors.ModelError, match=r"TypeError after site 'mu'.*len\(\) of a 0-d tensor"):
        fit.predict(3, data={"x": torch.tensor(1)})


# --- which sites


def ahead(y, *, steps=0):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.Normal(mu, 0.1), obs=y)
    for t in range(steps):
        pyro.sample(f"y_next_{t}", dist.Normal(mu, 0.1))
    if steps:
        with pyro.plate("time", steps):
            pyro.sample("future", dist.Normal(mu, 0.1))
        pyro.deterministic("twice", 2 * mu)
        pyro.factor("ignored", mu)


def test_sites_that_only_the_prediction_has_are_returned():
    fit = vi.fit(ahead, AutoNormal, data=Y[:5], steps=500)
    assert list(fit.predict(3)) == ["y"]
    found = fit.predict(400, data=Y[:5], fixed={"steps": 2})
    assert {name: tuple(v.shape[1:]) for name, v in found.items()} == {
        "y": (5,), "y_next_0": (), "y_next_1": (), "future": (2,), "twice": (),
    }  # fmt: skip
    mu = fit.sample(400)["mu"].mean()
    assert float(found["y_next_0"].mean()) == pytest.approx(float(mu), abs=0.1)
    theirs = Predictive(ahead, guide=fit.guide, num_samples=3)(Y[:5], steps=2)
    assert set(found) == set(theirs) - {"mu", "ignored"}


def one_by_one(x):
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    for i in pyro.plate("row", len(x)):
        pyro.sample(f"x_{i}", dist.Normal(loc, 0.1), obs=x[i])


def test_a_sequential_plate_predicts_the_rows_that_there_are():
    fit = vi.fit(one_by_one, AutoNormal, data=X[:4], steps=5)
    assert set(fit.predict(3)) == {f"x_{i}" for i in range(4)}
    assert {n: tuple(v.shape) for n, v in fit.predict(3, data=X[:6]).items()} == {f"x_{i}": (3,) for i in range(6)}
    assert set(fit.posterior.log_likelihood(fit.posterior.draws(3).latents)) == {f"x_{i}" for i in range(4)}


# --- latents that are summed out


def near(*locs):
    """A guide of `loc` that needs no training."""

    def guide(*args):
        pyro.sample("loc", dist.Normal(torch.tensor(locs), 0.05).to_event(1))

    return guide


def of_two_places(x, y=None):
    """Near 0 or near 10, all rows together."""
    loc = pyro.sample("loc", dist.Normal(torch.tensor([0.0, 10.0]), 0.3).to_event(1))
    k = pyro.sample("k", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
    mu = pyro.deterministic("mu", torch.where(k > 0, loc[1], loc[0]))
    with pyro.plate("row", len(x)):
        pyro.sample("y", dist.Normal(mu + 0.001 * x, 1.0), obs=y)


def test_a_label_of_all_rows_is_predicted_from_its_posterior():
    fit = vi.fit(of_two_places, near(0.0, 10.0), data=(X, 10 + X), steps=0, **ENUM)
    for found in (fit.predict(300), fit.predict(300, data=(torch.randn(5),))):
        assert float(found["y"].mean()) == pytest.approx(10.0, abs=0.2)
        assert float(found["mu"].min()) > 8


def of_two_kinds(x, y=None):
    """Each row near -5 or near 5."""
    loc = pyro.sample("loc", dist.Normal(torch.tensor([-5.0, 5.0]), 0.1).to_event(1))
    with pyro.plate("row", len(x)):
        k = pyro.sample("k", dist.Bernoulli(0.2), infer={"enumerate": "parallel"})
        pyro.sample("y", dist.Normal(loc[k.long()] + 0.001 * x, 0.5), obs=y)


def test_labels_of_rows_are_kept_for_the_fits_data_and_drawn_anew_for_others():
    y = torch.where(torch.arange(N) % 2 == 0, -5.0, 5.0)
    fit = vi.fit(of_two_kinds, near(-5.0, 5.0), data=(X, y), steps=0, **ENUM)
    assert torch.equal(fit.predict(200)["y"] > 0, (y > 0).expand(200, N))
    new = fit.predict(2_000, data=(torch.zeros(3),))["y"]
    share = (new > 0).double().mean(0)
    torch.testing.assert_close(
        share, torch.full((3,), 0.2, dtype=torch.float64), rtol=0, atol=4.5 * math.sqrt(0.16 / 2_000)
    )


def test_labels_of_groups_are_kept_for_new_rows():
    def model(x, y=None):
        loc = pyro.sample("loc", dist.Normal(torch.tensor([-5.0, 5.0]), 0.1).to_event(1))
        with pyro.plate("group", 2, dim=-1):
            k = pyro.sample("k", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
            with pyro.plate("row", len(x), dim=-2):
                pyro.sample("y", dist.Normal(loc[k.long()] + 0.001 * x[:, None], 0.5), obs=y)

    y = torch.tensor([-5.0, 5.0]).expand(6, 2)
    fit = vi.fit(model, near(-5.0, 5.0), data=(X[:6], y), steps=0, loss=TraceEnum_ELBO(max_plate_nesting=2))
    assert torch.equal(fit.sample(50)["k"], torch.tensor([0.0, 1.0]).expand(50, 2))
    new = fit.predict(50, data=(torch.zeros(4),))["y"]
    assert torch.equal(new > 0, torch.tensor([False, True]).expand(50, 4, 2))


def test_labels_of_a_sequential_plate_belong_to_its_rows():
    def model(x, y=None):
        loc = pyro.sample("loc", dist.Normal(torch.tensor([-5.0, 5.0]), 0.1).to_event(1))
        for i in pyro.plate("row", len(x)):
            k = pyro.sample(f"k_{i}", dist.Bernoulli(0.2), infer={"enumerate": "parallel"})
            pyro.sample(f"y_{i}", dist.Normal(loc[k.long()] + 0.001 * x[i], 0.5), obs=None if y is None else y[i])

    loss = TraceEnum_ELBO(max_plate_nesting=0)
    fit = vi.fit(model, near(-5.0, 5.0), data=(X[:2], torch.tensor([5.0, 5.0])), steps=0, loss=loss)
    assert bool((fit.predict(100)["y_0"] > 0).all())
    assert 0.1 < float((fit.predict(400, data=(X[:2],))["y_0"] > 0).double().mean()) < 0.3


def test_labels_of_the_fit_go_with_the_shared_latents_and_the_guide_gives_those_of_new_rows():
    """A guide that computes the latents of rows, and a label of all rows beside it."""

    def model(x, y=None):
        k = pyro.sample("k", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
        shift = pyro.sample("shift", dist.Normal(10 * k, 1.0))
        with pyro.plate("row", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(shift + z + 0.001 * x, 0.1), obs=y)

    def guide(x, y=None):
        pyro.sample("shift", dist.Normal(pyro.param("at", torch.tensor(10.0)), 0.01))
        with pyro.plate("row", len(x)):
            pyro.sample("z", dist.Normal(3.0 * x, 0.01))

    fit = vi.fit(model, guide, data=(torch.zeros(4), torch.full((4,), 10.0)), steps=1, **ENUM)
    new = fit.predict(200, data=(torch.tensor([0.0, 1.0]),))["y"]
    torch.testing.assert_close(new.mean(0), torch.tensor([10.0, 13.0]), rtol=0, atol=0.1)


def test_a_state_beyond_the_fits_sequence_follows_from_the_last_one():
    move = torch.tensor([[0.95, 0.05], [0.05, 0.95]])

    def model(y=None, *, length):
        state = torch.tensor(0)
        for t in pyro.markov(range(length)):
            state = pyro.sample(f"k_{t}", dist.Categorical(move[state]), infer={"enumerate": "parallel"})
            at = None if y is None or t >= len(y) else y[t]
            pyro.sample(f"y_{t}", dist.Normal(10.0 * state, 1.0), obs=at)

    y = torch.tensor([0.0, 0.0, 10.0, 10.0])
    guide = lambda *args, **kwargs: None  # noqa: E731  (there is nothing else to draw)
    fit = vi.fit(model, guide, data={"y": y}, fixed={"length": 4}, steps=0, loss=TraceEnum_ELBO(max_plate_nesting=0))
    found = fit.predict(2_000, data={"y": None}, fixed={"length": 6})
    expected = 10 * torch.tensor([0.0, 0.0, 1.0, 1.0, 0.95, 0.95**2 + 0.05**2])
    means = torch.stack([found[f"y_{t}"].mean() for t in range(6)])
    torch.testing.assert_close(means, expected, rtol=0, atol=0.4)


# --- observed sites that are no data


def with_a_known_spread(x, y=None):
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    spread = pyro.sample("spread", dist.HalfNormal(10.0))
    with pyro.plate("row", len(x)):
        pyro.sample("y", dist.Normal(slope * x, spread), obs=y)


def test_a_parameter_that_condition_holds_keeps_its_value_as_in_predictive():
    model = poutine.condition(with_a_known_spread, {"spread": torch.tensor(0.1)})
    fit = vi.fit(model, AutoNormal, data=(X, Y), steps=500)
    for found in (fit.predict(500), fit.predict(500, data=(X[:3],))):
        assert torch.equal(found["spread"], torch.full((500,), 0.1))
        rest = found["y"] - found["y"].mean(0)
        assert float(rest.std()) < 0.15


def test_data_that_condition_holds_are_drawn_anew():
    model = poutine.condition(with_a_known_spread, {"y": Y})
    fit = vi.fit(model, AutoNormal, data=X, steps=5)
    assert float(fit.predict(50)["y"].std(0).min()) > 0


def test_data_in_a_hierarchy_that_condition_holds_are_drawn_anew():
    """theta depends on a latent, so that it is data about it."""

    def model(y):
        tau = pyro.sample("tau", dist.HalfNormal(1.0))
        theta = pyro.sample("theta", dist.Normal(0.0, tau))
        with pyro.plate("row", len(y)):
            pyro.sample("y", dist.Normal(theta, 1.0), obs=y)

    fit = vi.fit(poutine.condition(model, {"theta": torch.tensor(0.3)}), AutoNormal, data=Y, steps=5)
    assert float(fit.predict(50)["theta"].std()) > 0


def test_simulation_based_calibration_holds_a_known_parameter():
    model = poutine.condition(with_a_known_spread, {"spread": torch.tensor(1.0)})
    found = vi.vsbc(model, AutoMultivariateNormal, data=(X, Y), steps=400, num_simulations=40, num_draws=200)
    assert found.names == ("slope",)
    assert found.calibrated


# --- reparametrised sites


def school_effects(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, 1.0), obs=y)


def test_what_a_reparametrisation_computes_is_among_the_answers():
    centred = LocScaleReparam(0.0)
    model = poutine.reparam(school_effects, config={"theta": centred, "mu": LocScaleReparam(0.0)})
    fit = vi.fit(model, AutoNormal, data=Y[:6], steps=50)
    draws = fit.sample(20)
    torch.testing.assert_close(draws["mu"], 5.0 * draws["mu_decentered"])
    torch.testing.assert_close(
        draws["theta"], draws["mu"][:, None] + draws["tau"][:, None] * draws["theta_decentered"], rtol=1e-4, atol=1e-4
    )
    assert {"mu", "theta[0]", "theta_decentered[5]"} <= set(fit.summary(50).index)
    assert fit.to_arviz(10).posterior["theta"].dims == ("chain", "draw", "school")
    assert list(fit.to_arviz(10).observed_data) == ["y"]
    assert set(predictive_pvalues(fit, num_draws=20).index.get_level_values("site")) == {"y"}
    assert set(fit.posterior.log_likelihood(fit.posterior.draws(3).latents)) == {"y"}
    assert set(fit.predict(3)) == {"mu", "theta", "y"}


def test_flat_priors_and_new_data_go_together():
    def model(x, y=None):
        slope = pyro.sample("slope", dist.ImproperUniform(constraints.real, (), ()))
        with pyro.plate("row", len(x)):
            pyro.sample("y", dist.Normal(slope * x, 0.1), obs=y)

    fit = vi.fit(model, AutoNormal, data=(X, Y), steps=5)
    assert fit.predict(3, data=(X[:4],))["y"].shape == (3, 4)
