"""What is imputed, held against models whose missing entries have a distribution that is known."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDelta, AutoNormal
from torch import Tensor, nn

import vipack as vi
from tests.posterior.test_by_rows import NOISE, NUM_LATENTS, NUM_PIXELS, LinearVAE
from vipack.errors import DataError, TrustWarning, UsageError
from vipack.vae.likelihoods import Binary, Categories, Continuous, Counts, MixedColumns

GRID = torch.linspace(-6, 6, 2001)  # of a latent of one dimension


def gaps(x: Tensor, share: float = 0.5, seed: int = 4) -> Tensor:
    return torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < share


def simulated(vae: LinearVAE, count: int, seed: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(count, NUM_LATENTS, generator=generator)
    return z @ vae.decoder.weight.detach().T + NOISE * torch.randn(count, NUM_PIXELS, generator=generator)


def conditioned(vae: LinearVAE, x: Tensor, missing: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and sd of the missing entries given the others, of a normal distribution."""
    weight = vae.decoder.weight.detach().double()
    covariance = weight @ weight.T + NOISE**2 * torch.eye(NUM_PIXELS, dtype=torch.float64)
    mean, sd = x.double(), torch.zeros_like(x, dtype=torch.float64)
    for row, gone in enumerate(missing):
        there = ~gone
        gain = covariance[gone][:, there] @ torch.linalg.inv(covariance[there][:, there])
        mean[row, gone] = gain @ x[row, there].double()
        sd[row, gone] = (covariance[gone][:, gone] - gain @ covariance[there][:, gone]).diagonal().sqrt()
    return mean, sd


def fitted(vae: LinearVAE) -> vi.Fit:
    return vi.fit(vae.model, vae.guide, data=simulated(vae, 50, seed=1), steps=0)


@pytest.mark.parametrize(("error", "spread", "least"), [(0.0, 1.0, 800), (1.0, 1.0, 100), (0.0, 0.3, 400)])
def test_a_normal_is_conditioned_on_what_is_there_by_good_encoders_and_bad_ones(error, spread, least):
    vae = LinearVAE(error, spread)
    x = simulated(vae, 100)
    missing = gaps(x)
    missing[0], missing[1] = True, False
    answer = fitted(vae).impute(x.masked_fill(missing, torch.nan), num_draws=200)
    mean, sd = conditioned(vae, x, missing)
    error_in_se = ((answer.mean["x"] - mean) / sd * torch.tensor(answer.ess).sqrt()[:, None])[missing]
    assert error_in_se.square().mean() < 1.0  # less than 1, since means are those of p(x | z), not of draws
    assert error_in_se.abs().max() < 4.5
    assert ((answer.sd["x"] / sd)[missing] - 1).square().mean().sqrt() < 0.03
    assert np.nanmin(answer.ess) > least
    low, high = (answer.draws["x"].quantile(share, 0) for share in (0.05, 0.95))
    covered = ((x >= low) & (x <= high))[missing].double()
    assert abs(float(covered.mean()) - 0.9) < 4 * (0.09 / len(covered)) ** 0.5
    # What is there stays as it is.
    for values in (answer.mean["x"], *answer.draws["x"]):
        assert torch.equal(values[~missing], x[~missing])
    assert not answer.sd["x"][~missing].any()
    assert np.isnan(answer.ess[1])
    assert torch.equal(answer.missing["x"], missing)
    assert not len(answer.doubtful)


def test_draws_of_an_observation_go_together():
    vae = LinearVAE()
    x = simulated(vae, 1).expand(3, -1).clone()
    missing = torch.arange(NUM_PIXELS).expand(3, -1) >= 2
    drawn = fitted(vae).impute(x.masked_fill(missing, torch.nan), num_draws=4_000).draws["x"][:, 0, 2:]
    weight = vae.decoder.weight.detach()
    covariance = weight @ weight.T + NOISE**2 * torch.eye(NUM_PIXELS)
    true = covariance[2:, 2:] - covariance[2:, :2] @ torch.linalg.inv(covariance[:2, :2]) @ covariance[:2, 2:]
    assert torch.allclose(torch.cov(drawn.T), true, atol=0.08)


