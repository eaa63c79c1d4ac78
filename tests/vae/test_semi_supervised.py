import math
import warnings

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO

import vipack as vi
from tests.vae.table import LIKELIHOODS, POSTERIORS, PRIORS, D, data_of
from vipack.errors import DataError, ShapeError, UsageError, VipackError
from vipack.vae import SemiSupervisedVAE, oversampled
from vipack.vae.likelihoods import Bernoulli, Gaussian
from vipack.vae.networks import MLP, ConvDecoder, ConvEncoder

CLASSES = 3
LOSS = TraceEnum_ELBO(max_plate_nesting=1)
X = data_of("Bernoulli")
Y = torch.where(torch.arange(len(X)) % 2 == 0, torch.arange(len(X)) % CLASSES, -1)


def small(likelihood=None, num_latents=2, seed=0, **options):
    torch.manual_seed(seed)
    likelihood = Bernoulli(D) if likelihood is None else likelihood
    width = math.prod(likelihood.feature_shape)
    networks = MLP(width, (8,)), MLP(num_latents + CLASSES, (8,)), MLP(width, (8,))
    return SemiSupervisedVAE(*networks, likelihood=likelihood, num_latents=num_latents, num_classes=CLASSES, **options)


def blobs(count=600, spread=0.4):
    """Points about three corners, ten labels for each."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(count) % CLASSES
    corners = torch.tensor([[0.0, 2.0], [-2.0, -1.0], [2.0, -1.0]])
    x = corners[labels] + spread * torch.randn(count, 2, generator=generator)
    return x, labels, torch.where(torch.arange(count) < 10 * CLASSES, labels, -1)


@pytest.fixture(scope="module")
def trained():
    x, labels, y = blobs()
    vae = small(Gaussian(2)).initialize(x, y)
    rows = oversampled(y, 0.2)
    optim = pyro.optim.Adam({"lr": 1e-2})
    fit = vi.fit(vae.model, vae.guide, data=(x[rows], y[rows]), batch_size=60, steps=500, loss=LOSS, optim=optim)
    return vae, fit, x, labels


# Likelihoods are traced without labels in test_vae.py.
TRACED = ("Bernoulli", "DiscretizedLogisticMixture linked", "MixedColumns")
RUNS = [(name, "traced" if name in TRACED else "eager") for name in LIKELIHOODS]
RUNS += [pytest.param(name, "traced", marks=pytest.mark.slow) for name in LIKELIHOODS if name not in TRACED]


@pytest.mark.parametrize(("name", "engine"), RUNS)
def test_every_likelihood_trains_with_labels_missing(name, engine):
    likelihood, x = LIKELIHOODS[name][0](), data_of(name)
    vae = small(likelihood).initialize(x, Y)
    fit = vi.fit(vae.model, vae.guide, data=(x, Y), batch_size=8, steps=10, loss=LOSS, engine=engine)
    assert fit.engine.tier == engine, fit.engine.reason
    assert fit.check.warnings == ()
    assert np.isfinite(fit.losses).all()
    assert fit.generate(3)["x"].shape == (3, *likelihood.shape)
    assert fit.posterior.rows_apart


@pytest.mark.parametrize("posterior", [name for name in POSTERIORS if name != "AutoregressiveFlow"])
@pytest.mark.parametrize("prior", [name for name in PRIORS if name != "VampPrior"])
def test_every_prior_and_posterior_is_summed_over_labels(prior, posterior):
    vae = small(prior=PRIORS[prior](), posterior=POSTERIORS[posterior]()).initialize(X, Y)
    fit = vi.fit(vae.model, vae.guide, data=(X, Y), batch_size=8, steps=3, loss=LOSS, engine="eager")
    assert np.isfinite(fit.losses).all()
    assert set(fit.sample(2)) == {"label", "z"}


def test_the_loss_is_the_formula_of_the_paper():
    """Equations 6, 7 and 9 of Kingma et al. (2014), for the draws of z that Pyro makes."""
    vae = small(alpha=7.0).initialize(X, Y)
    with pyro.get_param_store().scope():
        torch.manual_seed(3)
        loss = LOSS.loss(vae.model, vae.guide, X, Y)
        torch.manual_seed(3)
        eps = torch.randn(CLASSES, len(X), 2)  # the label has no random number, being enumerated
    known = Y >= 0
    log_probs = vae.classifier(X).log_softmax(-1)
    bounds = []
    for label in range(CLASSES):
        y = torch.full((len(X),), label)
        q = vae.encode(X, y)
        z = q.base_dist.loc + q.base_dist.scale * eps[label]
        prior = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
        bounds.append(vae.decode(z, y).log_prob(X) + prior - q.log_prob(z))
    bounds = torch.stack(bounds, -1)
    given = bounds[known, Y[known]] + 7.0 * log_probs[known, Y[known]]
    summed = (log_probs.exp() * (bounds - math.log(CLASSES) - log_probs)).sum(-1)[~known]
    assert loss == pytest.approx(-(given.sum() + summed.sum()).item(), rel=1e-5)


def test_the_classifier_term_is_of_training_alone():
    vae = small(alpha=1e6).initialize(X, Y)
    fit = vi.fit(vae.model, vae.guide, data=(X, Y), steps=1, loss=LOSS, engine="eager")
    assert fit.losses[0] > 1e6
    assert [site.name for site in fit.posterior.table] == ["label", "z", "x"]
    assert fit.elbo(100).value > -1e4
    assert vae.classifier.training


def test_it_classifies_and_clusters_from_few_labels(trained):
    vae, fit, x, labels = trained
    probs = vae.classify(fit, x)
    assert probs.shape == (len(x), CLASSES)
    torch.testing.assert_close(probs.sum(-1), torch.ones(len(x)))
    assert (probs.argmax(-1) == labels).float().mean() > 0.95
    torch.testing.assert_close(fit.encode((x, torch.full((len(x),), -1))).mean["label"], probs)


def test_a_fit_that_was_saved_classifies_arrays(trained, tmp_path):
    vae, fit, x, _ = trained
    fit.save(tmp_path / "labels.vi")
    loaded = vi.load(tmp_path / "labels.vi", vae.model, vae.guide, loss=LOSS, optim=pyro.optim.Adam({"lr": 1e-2}))
    torch.testing.assert_close(vae.classify(loaded, x.numpy()), vae.classify(fit, x))


def test_generated_points_are_of_the_class_asked_for(trained):
    _, fit, x, labels = trained
    new = fit.generate(data={"y": torch.full((300,), 1)})
    assert (new["label"] == 1).all()
    assert (new["x"].mean(0) - x[labels == 1].mean(0)).abs().max() < 0.4
    free = fit.generate(data={"y": torch.full((300,), -1)})["label"]
    assert free.unique().tolist() == [0, 1, 2]


def test_a_missing_label_costs_log_p_of_the_classes(trained):
    """log p(x) = log sum_y p(y) p(x | y), by weights of the guide's draws on both sides."""
    _, fit, x, _ = trained
    x = x[:60]
    missing = fit.log_evidence(3_000, data=(x, torch.full((60,), -1))).rows
    each = [fit.log_evidence(3_000, data=(x, torch.full((60,), k))).rows for k in range(CLASSES)]
    expected = np.logaddexp.reduce(np.stack(each), 0) - math.log(CLASSES)
    assert np.abs(np.median(missing - expected)) < 0.1


