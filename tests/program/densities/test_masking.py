"""Latents that a mask leaves out: the loss, the weights and the answers are those of the model without them."""

import functools

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import (
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from pyro.infer.autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
    AutoNormalMessenger,
    AutoStructured,
)
from torch.distributions import constraints

import vipack as vi
from vipack.objectives import ImportanceWeighted, StickingTheLanding
from vipack.program import Arguments, LogJoint, Program, seeded
from vipack.program.densities.masking import counting

GENERATOR = torch.Generator().manual_seed(0)
N = 12
Y = torch.randn(N, generator=GENERATOR) + 1.0
SEEN = torch.arange(N) % 4 > 0  # three are missing
LENGTHS = torch.tensor([1, 3, 2])
SEQUENCES = torch.randn(3, 3, generator=GENERATOR)


def partly(y, seen):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.Normal(mu, 0.8), obs=y, obs_mask=seen)


def without_the_rest(y, seen):
    """The same, of which only missing values are latents."""
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("seen", int(seen.sum())):
        pyro.sample("y_observed", dist.Normal(mu, 0.8), obs=y[seen])
    with pyro.plate("missing", int((~seen).sum())):
        pyro.sample("y_unobserved", dist.Normal(mu, 0.8))


# --- training


def hand_guide(masked):
    """Of `partly`; with the masks of the model's latent, as plain Pyro needs them, or without."""

    def guide(y, seen):
        pyro.sample("mu", dist.Normal(pyro.param("mu_loc", torch.tensor(0.1)), 0.3))
        loc = pyro.param("y_loc", torch.zeros(len(y)))
        scale = pyro.param("y_scale", torch.full((len(y),), 0.5), constraint=constraints.positive)
        with pyro.plate("row", len(y)), poutine.mask(mask=~seen) if masked else poutine.mask(mask=True):
            pyro.sample("y_unobserved", dist.Normal(loc, scale))

    return guide