def test_an_observation_of_which_nothing_is_there_is_drawn_from_the_prior():
    vae = LinearVAE()
    answer = fitted(vae).impute(torch.full((4, NUM_PIXELS), torch.nan), num_draws=2_000)
    weight = vae.decoder.weight.detach()
    sd = (weight.square().sum(1) + NOISE**2).sqrt()
    assert (answer.mean["x"].abs() / sd).max() < 0.15
    assert torch.allclose(answer.sd["x"], sd.expand(4, -1), rtol=0.1)
    assert torch.allclose(answer.draws["x"].std((0, 1)), sd, rtol=0.1)


def test_nothing_missing_is_nothing_to_do():
    vae = LinearVAE()
    x = simulated(vae, 3)
    for observed in (None, torch.ones(3, NUM_PIXELS, dtype=torch.bool)):
        answer = fitted(vae).impute(x, observed=observed, num_draws=2)
        assert torch.equal(answer.mean["x"], x)
        assert torch.equal(answer.draws["x"], x.expand(2, -1, -1))
        assert not answer.sd["x"].any()
        assert np.isnan(answer.ess).all()
        assert "nothing is missing" in str(answer)


def test_a_mask_says_what_nan_says_and_what_lies_under_it_does_not_count():
    vae = LinearVAE()
    fit, x = fitted(vae), simulated(vae, 5)
    missing = gaps(x)
    one = fit.impute(x.masked_fill(missing, torch.nan), num_particles=200)
    two = fit.impute(x.masked_fill(missing, 1e6), observed=~missing, num_particles=200)
    three = fit.impute(x.numpy(), observed={"x": ~missing.numpy()}, num_particles=200)
    assert torch.equal(one.mean["x"], two.mean["x"])
    assert torch.equal(one.sd["x"], three.sd["x"])
    assert not torch.equal(one.mean["x"], fit.impute(x, observed=~missing, num_particles=200, seed=1).mean["x"])


def test_blocks_give_each_observation_its_own(monkeypatch):
    vae = LinearVAE()
    fit, x = fitted(vae), simulated(vae, 23)
    missing = gaps(x)
    monkeypatch.setattr("vipack.posterior.imputation._MOST_ROWS", 100)
    answer = fit.impute(x.masked_fill(missing, torch.nan))
    mean, sd = conditioned(vae, x, missing)
    assert ((answer.mean["x"] - mean) / sd)[missing].abs().max() < 0.25


def test_the_fit_is_left_as_it_was():
    vae = LinearVAE()
    fit, x = fitted(vae), simulated(vae, 5)
    before, state = fit.elbo(20).value, torch.get_rng_state()
    vae.train()
    fit.impute(x.masked_fill(gaps(x), torch.nan))
    assert fit.elbo(20).value == before
    assert torch.equal(torch.get_rng_state(), state)
    assert vae.training


class Curve(nn.Module):
    """One latent, and entries whose distribution is known at each of its values, so that sums over a grid are exact."""

    def __init__(self, make) -> None:
        super().__init__()
        self.make = make
        torch.manual_seed(0)
        self.encoder = nn.Linear(5, 2)

    def entries(self, z: Tensor):
        return self.make(torch.sin(z + torch.arange(5.0)) * 2)

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", self.entries(z).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            loc, raw = self.encoder(x.to(self.encoder.weight.dtype).clamp(-3, 3) / 3).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, 0.5 + raw.exp()).to_event(1))


CURVES = {
    "Bernoulli": lambda loc: dist.Bernoulli(logits=loc),
    "Poisson": lambda loc: dist.Poisson(loc.exp()),
    "ZeroInflatedPoisson": lambda loc: dist.ZeroInflatedPoisson(loc.exp(), gate=torch.tensor(0.3)),
    "Gamma": lambda loc: dist.Gamma(torch.tensor(3.0), loc.exp()),
    "Categorical": lambda loc: dist.Categorical(logits=torch.stack([loc, -loc, torch.zeros_like(loc)], -1)),
}