def test_it_is_judged_like_any_other(trained):
    _, fit, x, _ = trained
    figures = vi.vae.evaluate(fit, (x, torch.full((len(x),), -1)), num_particles=50, progress=False)
    assert figures.gaps is None  # a label cannot be moved
    assert np.isfinite(figures.mutual_information)
    assert fit.reconstruct((x[:4], torch.full((4,), -1)))["x"].shape == (4, 2)


def test_data_without_labels_and_plain_pyro_will_do():
    vae = small().initialize(X)
    with pyro.get_param_store().scope():
        svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), LOSS)
        losses = [svi.step(X) for _ in range(60)]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    fit = vi.fit(vae.model, vae.guide, data=X, steps=2, loss=LOSS, engine="eager")
    assert vae.classify(fit, X).shape == (len(X), CLASSES)


def test_images_reach_convolutions():
    x = torch.rand(12, 1, 8, 8).round()
    vae = SemiSupervisedVAE(
        ConvEncoder((1, 8, 8), (4,), 16),
        ConvDecoder(2 + CLASSES, (1, 8, 8), (4,), 4),
        ConvEncoder((1, 8, 8), (4,), 16),
        likelihood=Bernoulli((1, 8, 8)),
        num_latents=2,
        num_classes=CLASSES,
    ).initialize(x, Y[:12])
    fit = vi.fit(vae.model, vae.guide, data=(x, Y[:12]), batch_size=4, steps=2, loss=LOSS, engine="eager")
    assert vae.classify(fit, x).shape == (12, CLASSES)