LOSSES = {
    "Trace_ELBO": Trace_ELBO,
    "particles": functools.partial(Trace_ELBO, 3, vectorize_particles=True, max_plate_nesting=1),
    "TraceMeanField_ELBO": TraceMeanField_ELBO,
    "TraceGraph_ELBO": TraceGraph_ELBO,
    "TraceEnum_ELBO": functools.partial(TraceEnum_ELBO, max_plate_nesting=1, strict_enumeration_warning=False),
    "RenyiELBO": functools.partial(RenyiELBO, alpha=0.5, num_particles=2),
    "StickingTheLanding": functools.partial(StickingTheLanding, 2),
    "ImportanceWeighted": functools.partial(ImportanceWeighted, 2),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_guide_without_masks_is_trained_like_one_with_the_models(loss):
    fits = [
        vi.fit(partly, hand_guide(masked), data=(Y, SEEN), loss=LOSSES[loss](), steps=60) for masked in (False, True)
    ]
    bare, masked = fits
    torch.testing.assert_close(torch.tensor(bare.losses), torch.tensor(masked.losses), rtol=1e-5, atol=1e-4)
    for name in ("mu_loc", "y_loc", "y_scale"):
        torch.testing.assert_close(bare.params[name], masked.params[name], rtol=1e-4, atol=1e-5)
    assert torch.equal(bare.params["y_loc"][SEEN], torch.zeros(int(SEEN.sum())))  # nothing moves them


def test_the_loss_of_an_automatic_guide_is_that_of_the_model_without_what_is_masked():
    """At the start, from the same numbers; plain Pyro is off by the entropy of nine elements."""
    one, other = (vi.fit(model, AutoNormal, data=(Y, SEEN), steps=0) for model in (partly, without_the_rest))
    found, expected = one.elbo(20_000), other.elbo(20_000)
    assert abs(found.value - expected.value) < 4 * (found.se**2 + expected.se**2) ** 0.5


GUIDES = {
    "AutoNormal": AutoNormal,
    "AutoDiagonalNormal": AutoDiagonalNormal,
    "AutoMultivariateNormal": AutoMultivariateNormal,
    "AutoLowRankMultivariateNormal": functools.partial(AutoLowRankMultivariateNormal, rank=2),
    "AutoNormalMessenger": AutoNormalMessenger,
    "AutoStructured": AutoStructured,
    "Structured": vi.guides.Structured,
}


@pytest.mark.parametrize(
    "guide",
    [g if g in ("AutoNormal", "AutoMultivariateNormal") else pytest.param(g, marks=pytest.mark.slow) for g in GUIDES],
)
def test_a_fit_ends_at_the_posterior_of_the_model_without_what_is_masked(guide):
    fit = vi.fit(partly, GUIDES[guide], data=(Y, SEEN), steps=1_500)
    seen = Y[SEEN]
    precision = 1 + len(seen) / 0.64
    draws = fit.sample(4_000)
    assert float(draws["mu"].mean()) == pytest.approx(float(seen.sum() / 0.64 / precision), abs=0.05)
    assert float(draws["mu"].std()) == pytest.approx(precision**-0.5, rel=0.25)
    covariance = torch.ones(len(seen), len(seen)) + 0.64 * torch.eye(len(seen))
    evidence = float(dist.MultivariateNormal(torch.zeros(len(seen)), covariance).log_prob(seen))
    # Three missing values depend on mu, which a guide of independent latents does not follow.
    slack = 0.6 if guide in ("AutoNormal", "AutoDiagonalNormal", "AutoNormalMessenger") else 0.25
    assert evidence - slack < fit.elbo(4_000).value < evidence + 0.1


@pytest.mark.parametrize("loss", [StickingTheLanding, ImportanceWeighted])
@pytest.mark.parametrize("guide", [AutoNormal, AutoMultivariateNormal])
def test_starts_of_our_objectives_run_side_by_side(guide, loss):
    """What is known of the masks is not found again inside a step, where no value can be looked at."""
    fit = vi.fit(partly, guide, data=(Y, SEEN), loss=loss(2), steps=5, restarts=2)
    assert "one after another" not in fit.engine.reason


@pytest.mark.parametrize("options", [{"batch_size": 5}, {"restarts": 3}, {"average": True}], ids=str)
def test_masks_work_with_the_options_of_a_run(options):
    fit = vi.fit(partly, AutoNormal, data=(Y, SEEN), steps=400, **options)
    assert fit.elbo(4_000).value == pytest.approx(-13.92, abs=0.5)  # that of the model without the rest


def test_a_point_guide_has_no_density_to_take_out():
    one, other = (vi.fit(model, AutoDelta, data=(Y, SEEN), steps=300) for model in (partly, without_the_rest))
    assert one.elbo(10).value == pytest.approx(other.elbo(10).value, abs=1e-3)


def test_an_amortised_guide_is_not_trained_on_rows_that_are_masked():
    table = torch.randn(10, 3, generator=torch.Generator().manual_seed(1))
    kept = torch.arange(10) % 2 > 0

    class Autoencoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = torch.nn.Linear(3, 2)

        def model(self, x, kept):
            weight = pyro.param("weight", torch.ones(3))
            with pyro.plate("row", len(x)), poutine.mask(mask=kept):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z[:, None] * weight, 1.0).to_event(1), obs=x)

        def guide(self, x, kept, *, masked=False):
            pyro.module("encoder", self.encoder)
            loc, log_scale = self.encoder(x).unbind(-1)
            with pyro.plate("row", len(x)), poutine.mask(mask=kept) if masked else poutine.mask(mask=True):
                pyro.sample("z", dist.Normal(loc, log_scale.exp()))

    torch.manual_seed(0)
    module = Autoencoder()
    guides = module.guide, functools.partial(module.guide, masked=True)
    for options in ({}, {"batch_size": 4}):
        bare, masked = (vi.fit(module.model, guide, data=(table, kept), steps=50, **options) for guide in guides)
        torch.testing.assert_close(torch.tensor(bare.losses), torch.tensor(masked.losses), rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(bare.params["weight"], masked.params["weight"])


# --- weights, the log joint, and the verdict


def test_masked_elements_are_in_neither_density_of_a_guide_that_knows_each():
    fit = vi.fit(partly, AutoNormal, data=(Y, SEEN), steps=20)
    draws = fit.posterior.draws(5)
    mu, y = draws.latents["mu"], draws.latents["y_unobserved"]
    prior = dist.Normal(0.0, 1.0).log_prob(mu)
    likelihood = dist.Normal(mu[:, None], 0.8).log_prob(Y)[:, SEEN].sum(1)
    missing = dist.Normal(mu[:, None], 0.8).log_prob(y)[:, ~SEEN].sum(1)
    torch.testing.assert_close(draws.log_joint, (prior + likelihood + missing).double(), rtol=1e-5, atol=1e-5)
    p = fit.params
    q = dist.Normal(p["AutoNormal.locs.y_unobserved"], p["AutoNormal.scales.y_unobserved"]).log_prob(y)[:, ~SEEN].sum(1)
    q = q + dist.Normal(p["AutoNormal.locs.mu"], p["AutoNormal.scales.mu"]).log_prob(mu)
    torch.testing.assert_close(draws.log_q, q.double(), rtol=1e-5, atol=1e-5)


def test_masked_elements_are_standard_normal_where_the_guide_draws_one_vector():
    fit = vi.fit(partly, AutoMultivariateNormal, data=(Y, SEEN), steps=20)
    draws = fit.posterior.draws(5)
    mu, y = draws.latents["mu"], draws.latents["y_unobserved"]
    expected = dist.Normal(0.0, 1.0).log_prob(mu) + dist.Normal(mu[:, None], 0.8).log_prob(Y)[:, SEEN].sum(1)
    expected = expected + dist.Normal(mu[:, None], 0.8).log_prob(y)[:, ~SEEN].sum(1)
    expected = expected + dist.Normal(0.0, 1.0).log_prob(y)[:, SEEN].sum(1)
    torch.testing.assert_close(draws.log_joint, expected.double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", ["vmap", "plate", "loop"])
@pytest.mark.parametrize("guide", [AutoNormal, AutoMultivariateNormal])
def test_every_way_of_drawing_leaves_them_out(guide, way):
    posterior = vi.fit(partly, guide, data=(Y, SEEN), steps=200).posterior
    reference = posterior.draws(2_000, seed=1).log_weights
    posterior.vectorizer.allowed, posterior.vectorizer.chosen = (way,), {}
    found = posterior.draws(500, seed=2).log_weights
    assert set(posterior.vectorizer.chosen.values()) == {way}
    assert abs(float(found.mean() - reference.mean())) < 5 * float(reference.std()) * (1 / 500 + 1 / 2_000) ** 0.5


def test_the_ladder_takes_a_partly_observed_site():
    one, other = (vi.fit(model, data=(Y, SEEN)) for model in (partly, without_the_rest))
    assert one.elbo(4_000).value == pytest.approx(other.elbo(4_000).value, abs=0.02)
    found = one.diagnose()
    assert found.verdict is vi.diagnostics.Verdict.TRUST
    assert found.evidence.value == pytest.approx(other.diagnose().evidence.value, abs=0.02)
    judged = set(found.drift.draws.names)
    assert {f"y_unobserved[{i}]" for i in range(N)} & judged == {f"y_unobserved[{i}]" for i in range(N) if not SEEN[i]}
    assert "y[1]" not in judged  # observed, and the same in every draw


def test_a_verdict_does_not_mind_elements_that_were_never_trained():
    """Their parameters stand where they started, far from anything."""
    guide = functools.partial(AutoNormal, init_scale=5.0)

    def only_mu(y, seen):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("row", len(y)), poutine.mask(mask=seen):
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("y", dist.Normal(z, 0.5), obs=y)

    few = torch.arange(N) < 2
    fit = vi.fit(only_mu, guide, data=(Y, few), steps=600)
    found = fit.diagnose()
    assert found.drift is not None
    assert {name for name in found.drift.draws.names if name.startswith("z")} == {"z[0]", "z[1]"}
    assert float(fit.sample(500)["z"][:, 5].std()) > 3  # untouched


def test_a_masked_simplex_is_standard_normal_on_its_unconstrained_space():
    def model(kept):
        with pyro.plate("row", 2), poutine.mask(mask=kept):
            pyro.sample("p", dist.Dirichlet(torch.tensor([2.0, 1.0, 3.0])))
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=torch.tensor(0.3))

    program = Program(model, lambda *args: None, dtype=torch.float32, device=torch.device("cpu"))
    with seeded(0):
        joint = LogJoint(program, Arguments((torch.tensor([True, False]),)))
        u = torch.randn(4)
    value = joint.constrain(u)["p"]
    transform = torch.distributions.biject_to(constraints.simplex)
    expected = dist.Dirichlet(torch.tensor([2.0, 1.0, 3.0])).log_prob(value[0])
    expected = expected + transform.log_abs_det_jacobian(u[:2], value[0]) + dist.Normal(0.0, 1.0).log_prob(u[2:]).sum()
    torch.testing.assert_close(joint(u), expected + dist.Normal(0.0, 1.0).log_prob(torch.tensor(0.3)))
    assert value[1].isnan().all()  # it means nothing


# --- sequences, and masks of other kinds


def sequences(x, lengths):
    """Padded; the mask stands in the model alone."""
    a = pyro.sample("a", dist.Normal(0.5, 0.3))
    with pyro.plate("sequence", len(x)):
        z = torch.zeros(len(x))
        for t in range(x.shape[1]):
            with poutine.mask(mask=t < lengths):
                z = pyro.sample(f"z_{t}", dist.Normal(a * z, 1.0))
                pyro.sample(f"x_{t}", dist.Normal(z, 1.0), obs=x[:, t])


def evidence_of_sequences():
    """Without padding: Gaussian given a, over which a grid sums."""
    grid = torch.linspace(-2.0, 3.0, 2_001, dtype=torch.float64)
    total = dist.Normal(0.5, 0.3).log_prob(grid) + torch.log(grid[1] - grid[0])
    for x, length in zip(SEQUENCES.double(), LENGTHS.tolist(), strict=True):
        order = torch.arange(length)
        lag = (order[:, None] - order).clamp(min=0)
        response = torch.where(order[:, None] >= order, grid[:, None, None] ** lag, 0.0)
        covariance = response @ response.mT + torch.eye(length)
        total = total + dist.MultivariateNormal(torch.zeros(length, dtype=torch.float64), covariance).log_prob(
            x[:length]
        )
    return float(total.logsumexp(0))


@pytest.mark.parametrize("guide", [AutoNormal, AutoMultivariateNormal])
def test_padded_sequences_have_the_evidence_of_ragged_ones(guide):
    fit = vi.fit(sequences, guide, data=(SEQUENCES, LENGTHS), steps=600)
    found = vi.diagnostics.log_evidence(fit.log_weights(4_000))
    assert abs(found.value - evidence_of_sequences()) < 4 * found.se + 0.01


@pytest.mark.slow
def test_padded_sequences_are_certified():
    found = vi.fit(sequences, AutoMultivariateNormal, data=(SEQUENCES, LENGTHS), steps=2_000).diagnose()
    assert found.verdict is not vi.diagnostics.Verdict.DISTRUST


@pytest.mark.parametrize("how", ["poutine", "fn"])
def test_a_latent_masked_for_a_flat_prior_keeps_its_entropy(how):
    """Its value matters to the likelihood, so that it is no idle element: Pyro's meaning stands."""

    def flat(y):
        if how == "fn":
            mu = pyro.sample("mu", dist.Normal(0.0, 1.0).mask(False))
        else:
            with poutine.mask(mask=False):
                mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("row", len(y)):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    for guide, options in ((AutoNormal, {"steps": 1_500}), (None, {})):
        draws = vi.fit(flat, guide, data=Y, **options).sample(4_000)["mu"]
        assert float(draws.mean()) == pytest.approx(float(Y.mean()), abs=0.05)
        assert float(draws.std()) == pytest.approx(N**-0.5, rel=0.1)


def test_only_the_latents_that_nothing_depends_on_are_idle():
    def model(y, seen):
        with poutine.mask(mask=False):
            mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("row", len(y)), poutine.mask(mask=seen):
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("y", dist.Normal(z, 0.5), obs=y)

    fit = vi.fit(model, AutoNormal, data=(Y, SEEN), steps=1)
    assert fit._trainer.program.masked == {"mu": "kept", "z": "left out"}
    assert list(fit.posterior.draws(1).counted) == ["z"]


def test_which_elements_count_is_read_from_every_kind_of_mask():
    mask = torch.tensor([True, False])
    node = {"mask": mask, "fn": dist.Normal(torch.zeros(2), 1.0).mask(torch.tensor([True, True]))}
    assert counting(node).tolist() == [True, False]
    assert counting({"mask": None, "fn": dist.Normal(torch.zeros(2), 1.0).mask(mask)}).tolist() == [True, False]
    assert counting({"mask": False, "fn": dist.Normal(0.0, 1.0)}).tolist() is False
    assert counting({"mask": True, "fn": dist.Normal(0.0, 1.0)}) is None
    assert counting({"mask": None, "fn": dist.Normal(0.0, 1.0)}) is None


def test_svi_is_pyros_own_masks_or_not():
    """A drop-in changes nothing."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    svi = vi.SVI(partly, AutoNormal(partly), pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    ours = [svi.step(Y, SEEN) for _ in range(10)]
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    svi = pyro.infer.SVI(partly, AutoNormal(partly), pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    assert ours == pytest.approx([svi.step(Y, SEEN) for _ in range(10)], rel=1e-5)


def test_fits_are_not_held_to_disagree_about_elements_that_mean_nothing():
    fits = {
        guide.__name__: vi.fit(partly, guide, data=(Y, SEEN), steps=5) for guide in (AutoNormal, AutoMultivariateNormal)
    }
    found = set(vi.diagnostics.disagreement(fits, num_draws=100).index)
    assert {f"y_unobserved[{i}]" for i in range(N)} & found == {f"y_unobserved[{i}]" for i in range(N) if not SEEN[i]}


def test_simulation_based_calibration_asks_about_elements_that_count():
    found = vi.vsbc(partly, AutoNormal, data=(Y, SEEN), steps=20, num_simulations=20, num_draws=50)
    assert set(found.names) == {"mu", *(f"y_unobserved[{i}]" for i in range(N) if not SEEN[i])}


def test_a_mask_with_nothing_left_out_and_one_that_leaves_out_all():
    for seen in (torch.ones(N, dtype=torch.bool), torch.zeros(N, dtype=torch.bool)):
        fit = vi.fit(partly, AutoNormal, data=(Y, seen), steps=0)
        latents = {name: value[0] for name, value in fit.posterior.draws(1).latents.items()}
        expected = dist.Normal(0.0, 1.0).log_prob(latents["mu"])
        values = Y if bool(seen.all()) else latents["y_unobserved"]
        expected = expected + dist.Normal(latents["mu"], 0.8).log_prob(values).sum()
        assert float(fit.posterior.draws(1).log_joint) == pytest.approx(float(expected), rel=1e-5)


def test_a_latent_whose_masked_elements_break_the_model_is_not_idle():
    """It indexes with them."""

    def model(y, seen):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("row", len(y)):
            with poutine.mask(mask=seen):
                z = pyro.sample("z", dist.Normal(100.0, 100.0))
            if bool((z[~seen] > 1.0).any()):
                raise ValueError("too large")
            pyro.sample("y", dist.Normal(mu, 0.5), obs=y)

    def guide(y, seen):
        pyro.sample("mu", dist.Normal(pyro.param("at", torch.tensor(0.0)), 1.0))
        with pyro.plate("row", len(y)):
            pyro.sample("z", dist.Normal(torch.where(seen, 100.0, 0.0), 0.1))

    assert vi.fit(model, guide, data=(Y, SEEN), steps=1)._trainer.program.masked == {"z": "kept"}
