"""Draws and their densities: right, and the same in whichever way they are made."""

import functools
import math
import random

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from pyro.infer.autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoIAFNormal,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
    AutoStructured,
)
from pyro.infer.autoguide.initialization import init_to_median
from scipy import stats
from scipy.special import logsumexp
from torch.distributions import constraints

import vipack as vi
from tests.training.programs import TABLE, VAES, X
from vipack.posterior import Draws
from vipack.posterior import posterior as module

Y = torch.randn(12, generator=torch.Generator().manual_seed(5)) + 1.0


def regression(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    sigma = pyro.sample("sigma", dist.LogNormal(0.0, 0.5))
    pyro.deterministic("ratio", mu / sigma)
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu, sigma), obs=x)


def hierarchy(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    tau = pyro.sample("tau", dist.HalfCauchy(1.0))
    with pyro.plate("columns", 3, dim=-1):
        shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 4, dim=-2):
            z = pyro.sample("z", dist.Normal(mu + shift, tau))
            pyro.sample("x", dist.Normal(z, 0.7), obs=x.reshape(4, 3))


def matrices(x):
    chol = pyro.sample("chol", dist.LKJCholesky(3, 2.0))
    scale = pyro.sample("scale", dist.LogNormal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("rows", 4):
        tril = scale[..., None] * chol
        pyro.sample("x", dist.MultivariateNormal(torch.zeros(3), scale_tril=tril), obs=x.reshape(4, 3))


def counts(n, k):
    p = pyro.sample("p", dist.Dirichlet(torch.ones(3)))
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    q = pyro.sample("q", dist.Beta(2.0, 2.0))
    with pyro.plate("rows", 5):
        pyro.sample("n", dist.Multinomial(6, p), obs=n)
        pyro.sample("k", dist.Poisson(rate * (1 + q)), obs=k)


COUNTS = torch.tensor([[1.0, 2, 3], [6, 0, 0], [2, 2, 2], [0, 1, 5], [3, 3, 0]]), torch.tensor([1.0, 0, 2, 3, 1])


def counts_guide(n, k):
    a = pyro.param("a", torch.tensor([2.0, 3.0, 4.0]), constraint=constraints.positive, event_dim=1)
    pyro.sample("p", dist.Dirichlet(a))
    pyro.sample("rate", dist.Gamma(pyro.param("shape", torch.tensor(3.0), constraint=constraints.positive), 2.0))
    pyro.sample("q", dist.Beta(2.5, 3.5))


PROGRAMS = {
    "AutoNormal": (regression, AutoNormal, Y),
    "AutoDiagonalNormal": (regression, AutoDiagonalNormal, Y),
    "AutoMultivariateNormal": (regression, AutoMultivariateNormal, Y),
    "AutoLowRankMultivariateNormal": (regression, AutoLowRankMultivariateNormal, Y),
    "AutoIAFNormal": (regression, functools.partial(AutoIAFNormal, hidden_dim=[8]), Y),
    "AutoStructured": (regression, AutoStructured, Y),
    "two plates, AutoNormal": (hierarchy, functools.partial(AutoNormal, init_loc_fn=init_to_median), Y),
    "two plates, full rank": (hierarchy, AutoMultivariateNormal, Y),
    "LKJ": (matrices, AutoNormal, Y),
    "Dirichlet, Gamma, Beta": (counts, counts_guide, COUNTS),
    "VAE": (VAES[0].model, VAES[0].guide, TABLE),
}


def fit(name, steps=5):
    model, guide, data = PROGRAMS[name]
    return vi.fit(model, guide, data=data, steps=steps)


def exact_log_joint(done, latents):
    """Of one draw, by plain Pyro on the fit's own parameters."""
    posterior = done.posterior
    with posterior.program.bound(posterior.arguments, training=False), torch.no_grad():
        model = poutine.condition(posterior.program.model, data=latents)
        return float(poutine.trace(model).get_trace(*posterior.arguments.args).log_prob_sum())


# --- one answer in three ways


@pytest.mark.parametrize("name", PROGRAMS)
def test_densities_are_those_of_single_runs_at_the_same_draws(name):
    done = fit(name)
    posterior = done.posterior
    draws = posterior.draws(6)
    for i in range(6):
        one = {key: value[i] for key, value in draws.latents.items()}
        assert float(draws.log_joint[i]) == pytest.approx(exact_log_joint(done, one), rel=1e-5, abs=1e-4)
    assert draws.log_joint.dtype == draws.log_q.dtype == torch.float64


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_model_evaluated_in_every_way_is_the_same(name):
    posterior = fit(name).posterior
    draws = posterior.draws(9)
    found = {}
    for way in ("vmap", "plate", "loop"):
        posterior.vectorizer.allowed, posterior.vectorizer.chosen = (way,) if way == "loop" else (way, "loop"), {}
        with posterior.running():
            values, log_joint, rows = posterior._evaluate(draws.latents, 9)
        found[posterior.vectorizer.chosen["model"]] = values, log_joint, rows
    assert len(found) >= 2  # one of the fast ways works for each of these programs
    values, log_joint, rows = found["loop"]
    for other_values, other_joint, other_rows in found.values():
        torch.testing.assert_close(other_joint, log_joint, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(other_rows, rows, rtol=1e-4, atol=1e-4)
        for site, value in values.items():
            torch.testing.assert_close(other_values[site], value, rtol=1e-4, atol=1e-5)


@functools.cache
def reference_weights(name):
    return fit(name).posterior.draws(250, seed=1).log_weights


@pytest.mark.parametrize("way", ["vmap", "plate", "loop"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_guide_drawn_in_every_way_has_the_same_distribution(name, way):
    """Log weights have one distribution, however they are drawn; each way in its own random numbers."""
    posterior, reference = fit(name).posterior, reference_weights(name)
    posterior.vectorizer.allowed, posterior.vectorizer.chosen = (way, "loop") if way != "loop" else (way,), {}
    own = posterior.draws(250, seed=2).log_weights
    assert stats.ks_2samp(own, reference).pvalue > 1e-4


def test_log_q_is_the_density_of_a_guide_by_hand():
    done = vi.fit(counts, counts_guide, data=COUNTS, steps=0)
    draws = done.posterior.draws(50)
    expected = (
        stats.dirichlet([2, 3, 4]).logpdf(
            draws.latents["p"].double().numpy().T / draws.latents["p"].double().sum(-1).numpy()
        )
        + stats.gamma(3, scale=0.5).logpdf(draws.latents["rate"].numpy())
        + stats.beta(2.5, 3.5).logpdf(draws.latents["q"].numpy())
    )
    np.testing.assert_allclose(draws.log_q, expected, rtol=1e-4, atol=1e-4)


def test_log_q_of_an_automatic_guide_accounts_for_the_change_of_variables():
    done = vi.fit(regression, AutoNormal, data=Y, steps=20)
    draws = done.posterior.draws(50)
    locs, scales = (
        {k.split(".")[-1]: float(v) for k, v in done.params.items() if part in k} for part in ("locs", "scales")
    )
    mu, sigma = (draws.latents[name].double().numpy() for name in ("mu", "sigma"))
    expected = stats.norm(locs["mu"], scales["mu"]).logpdf(mu)
    expected += stats.lognorm(scales["sigma"], scale=math.exp(locs["sigma"])).logpdf(sigma)
    np.testing.assert_allclose(draws.log_q, expected, rtol=1e-4, atol=1e-4)


def test_chunks_do_not_change_what_is_drawn_of(monkeypatch):
    done = fit("two plates, full rank")
    whole = done.posterior.draws(50)
    monkeypatch.setattr(module, "_ELEMENTS_AT_ONCE", 600)
    small = module.Posterior(done._trainer.program, done._trainer.rows.full())
    assert small._at_once < 20
    parts = small.draws(50)
    assert parts.log_joint.shape == (50,)
    assert {name: value.shape for name, value in parts.latents.items()} == {
        n: v.shape for n, v in whole.latents.items()
    }
    for i in (0, 25, 49):
        one = {key: value[i] for key, value in parts.latents.items()}
        assert float(parts.log_joint[i]) == pytest.approx(exact_log_joint(done, one), rel=1e-5)
    predicted, likelihood = small.predictive(50), small.log_likelihood(parts.latents)
    assert predicted["x"].shape == likelihood["x"].shape == (50, 4, 3)


def test_draws_need_not_be_kept():
    posterior = fit("AutoNormal").posterior
    kept, bare = posterior.draws(20), posterior.draws(20, keep=False)
    assert bare.latents == bare.deterministic == {}
    assert torch.equal(kept.log_weights, bare.log_weights)
    assert posterior.draws(20, densities=False).log_joint.isnan().all()


# --- programs that do not broadcast


def summing(x):
    """The mean over the wrong dimension, were z to have one more."""
    with pyro.plate("rows", 4):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.deterministic("mean", z.mean())
    pyro.sample("x", dist.Normal(z.mean(), 1.0).expand([len(x)]).to_event(1), obs=x)


def item(x):
    """A Python number: vmap cannot see into it."""
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z.item() if z.dim() == 0 else z.sum(), 1.0).expand([len(x)]).to_event(1), obs=x)


def branching(x):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    loc = z if z > 0 else 10 * z
    pyro.sample("x", dist.Normal(loc, 1.0).expand([len(x)]).to_event(1), obs=x)


@pytest.mark.parametrize("model", [summing, item, branching], ids=lambda model: model.__name__)
@pytest.mark.parametrize("forced", [None, "plate"])
def test_a_model_that_does_not_broadcast_is_still_right(model, forced):
    done = vi.fit(model, AutoNormal, data=Y, steps=5)
    posterior = done.posterior
    if forced:
        posterior.vectorizer.allowed = (forced, "loop")
    draws = posterior.draws(30)
    for i in range(30):
        one = {key: value[i] for key, value in draws.latents.items()}
        assert float(draws.log_joint[i]) == pytest.approx(exact_log_joint(done, one), rel=1e-5)
        if "mean" in draws.deterministic:
            assert float(draws.deterministic["mean"][i]) == pytest.approx(float(one["z"].mean()), abs=1e-6)


def one_z(x):
    z = pyro.sample("z", dist.Normal(0.0, 2.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def two_z(x):
    z = pyro.sample("z", dist.Normal(torch.zeros(2), 2.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)


def with_item(x):
    loc = pyro.param("loc", torch.tensor(0.5))
    pyro.sample("z", dist.Normal(loc.item(), 0.5))


def normalising(x):
    """Broadcasts to something else: the auxiliary draws are standardised over all their dimensions."""
    e = pyro.sample("e", dist.Normal(torch.zeros(2), 1.0).to_event(1), infer={"is_auxiliary": True})
    pyro.sample("z", dist.Normal(e - e.mean(), 0.5).to_event(1))


def coin_site(x):
    """Another density on each side of a coin that is a site of its own."""
    heads = pyro.sample("heads", dist.Bernoulli(0.5), infer={"is_auxiliary": True})
    if heads:
        pyro.sample("z", dist.Normal(-1.0, 0.1))
    else:
        pyro.sample("z", dist.Normal(1.0, 0.3))


def coin_of_torch(x):
    loc, scale = (-1.0, 0.1) if torch.rand(()) < 0.5 else (1.0, 0.3)
    pyro.sample("z", dist.Normal(loc, scale))


def coin_of_python(x):
    loc, scale = (-1.0, 0.1) if random.random() < 0.5 else (1.0, 0.3)
    pyro.sample("z", dist.Normal(loc, scale))


def coin_of_numpy(x):
    loc, scale = (-1.0, 0.1) if np.random.rand() < 0.5 else (1.0, 0.3)  # noqa: NPY002
    pyro.sample("z", dist.Normal(loc, scale))


@pytest.mark.parametrize("guide", [coin_site, coin_of_torch, coin_of_python, coin_of_numpy], ids=lambda g: g.__name__)
def test_guides_of_random_structure_take_both_branches(guide):
    posterior = vi.fit(one_z, guide, data=Y, steps=0).posterior
    draws = posterior.draws(200)
    assert posterior.vectorizer.chosen["guide"] == "loop"
    z = draws.latents["z"].double().numpy()
    left = z < 0
    assert 60 < left.sum() < 140
    log_q = np.where(left, stats.norm(-1, 0.1).logpdf(z), stats.norm(1, 0.3).logpdf(z))
    log_q += math.log(0.5) if guide is coin_site else 0.0
    np.testing.assert_allclose(draws.log_q, log_q, atol=1e-4)


@pytest.mark.parametrize("forced", [None, "plate"])
@pytest.mark.parametrize(("model", "guide"), [(one_z, with_item), (two_z, normalising)], ids=["item", "normalising"])
def test_a_guide_that_does_not_broadcast_is_still_right(model, guide, forced):
    done = vi.fit(model, guide, data=Y, steps=0)
    if forced:
        done.posterior.vectorizer.allowed = (forced, "loop")
    draws = done.posterior.draws(2_000)
    z = draws.latents["z"].double().numpy()
    if guide is with_item:
        assert z.mean() == pytest.approx(0.5, abs=0.05)
        np.testing.assert_allclose(draws.log_q, stats.norm(0.5, 0.5).logpdf(z), atol=1e-4)
    else:  # e - mean(e) has components of variance 1/2 that add up to zero
        assert z.sum(1).std() == pytest.approx(math.sqrt(2 * 0.25), rel=0.06)
        assert z[:, 0].std() == pytest.approx(math.sqrt(0.5 + 0.25), rel=0.06)


# --- rows


def test_row_weights_add_up_to_the_weights_of_the_draw():
    posterior = fit("VAE").posterior
    draws = posterior.draws(20)
    assert draws.row_log_weights.shape == (20, len(TABLE))
    torch.testing.assert_close(draws.row_log_weights.sum(1), draws.log_weights, rtol=1e-6, atol=1e-6)


def rows_only(x):
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)


@pytest.mark.parametrize("way", ["vmap", "plate", "loop"])
def test_row_weights_are_the_same_in_every_way(way):
    done = vi.fit(rows_only, AutoNormal, data=Y, steps=20)
    done.posterior.vectorizer.allowed = (way,)
    draws = done.posterior.draws(6)
    assert set(done.posterior.vectorizer.chosen.values()) == {way}
    z = draws.latents["z"]
    guide = dist.Normal(done.params["AutoNormal.locs.z"], done.params["AutoNormal.scales.z"])
    expected = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z, 0.5).log_prob(Y) - guide.log_prob(z)
    torch.testing.assert_close(draws.row_log_weights, expected.double(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(draws.row_log_weights.sum(1), draws.log_weights, rtol=1e-6, atol=1e-6)


def rows_and_a_global(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)


def test_there_are_row_weights_only_where_model_and_guide_are_products_over_rows():
    def rows_of(model, guide):
        return vi.fit(model, guide, data=Y, steps=2).posterior.draws(5).row_log_weights

    assert rows_of(rows_only, AutoNormal).shape == (5, len(Y))
    assert rows_of(rows_and_a_global, AutoNormal) is None
    assert rows_of(rows_only, AutoMultivariateNormal) is None  # log q is one number for all rows
    assert rows_of(regression, AutoNormal) is None


def test_points_of_the_guide_are_named():
    assert vi.fit(regression, AutoDelta, data=Y, steps=2).posterior.draws(5).points == ("mu", "sigma")
    assert vi.fit(rows_only, AutoDelta, data=Y, steps=2).posterior.draws(5, keep=False).points == ("z",)
    assert vi.fit(matrices, AutoNormal, data=Y, steps=2).posterior.draws(5).points == ()


# --- likelihoods


@pytest.mark.parametrize("way", ["vmap", "loop"])
def test_log_likelihood_has_a_value_for_each_observation(way):
    posterior = fit("two plates, AutoNormal").posterior
    posterior.vectorizer.allowed = (way,)
    latents = posterior.draws(7).latents
    found = posterior.log_likelihood(latents)
    expected = dist.Normal(latents["z"], 0.7).log_prob(Y.reshape(4, 3))
    torch.testing.assert_close(found["x"], expected)


def test_log_likelihood_is_not_scaled():
    def scaled(x):
        z = pyro.sample("z", dist.Normal(0.0, 2.0))
        with poutine.scale(scale=100.0), pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    posterior = vi.fit(scaled, AutoNormal, data=Y, steps=2).posterior
    draws = posterior.draws(4)
    expected = dist.Normal(draws.latents["z"][:, None], 1.0).log_prob(Y)
    torch.testing.assert_close(posterior.log_likelihood(draws.latents)["x"], expected)
    prior = dist.Normal(0.0, 2.0).log_prob(draws.latents["z"])
    torch.testing.assert_close(draws.log_joint, (prior + 100 * expected.sum(1)).double(), rtol=1e-5, atol=1e-3)


# --- discrete latents


def mixture(x):
    locs = pyro.sample("locs", dist.Normal(torch.tensor([-2.0, 2.0]), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
        loc = locs[..., 0] + z * (locs[..., 1] - locs[..., 0])
        pyro.sample("x", dist.Normal(loc, 1.0), obs=x)


@pytest.mark.parametrize("way", ["vmap", "loop"])
def test_enumerated_latents_are_summed_out_of_the_log_joint(way):
    posterior = vi.fit(mixture, AutoNormal, data=Y, loss=TraceEnum_ELBO(), steps=5).posterior
    posterior.vectorizer.allowed = ("vmap", "loop") if way == "vmap" else ("loop",)
    draws = posterior.draws(8)
    assert posterior.vectorizer.chosen["model"] == way
    locs, x = draws.latents["locs"].double().numpy(), Y.double().numpy()
    each = [math.log(w) + stats.norm(locs[:, [k]], 1.0).logpdf(x) for k, w in enumerate([0.7, 0.3])]
    expected = logsumexp(each, axis=0).sum(1) + stats.norm([-2.0, 2.0], 1.0).logpdf(locs).sum(1)
    np.testing.assert_allclose(draws.log_joint, expected, rtol=1e-5)
    assert set(draws.latents) == {"locs"}
    assert posterior.log_likelihood(draws.latents) == {}
    assert posterior.predictive(5)["x"].shape == (5, len(Y))


def test_a_chain_of_enumerated_latents_is_summed_out():
    def chain(x):
        p = pyro.sample("p", dist.Beta(2.0, 2.0))
        z = 0
        for t in pyro.markov(range(len(x))):
            z = pyro.sample(
                f"z_{t}", dist.Bernoulli(p if t == 0 else p * 0.5 + 0.4 * z), infer={"enumerate": "parallel"}
            )
            pyro.sample(f"x_{t}", dist.Normal(z, 1.0), obs=x[t])

    x = Y[:4]
    draws = vi.fit(chain, AutoNormal, data=x, loss=TraceEnum_ELBO(), steps=3).posterior.draws(3)
    for p, log_joint in zip(draws.latents["p"].double().tolist(), draws.log_joint.tolist(), strict=True):
        log_total = -math.inf
        for states in np.ndindex(2, 2, 2, 2):
            term, before = stats.beta(2, 2).logpdf(p), 0
            for t, z in enumerate(states):
                on = p if t == 0 else p * 0.5 + 0.4 * before
                term += math.log(on if z else 1 - on) + stats.norm(z, 1).logpdf(float(x[t]))
                before = z
            log_total = np.logaddexp(log_total, term)
        assert log_joint == pytest.approx(log_total, rel=1e-5)


# --- data in part


def test_a_model_that_subsamples_is_evaluated_on_all_data():
    def in_part(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
        with pyro.plate("data", len(x), subsample_size=5) as rows:
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x[rows])

    def whole(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    one, other = (vi.fit(model, AutoNormal, data=X, steps=0).posterior for model in (in_part, whole))
    assert torch.equal(one.draws(20).log_joint, other.draws(20).log_joint)
    assert one.predictive(3)["x"].shape == (3, len(X))
    assert one.log_likelihood(one.draws(3).latents)["x"].shape == (3, len(X))
    assert one.table.plates == {"data": len(X)}


def test_a_local_latent_in_a_subsampled_plate_has_a_value_for_every_row():
    def in_part(x):
        with pyro.plate("data", len(x), subsample_size=5) as rows:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[rows])

    draws = vi.fit(in_part, AutoNormal, data=X, steps=30).posterior.draws(4)
    assert draws.latents["z"].shape == (4, len(X))
    expected = dist.Normal(0.0, 1.0).log_prob(draws.latents["z"]) + dist.Normal(draws.latents["z"], 1.0).log_prob(X)
    torch.testing.assert_close(draws.log_joint, expected.sum(1).double(), rtol=1e-5, atol=1e-4)


# --- programs at the edge


def test_a_model_without_latents_has_its_likelihood():
    def model(x):
        loc = pyro.param("loc", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x)

    def guide(x):
        pass

    draws = vi.fit(model, guide, data=Y, steps=300).posterior.draws(3)
    assert isinstance(draws, Draws)
    best = stats.norm(float(Y.mean()), 1.0).logpdf(Y.double().numpy()).sum()
    np.testing.assert_allclose(draws.log_weights, best, atol=0.01)


def test_a_factor_counts():
    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.factor("extra", -((z - x) ** 2))

    x = torch.tensor(0.7)
    draws = vi.fit(model, AutoNormal, data=x, steps=2).posterior.draws(6)
    z = draws.latents["z"].double()
    torch.testing.assert_close(
        draws.log_joint, dist.Normal(0.0, 1.0).log_prob(z) - (z - 0.7) ** 2, rtol=1e-5, atol=1e-5
    )


def test_masked_observations_do_not_count():
    mask = torch.arange(len(Y)) % 3 > 0

    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)), poutine.mask(mask=mask):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    draws = vi.fit(model, AutoNormal, data=Y, steps=2).posterior.draws(6)
    z = draws.latents["z"]
    expected = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z[:, None], 1.0).log_prob(Y[mask]).sum(1)
    torch.testing.assert_close(draws.log_joint, expected.double(), rtol=1e-5, atol=1e-4)
