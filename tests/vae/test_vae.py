import itertools

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from torch import nn

import vipack as vi
from tests.vae.table import LIKELIHOODS, NUM_LATENTS, POSTERIORS, PRIORS, data_of, small_vae
from vipack.errors import DataError, ShapeError, SupportError, UsageError, VipackError
from vipack.vae import VAE, Covariates, Labels
from vipack.vae.likelihoods import Bernoulli, Gaussian
from vipack.vae.networks import MLP, ConvDecoder, ConvEncoder
from vipack.vae.posteriors import AutoregressiveFlow, DiagonalNormal
from vipack.vae.priors import MixturePrior, VampPrior

PAIRS = [pair for pair in itertools.product(PRIORS, POSTERIORS) if pair != ("VampPrior", "AutoregressiveFlow")]
IMAGES = torch.rand(12, 1, 8, 8).round()
LABELS = torch.arange(12) % 3


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_every_combination_passes_the_check(name):
    # Priors and posteriors meet z alone and likelihoods x, so all pairs of those with one likelihood say it all.
    for prior, posterior in PAIRS if name == "Bernoulli" else PAIRS[:: len(POSTERIORS)]:
        vae = small_vae(name, prior, posterior)
        check = vi.check(vae.model, vae.guide, data=data_of(name), batch_size=8)
        assert check.ok, (prior, posterior, str(check))
        assert check.warnings == (), (prior, posterior)
        assert [site.name for site in check.table] == ["z", "x"]


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_every_likelihood_trains_in_minibatches(name):
    vae, x = small_vae(name), data_of(name)
    fit = vi.fit(vae.model, vae.guide, data=x, batch_size=8, steps=20, engine="traced")
    assert fit.engine.tier == "traced", fit.engine.reason
    assert np.isfinite(fit.losses).all()
    assert np.isfinite(fit.elbo(20).value)
    assert fit.generate(3)["x"].shape == (3, *vae.likelihood.shape)
    assert fit.encode(data_of(name, 5, seed=1)).mean["z"].shape == (5, NUM_LATENTS)
    assert fit.posterior.rows_apart  # every observation is judged by weights of its own
    assert set(fit.posterior.vectorizer.chosen.values()) <= {"vmap", "plate", "graph"}


@pytest.mark.parametrize(("prior", "posterior"), PAIRS, ids="-".join)
def test_every_prior_and_posterior_trains(prior, posterior):
    vae, x = small_vae("Bernoulli", prior, posterior), data_of("Bernoulli")
    fit = vi.fit(vae.model, vae.guide, data=x, batch_size=8, steps=5, engine="eager")
    assert np.isfinite(fit.losses).all()
    before = vi.fit(vae.model, vae.guide, data=x, batch_size=8, steps=0)
    still = [name for name, value in before.params.items() if torch.equal(value, fit.params[name])]
    assert still == []
    assert set(fit.posterior.draws(5).latents) == {"z"}


@pytest.mark.parametrize("name", ["Bernoulli", "Gaussian", "MixedColumns", "NegativeBinomial"])
def test_a_batch_of_one_and_vectorized_particles_run(name):
    vae, x = small_vae(name), data_of(name)
    loss = Trace_ELBO(num_particles=4, vectorize_particles=True)
    fit = vi.fit(vae.model, vae.guide, data=x[:1], steps=2, engine="eager", loss=loss)
    assert np.isfinite(fit.losses).all()
    guide = poutine.trace(vae.guide).get_trace(x)
    z = guide.nodes["z"]["value"]
    many = vae.decoder(torch.stack([z, 2 * z]), vae.read(x, None)[0])
    torch.testing.assert_close(many.log_prob(x)[0], vae.decoder(z, vae.read(x, None)[0]).log_prob(x))


def test_it_trains_in_plain_pyro():
    vae, x = small_vae(), data_of("Bernoulli")
    pyro.clear_param_store()
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    losses = [svi.step(x) for _ in range(60)]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])