def test_class_probabilities_are_the_prior_of_labels():
    vae = small(class_probs=[0.5, 0.3, 0.2])
    node = poutine.trace(vae.model).get_trace(X).nodes["label"]
    torch.testing.assert_close(node["fn"].probs[0], torch.tensor([0.5, 0.3, 0.2]))


@pytest.mark.parametrize("bad", [3, -2, 0.5])
def test_a_label_out_of_range_is_refused_with_one_error(bad):
    y = Y.float()
    y[7] = bad
    expected = rf"y: expected labels from 0 to 2, or -1 where missing, found \[{float(bad)}\]"
    with pytest.raises(DataError, match=expected):
        small().initialize(X, y)
    vae = small()
    with pytest.raises(VipackError, match=expected):
        vi.fit(vae.model, vae.guide, data=(X, y), batch_size=4, steps=3, loss=LOSS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1}, "num_classes must be an integer of at least 2"),
        ({"num_latents": 0}, "num_latents must be an integer of at least 1"),
        ({"alpha": -1.0}, "alpha must be a number of at least 0"),
        ({"class_probs": [0.5, 0.5]}, "class_probs must be 3 positive numbers"),
        ({"prior": PRIORS["VampPrior"]()}, "VampPrior"),
        ({"likelihood": Bernoulli}, "likelihood must be an instance"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    given = {"likelihood": Bernoulli(D), "num_latents": 2, "num_classes": CLASSES} | options
    with pytest.raises(UsageError, match=message):
        SemiSupervisedVAE(**given)


def test_classify_and_decode_ask_for_what_they_need(trained):
    vae, fit, x, _ = trained
    other = vi.vae.VAE(likelihood=Gaussian(2), num_latents=2)
    with pytest.raises(UsageError, match="no site 'label'"):
        vae.classify(vi.fit(other.model, other.guide, data=x, steps=0), x)
    with pytest.raises(ShapeError, match="site 'x'"):
        vae.classify(fit, x[:, :1])
    with pytest.raises(DataError, match="a label for each observation"):
        vae.decode(torch.randn(2, 2), torch.tensor([0, -1]))


def test_a_loss_that_draws_the_labels_is_warned_of():
    vae = small()
    said = vi.check(vae.model, vae.guide, data=(X, Y), loss=Trace_ELBO()).warnings
    assert ["marked for enumeration" in str(warning) for warning in said] == [True]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert vi.check(vae.model, vae.guide, data=(X, Y), loss=LOSS).warnings == ()


def test_oversampled_rows_are_all_rows_with_labels_at_their_share():
    y = torch.full((1_000,), -1)
    y[:10] = 2
    rows = oversampled(y, 0.25)
    assert set(rows.tolist()) == set(range(1_000))
    assert (y[rows] >= 0).float().mean() == pytest.approx(0.25, abs=0.01)
    assert len(oversampled(torch.zeros(5), 0.5)) == 5
    for bad in (0.0, 1.0):
        with pytest.raises(UsageError, match="share must be between 0 and 1"):
            oversampled(y, bad)
    with pytest.raises(DataError, match="no observation has a label"):
        oversampled(torch.full((5,), -1))


@pytest.mark.slow
def test_a_gaussian_likelihood_is_compiled():
    vae = small(Gaussian(D)).initialize(data_of("Gaussian"), Y)
    data = data_of("Gaussian", 200), torch.arange(200) % CLASSES
    fit = vi.fit(vae.model, vae.guide, data=data, batch_size=20, steps=5, loss=LOSS, engine="compiled")
    assert fit.engine.tier == "compiled", fit.engine.reason