@pytest.mark.parametrize("name", CURVES)
def test_entries_of_any_kind_match_sums_over_a_grid(name):
    curve = Curve(CURVES[name])
    torch.manual_seed(1)
    x = curve.entries(torch.randn(40, 1)).sample()
    fit = vi.fit(curve.model, curve.guide, data=x, steps=0)
    missing = gaps(x)
    answer = fit.impute(x, observed=~missing, num_particles=4_000)
    entries = curve.entries(GRID[:, None, None])  # (G, 1, 5)
    density = entries.log_prob(x).masked_fill(missing, 0.0).sum(-1).double() - GRID[:, None].double() ** 2 / 2
    weights = density.softmax(0)[..., None]  # (G, N, 1)
    if name == "Categorical":
        probs = (weights[..., None] * entries.probs).sum(0)
        sure = missing & ((probs.topk(2, -1).values * torch.tensor([1, -1])).sum(-1) > 0.05)
        assert torch.equal(answer.mean["x"][sure], probs.argmax(-1)[sure])
        top = probs.amax(-1)
        mean, sd, given, scale = top, (top * (1 - top)).sqrt(), (1 - answer.sd["x"] ** 2), 1.0
        assert torch.allclose(answer.sd["x"][sure].double(), sd[sure], atol=0.03)
        return
    mean = (weights * entries.mean).sum(0)
    sd = ((weights * (entries.variance + entries.mean**2)).sum(0) - mean**2).sqrt()
    given, scale = answer.mean["x"], sd
    assert ((given - mean) / scale)[missing].abs().max() < 0.12
    assert ((answer.sd["x"] / sd)[missing] - 1).square().mean().sqrt() < 0.05


def test_tables_of_mixed_columns_match_sums_over_a_grid():
    columns = MixedColumns({"height": Continuous(), "smokes": Binary(), "region": Categories(3), "visits": Counts()})
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(300, generator=generator)
    table = torch.stack(
        [
            1.7 + 0.1 * z + 0.03 * torch.randn(300, generator=generator),
            (z > 0) * 1.0,
            (z > -0.5) + (z > 0.5) * 1.0,
            torch.poisson((1 + z).exp(), generator=generator),
        ],
        -1,
    )
    table[gaps(table, 0.2, seed=1)] = torch.nan
    torch.manual_seed(0)
    vae = vi.vae.VAE(likelihood=columns, num_latents=1).initialize(table)
    fit = vi.fit(vae.model, vae.guide, data=table, batch_size=100, steps=300)
    fit.to_pyro()
    vae.eval()
    few = table[:60]
    missing = few.isnan()
    answer = fit.impute(few, num_particles=4_000)
    with torch.no_grad():
        x_given_z = vae.decode(GRID[:, None, None])  # (G, 1)
        density = x_given_z.log_prob(few).double() - GRID[:, None].double() ** 2 / 2
        weights = density.softmax(0)[..., None]
        expectations = (weights * x_given_z.expectations).sum(0)
        squares = (weights * x_given_z.expected_squares).sum(0)
        sd = x_given_z.of_expectations(expectations, (squares - expectations**2).sqrt())
        mean = x_given_z.of_expectations(expectations)
    numbers = missing.clone()
    numbers[:, 2] = False
    assert ((answer.mean["x"] - mean) / sd)[numbers].abs().max() < 0.15
    assert (answer.mean["x"] == mean)[:, 2][missing[:, 2]].double().mean() > 0.95
    assert ((answer.sd["x"] / sd)[missing] - 1).square().mean().sqrt() < 0.1
    own = fit.impute()  # of the table itself
    assert own.mean["x"].shape == table.shape
    assert torch.equal(own.mean["x"][~table.isnan()], table[~table.isnan()])
    assert own.mean["x"].isfinite().all()


def test_a_guide_with_parameters_for_each_observation_imputes_those():
    vae = LinearVAE()
    x = simulated(vae, 20)
    missing = gaps(x, 0.3)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(torch.zeros(1, NUM_LATENTS), 1.0).to_event(1))
            with pyro.plate("pixels", NUM_PIXELS, dim=-1), pyro.poutine.mask(mask=x < 100):
                loc = (z @ vae.decoder.weight.detach().T)[..., 0, :]
                pyro.sample("x", dist.Normal(loc, NOISE), obs=x)

    x = x.masked_fill(missing, 1e6)
    fit = vi.fit(model, AutoNormal, data=x, steps=3_000, optim=pyro.optim.Adam({"lr": 0.02}))
    answer = fit.impute(observed=~missing, num_particles=4_000)
    mean, sd = conditioned(vae, x, missing)
    z = ((answer.mean["x"] - mean) / sd * torch.tensor(answer.ess).sqrt()[:, None])[missing]
    assert z.abs().max() < 4.5
    assert not len(answer.doubtful)