def test_the_site_densities_are_the_formulas():
    vae, x = small_vae(), data_of("Bernoulli")
    guide = poutine.trace(vae.guide).get_trace(x)
    model = poutine.trace(poutine.replay(vae.model, trace=guide)).get_trace(x)
    z = guide.nodes["z"]["value"]
    features = vae.encoder.network(x)
    loc, raw = vae.encoder.posterior.head(features).chunk(2, -1)
    scale = nn.functional.softplus(raw) + 1e-4
    logits = vae.decoder.head(vae.decoder.network(z)) + vae.decoder.bias[0]
    normal = torch.distributions.Normal
    for trace, name, expected in (
        (guide, "z", normal(loc, scale).log_prob(z).sum(-1)),
        (model, "z", normal(0, 1).log_prob(z).sum(-1)),
        (model, "x", (x * logits - nn.functional.softplus(logits)).sum(-1)),
    ):
        trace.compute_log_prob()
        torch.testing.assert_close(trace.nodes[name]["log_prob"], expected)


def test_guide_and_model_declare_their_own_parameters():
    vae, x = small_vae(prior="MixturePrior"), data_of("Bernoulli")
    for program, expected in ((vae.guide, {"encoder"}), (vae.model, {"decoder", "prior"})):
        trace = poutine.trace(program).get_trace(x)
        assert {name.partition("$$$")[0] for name in trace.param_nodes} == expected


def test_initialize_starts_at_the_mean_of_the_data():
    x = (torch.rand(2_000, 5) < torch.tensor([0.05, 0.2, 0.5, 0.8, 0.99])).float()
    vae = VAE(likelihood=Bernoulli(5), num_latents=2).initialize(x)
    with torch.no_grad():
        mean = vae.decode(torch.randn(500, 2)).mean.mean(0)
    assert float((mean - x.mean(0)).abs().max()) < 0.1


def test_images_and_convolutions():
    vae = VAE(
        ConvEncoder((1, 8, 8), (4, 8), 16),
        ConvDecoder(NUM_LATENTS, (1, 8, 8), (8, 4), 4),
        likelihood=Bernoulli((1, 8, 8)),
        num_latents=NUM_LATENTS,
    ).initialize(IMAGES)
    assert isinstance(vae.decoder.head, nn.Conv2d)
    fit = vi.fit(vae.model, vae.guide, data=IMAGES, batch_size=4, steps=3, engine="eager")
    assert fit.predict(2)["x"].shape == (2, 12, 1, 8, 8)
    assert np.isfinite(fit.elbo(10).value)


@pytest.mark.parametrize(
    ("condition", "y"),
    [(Labels(3), LABELS), (Labels(3, 2), torch.stack([LABELS, LABELS % 2], -1)), (Covariates(2), torch.randn(12, 2))],
    ids=["labels", "columns of labels", "covariates"],
)
@pytest.mark.parametrize("shape", [(64,), (1, 8, 8)], ids=["vector", "image"])
def test_a_condition_reaches_encoder_and_decoder(condition, y, shape):
    x = IMAGES.reshape(12, *shape)
    vae = VAE(likelihood=Bernoulli(shape), num_latents=2, condition=condition).initialize(x, y)
    other = y.flip(0)
    assert not torch.equal(vae.encode(x, y).base_dist.loc, vae.encode(x, other).base_dist.loc)
    z = torch.randn(12, 2)
    assert not torch.equal(vae.decode(z, y).mean, vae.decode(z, other).mean)
    fit = vi.fit(vae.model, vae.guide, data=(x, y), batch_size=4, steps=2, engine="traced")
    assert fit.engine.tier == "traced", fit.engine.reason
    assert np.isfinite(fit.elbo(10).value)


def test_a_later_batch_with_a_label_out_of_range_is_refused():
    y = LABELS.clone()
    y[7] = 3
    vae = VAE(likelihood=Bernoulli(64), num_latents=2, condition=Labels(3))
    x = IMAGES.reshape(12, 64)
    with pytest.raises(SupportError, match=r"site 'x': its condition y: expected labels from 0 to 2, found \[3\]"):
        vi.check(vae.model, vae.guide, data=(x, y), batch_size=2).raise_if_bad()
    rows = torch.utils.data.TensorDataset(x, y)  # of which nobody knows the extremes
    for engine in ("eager", "traced"):
        with pytest.raises(VipackError, match=r"y: expected labels from 0 to 2, found \[3\]; count classes from 0.$"):
            vi.fit(vae.model, vae.guide, data=rows, batch_size=1, steps=40, engine=engine)


