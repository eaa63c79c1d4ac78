"""The deterministic autoencoder: a point for each observation and a flat prior."""

import pyro
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

import vipack as vi
from tests.vae.table import D, data_of, small_vae
from vipack.errors import ModelError, UsageError
from vipack.vae import VAE, LadderVAE, SemiSupervisedVAE
from vipack.vae.likelihoods import Bernoulli
from vipack.vae.networks import MLP
from vipack.vae.posteriors import Point
from vipack.vae.priors import Flat, FlowPrior, MixturePrior, StandardNormal

X = data_of("Bernoulli", 60)


def autoencoder(prior=None, seed=0):
    torch.manual_seed(seed)
    return VAE(
        MLP(D, (8,)),
        MLP(2, (8,)),
        likelihood=Bernoulli(D),
        num_latents=2,
        prior=Flat() if prior is None else prior,
        posterior=Point(),
    ).initialize(X)


@pytest.fixture(scope="module")
def trained():
    vae = autoencoder()
    return vae, vi.fit(vae.model, vae.guide, data=X, batch_size=20, steps=150, engine="traced")


def test_the_loss_is_the_reconstruction_error(trained):
    vae, fit = trained
    start = vi.fit(vae.model, vae.guide, data=X, steps=1, engine="eager")
    with torch.no_grad():
        logits = vae.decode(vae.encode(X).mean).base_dist.logits
    assert start.losses[0] == pytest.approx(
        binary_cross_entropy_with_logits(logits, X, reduction="sum").item(), rel=1e-5
    )
    assert fit.losses[-20:].mean() < fit.losses[:20].mean()
    assert fit.check.warnings == ()


def test_encodings_are_the_points_in_whatever_order(trained):
    _, fit = trained
    one, two = fit.encode(X).mean["z"], fit.encode(X.flip(0)).mean["z"].flip(0)
    torch.testing.assert_close(one, two)
    assert (fit.encode(X).sd["z"] == 0).all()
    assert fit.reconstruct(X[:3])["x"].shape == (3, D)


def test_it_generates_once_a_prior_is_fitted_to_its_encodings():
    vae = autoencoder()
    fit = vi.fit(vae.model, vae.guide, data=X, batch_size=20, steps=50, engine="eager")
    with pytest.raises(ModelError, match="'z' has an improper prior"):
        fit.generate(5)
    prior = MixturePrior(3)
    prior.build(2)
    codes = fit.encode(X).mean["z"]
    optim = pyro.optim.Adam({"lr": 0.05})
    vi.fit(prior.model, prior.guide, data=codes, steps=200, optim=optim, engine="eager").to_pyro()
    vae.prior = prior
    new = fit.generate(500)
    assert (new["z"].mean(0) - codes.mean(0)).abs().max() < 0.3 * codes.std()


def test_a_point_has_no_evidence_and_no_trust(trained):
    _, fit = trained
    with pytest.raises(UsageError, match="the guide is a point at 'z', which has no density"):
        fit.log_evidence(20, data=X)
    assert fit.diagnose(num_draws=50).verdict.value == "DISTRUST"
    vae = autoencoder(StandardNormal())
    proper = vi.fit(vae.model, vae.guide, data=X, steps=2, engine="eager")
    with pytest.raises(UsageError, match="point at 'z'"):
        proper.log_evidence(20)


def test_a_guide_with_points_of_its_own_for_each_row_is_refused_new_rows():
    vae = small_vae()

    def guide(x):
        loc = pyro.param("loc", torch.randn(len(X), 3))
        with pyro.plate("data", len(x)):
            pyro.sample("z", pyro.distributions.Delta(loc[: len(x)]).to_event(1))

    fit = vi.fit(vae.model, guide, data=X, steps=2, engine="eager")
    with pytest.raises(vi.errors.GuideError, match="parameters for each row"):
        fit.encode(X[:30])


def test_a_flat_prior_goes_with_points_alone():
    with pytest.raises(UsageError, match="posterior=Point"):
        VAE(likelihood=Bernoulli(D), num_latents=2, prior=Flat())
    options = {"likelihood": Bernoulli(D), "prior": Flat()}
    with pytest.raises(UsageError, match="Flat is a prior"):
        SemiSupervisedVAE(num_latents=2, num_classes=2, **options)
    with pytest.raises(UsageError, match="Flat is a prior"):
        LadderVAE([MLP(D)], [MLP(2)], num_latents=[2], **options)
    assert FlowPrior().proper