@pytest.mark.filterwarnings("ignore::vipack.errors.TrustWarning")  # of a k-hat of .8 among 25
def test_a_guide_with_densities_at_its_own_draws_alone_is_weighted_by_these():
    vae = LinearVAE(spread=2.0)
    torch.manual_seed(0)
    flow = dist.transforms.affine_autoregressive(NUM_LATENTS, [8])
    vae.flow = flow

    def guide(x: Tensor) -> None:
        pyro.module("vae", vae)
        with pyro.plate("data", len(x)):
            base = dist.MultivariateNormal(x @ vae.solve.T, scale_tril=vae.root)
            pyro.sample("z", dist.TransformedDistribution(base, [flow]))

    fit = vi.fit(vae.model, guide, data=simulated(vae, 50, seed=1), steps=0)
    x = simulated(vae, 30)
    missing = gaps(x, 0.3)
    answer = fit.impute(x.masked_fill(missing, torch.nan), num_particles=4_000, num_rounds=40)
    mean, sd = conditioned(vae, x, missing)
    error_in_se = ((answer.mean["x"] - mean) / sd * torch.tensor(answer.ess).sqrt()[:, None])[missing]
    assert error_in_se.square().mean() < 1.5


def test_binary_images_and_grey_ones_that_are_made_binary_are_completed():
    grey = torch.from_numpy(vi.datasets.digits().rows)[:200]
    torch.manual_seed(0)
    vae = vi.vae.VAE(likelihood=vi.vae.likelihoods.Bernoulli(64), num_latents=4).initialize(grey.round())
    fit = vi.fit(vae.model, vae.guide, data=grey, transform={"x": vi.transforms.Binarize()}, batch_size=100, steps=300)
    missing = (torch.arange(64) >= 32).expand(5, -1)
    answer = fit.impute(grey[:5].masked_fill(missing, torch.nan), num_draws=3, num_particles=500)
    assert ((answer.mean["x"] >= 0) & (answer.mean["x"] <= 1)).all()
    assert ((answer.draws["x"] == 0) | (answer.draws["x"] == 1)).all()


def test_conditions_stay_with_their_observations():
    torch.manual_seed(0)
    x, y = torch.randn(30, 4), torch.arange(30) % 3
    vae = vi.vae.VAE(likelihood=vi.vae.likelihoods.Gaussian(4), num_latents=2, condition=vi.vae.Labels(3)).initialize(
        x, y
    )
    fit = vi.fit(vae.model, vae.guide, data=(x, y), batch_size=10, steps=20)
    missing = gaps(x)
    answer = fit.impute((x.masked_fill(missing, torch.nan), y), num_particles=200)
    assert set(answer.mean) == {"x"}
    assert answer.mean["x"].isfinite().all()
    with pytest.raises(UsageError, match=r"the data are x, y; say of which the mask is, as in observed=\{'x': mask\}"):
        fit.impute((x, y), observed=~missing)


def test_colour_images_miss_whole_pixels():
    torch.manual_seed(0)
    x = torch.randint(0, 8, (6, 3, 2, 2)).float()
    likelihood = vi.vae.likelihoods.DiscretizedLogisticMixture((3, 2, 2), components=2, levels=8, linked=True)
    vae = vi.vae.VAE(likelihood=likelihood, num_latents=2).initialize(x)
    fit = vi.fit(vae.model, vae.guide, data=x, steps=0)
    whole = gaps(x[:, :1]).expand_as(x)
    answer = fit.impute(x, observed=~whole, num_draws=2)
    assert torch.equal(answer.draws["x"], answer.draws["x"].round())
    with pytest.raises(UsageError, match="site 'x' is a LinkedLogistic, whose entries depend on each other"):
        fit.impute(x, observed=~gaps(x), num_particles=200)