def test_data_that_cannot_be_used_are_refused_before_training():
    vae = VAE(likelihood=Bernoulli((1, 8, 8)), num_latents=2)
    for x, error, message in (
        ((255 * IMAGES).byte(), SupportError, r"site 'x': Bernoulli takes values in \[0, 1\].* divide by 255"),
        (IMAGES / 2, SupportError, "site 'x': .* grey levels such as .*0.5.* torch.bernoulli"),
        (torch.where(IMAGES == 0, torch.nan, IMAGES), SupportError, "site 'x': Bernoulli found .* NaN"),
        (IMAGES.movedim(1, -1), ShapeError, r"site 'x': .* \(N, 1, 8, 8\), found \(12, 8, 8, 1\).* x.movedim"),
        (IMAGES[0], ShapeError, r"site 'x': .* found \(1, 8, 8\).* x\[None\]"),
        (IMAGES[:, 0], ShapeError, r"found \(12, 8, 8\).* x\[:, None\]"),
        (IMAGES.flatten(1), ShapeError, r"found \(12, 64\).* x.reshape\(-1, 1, 8, 8\)"),
        (IMAGES[..., :7], ShapeError, r"found \(12, 1, 8, 7\)"),
    ):
        with pytest.raises(error, match=message):
            vae.initialize(x)
        check = vi.check(vae.model, vae.guide, data=x)
        with pytest.raises(error, match=message):
            check.raise_if_bad()


def test_one_bad_row_anywhere_is_seen_before_training():
    x = torch.rand(200, 6).round()
    x[150, 2] = 17.0
    vae = small_vae()
    check = vi.check(vae.model, vae.guide, data=x, batch_size=5)
    with pytest.raises(SupportError, match=r"found \[17.0\]"):
        check.raise_if_bad()


def test_a_condition_that_is_missing_or_too_much_is_refused():
    x, _ = IMAGES.reshape(12, 64), LABELS
    conditional = VAE(likelihood=Bernoulli(64), num_latents=2, condition=Labels(3))
    with pytest.raises(DataError, match=r"y: .* labels from 0 to 2; expected a tensor with \(12,\), found none"):
        conditional.initialize(x)
    with pytest.raises(ShapeError, match=r"y: .* shape \(12,\), .* found \(12, 1\)"):
        conditional.initialize(x, LABELS[:, None])
    with pytest.raises(UsageError, match="y: this VAE has no condition"):
        VAE(likelihood=Bernoulli(64), num_latents=2).initialize(x, LABELS)


def test_networks_that_do_not_fit_are_refused_when_built():
    likelihood = Bernoulli(64)
    with pytest.raises(ShapeError, match=r"site 'z': the encoder MLP .* inputs of shape \(2, 64\)"):
        VAE(MLP(63), likelihood=likelihood, num_latents=2)
    with pytest.raises(ShapeError, match=r"site 'x': the decoder MLP .* inputs of shape \(2, 5\).* condition too"):
        VAE(decoder=MLP(2), likelihood=likelihood, num_latents=2, condition=Labels(3))
    with pytest.raises(ShapeError, match=r"site 'x': the decoder puts out \(60,\) .* needs \(1, 64\)"):
        VAE(decoder=nn.Linear(2, 60), likelihood=likelihood, num_latents=2, head=False)
    with pytest.raises(UsageError, match=r"encoder: expected a torch.nn.Module"):
        VAE(MLP, likelihood=likelihood, num_latents=2)
    with pytest.raises(
        UsageError, match=r"likelihood must be .* likelihood=Bernoulli\(784\); found the class Bernoulli"
    ):
        VAE(likelihood=torch.distributions.Bernoulli, num_latents=2)
    with pytest.raises(UsageError, match=r"prior must be .* prior=MixturePrior\(20\); found the class MixturePrior"):
        VAE(likelihood=likelihood, num_latents=2, prior=MixturePrior)
    with pytest.raises(UsageError, match=r"condition must be .* condition=Labels\(10\); found int"):
        VAE(likelihood=likelihood, num_latents=2, condition=10)
    with pytest.raises(UsageError, match="num_latents must be a positive integer"):
        VAE(likelihood=likelihood, num_latents=0)