def test_entries_that_depend_on_each_other_are_missing_together():
    vae = LinearVAE()

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(NUM_LATENTS), 1.0).to_event(1))
            pyro.sample("x", dist.MultivariateNormal(vae.decoder(z), torch.eye(NUM_PIXELS)), obs=x)

    x = simulated(vae, 4)
    fit = vi.fit(model, vae.guide, data=x, steps=0)
    missing = torch.zeros_like(x, dtype=torch.bool)
    missing[1] = True
    assert fit.impute(x, observed=~missing, num_particles=200).mean["x"][1].abs().max() < 1.5
    missing[2, 0] = True
    with pytest.raises(
        UsageError, match="is a MultivariateNormal, whose entries depend on each other given the latents"
    ):
        fit.impute(x, observed=~missing)


def test_a_model_that_reads_what_is_missing_is_refused():
    torch.manual_seed(0)
    x = torch.poisson(torch.full((20, 5), 4.0))
    vae = vi.vae.VAE(likelihood=vi.vae.likelihoods.NegativeBinomial(5), num_latents=2).initialize(x)
    fit = vi.fit(vae.model, vae.guide, data=x, steps=0)
    with pytest.raises(UsageError, match=r"the model reads 'x' beside observing it, as a likelihood with library=True"):
        fit.impute(x, observed=~gaps(x))


def test_an_argument_that_is_not_observed_has_no_gaps():
    def model(x: Tensor, w: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(w, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor, w: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x + w) / 2, 1.0))

    x, w = torch.randn(5), torch.randn(5)
    fit = vi.fit(model, guide, data=(x, w), steps=0)
    w[2] = torch.nan
    with pytest.raises(
        DataError, match="entries of the argument 'w' are missing, and no observed site of the model holds it"
    ):
        fit.impute((x, w))


def test_points_are_refused():
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.randn(5)
    fit = vi.fit(model, AutoDelta, data=x, steps=5)
    with pytest.raises(UsageError, match="impute: the guide is a point at 'z', which has no density to weigh draws by"):
        fit.impute(observed=torch.tensor([True, False, True, True, True]))


BAD = {
    "shape": ({"observed": torch.ones(5, 2, dtype=torch.bool)}, DataError, r"observed\['x'\] has shape \(5, 2\), and the data"),
    "numbers": ({"observed": torch.ones(5, NUM_PIXELS)}, DataError, "must be booleans, True where an entry is there, found torch.f"),
    "text": ({"observed": "x"}, DataError, "must be booleans, True where an entry is there, found str"),
    "name": ({"observed": {"y": torch.ones(5, NUM_PIXELS) > 0}}, UsageError, "observed has 'y', and the data are x"),
    "nan": ({"observed": torch.ones(5, NUM_PIXELS) > 0}, DataError, r"x\[2, 1\] is NaN, and observed= says that it is there \(1"),
    "draws": ({"num_draws": -1}, UsageError, "num_draws"),
    "particles": ({"num_particles": 0}, UsageError, "num_particles"),
    "fills": ({"num_fills": 0}, UsageError, "num_fills"),
    "rounds": ({"num_rounds": -1}, UsageError, "num_rounds"),
    "seed": ({"seed": -1}, UsageError, "seed"),
    "progress": ({"progress": 3}, UsageError, "progress"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    options, error, message = BAD[case]
    vae = LinearVAE()
    x = simulated(vae, 5)
    x[2, 1] = torch.nan
    with pytest.raises(error, match=message):
        fitted(vae).impute(x, **options)


def test_a_value_that_cannot_be_observed_is_named():
    vae = vi.vae.VAE(likelihood=vi.vae.likelihoods.Bernoulli(4), num_latents=2)
    x = torch.tensor([[0.0, 1, 1, 0]] * 5)
    fit = vi.fit(vae.model, vae.guide, data=x, steps=0)
    x[1, 0], x[2, 2] = 0.5, torch.nan
    with pytest.raises(vi.errors.VipackError, match=r"site 'x'.*0\.5"):
        fit.impute(x)


def test_weights_that_cannot_be_trusted_are_told_of():
    vae = LinearVAE(error=3.0, spread=0.1)
    x = simulated(vae, 4)
    missing = torch.zeros_like(x, dtype=torch.bool)
    missing[[1, 3], 0] = True
    with pytest.warns(TrustWarning, match=r"the weights of 2 of 2 observations \(numbers 1, 3\) cannot be trusted"):
        answer = fitted(vae).impute(x, observed=~missing, num_particles=100, num_rounds=0)
    assert answer.doubtful.tolist() == [1, 3]