def test_a_decoder_that_puts_out_everything_needs_no_head():
    vae = VAE(decoder=nn.Linear(2, 64), likelihood=Bernoulli((1, 8, 8)), num_latents=2, head=False)
    z = torch.randn(5, 2)
    expected = vae.decoder.network(z).sigmoid().reshape(5, 1, 8, 8)
    torch.testing.assert_close(vae.decode(z).mean, expected)


def test_batch_norm_on_a_batch_of_one_is_explained():
    encoder = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU())
    vae = VAE(encoder, likelihood=Bernoulli(6), num_latents=2)
    assert encoder.training
    assert encoder[1].num_batches_tracked == 0  # building runs it once, and leaves it as it was
    x = data_of("Bernoulli")
    with pytest.raises(ShapeError, match=r"site 'z': the encoder Sequential .* \(1, 6\).* BatchNorm needs two"):
        vi.fit(vae.model, vae.guide, data=x[:1], steps=1)
    assert np.isfinite(vi.fit(vae.model, vae.guide, data=x, batch_size=8, steps=2, engine="eager").losses).all()


def test_building_draws_no_random_numbers_but_for_weights():
    torch.manual_seed(0)
    encoder, decoder = nn.Sequential(nn.Dropout(), nn.Linear(6, 8)), nn.Linear(2, 8)
    state = torch.get_rng_state()
    vae = VAE(encoder, decoder, likelihood=Bernoulli(6), num_latents=2)
    weight = vae.encoder.posterior.head.weight.clone()
    torch.set_rng_state(state)
    again = VAE(encoder, decoder, likelihood=Bernoulli(6), num_latents=2)
    assert torch.equal(weight, again.encoder.posterior.head.weight)


def test_priors_and_posteriors_belong_to_one_size():
    prior, posterior = MixturePrior(3), DiagonalNormal()
    VAE(likelihood=Bernoulli(6), num_latents=2, prior=prior, posterior=posterior)
    VAE(likelihood=Bernoulli(9), num_latents=2, prior=prior)
    with pytest.raises(UsageError, match="already belongs to a model with 2 latents, found 3 latents"):
        VAE(likelihood=Bernoulli(6), num_latents=3, prior=prior)
    with pytest.raises(UsageError, match="already belongs to a model with 400 features and 2 latents"):
        VAE(likelihood=Bernoulli(6), num_latents=3, posterior=posterior)
    with pytest.raises(UsageError, match="VampPrior: needs densities of posteriors at any point"):
        VAE(likelihood=Bernoulli(6), num_latents=2, prior=VampPrior(3), posterior=AutoregressiveFlow())


def test_an_unknown_option_says_what_was_meant():
    with pytest.raises(TypeError, match="VAE takes no argument 'latent_dim'"):
        VAE(likelihood=Bernoulli(6), latent_dim=2)


def test_it_runs_in_double_precision():
    vae = VAE(MLP(6, (8,)), MLP(2, (8,)), likelihood=Gaussian(6), num_latents=2)
    x = data_of("Gaussian").double()
    vae.initialize(x)
    fit = vi.fit(vae.model, vae.guide, data=x, steps=2, engine="eager")
    assert {value.dtype for value in fit.params.values()} == {torch.float64}
    assert fit.sample(3)["z"].dtype == torch.float64
    vae.double().initialize(x.numpy())
    assert vae.encode(x).mean.dtype == torch.float64
    with pytest.raises(RuntimeError, match="dtype"):  # torch's own: it is not the shape that is wrong
        small_vae().encode(data_of("Bernoulli").double())
