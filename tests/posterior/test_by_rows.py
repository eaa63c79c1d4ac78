"""Observations that each have latents of their own: what is said of each, held against a model whose evidence is known."""

import functools

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn

import vipack as vi
from vipack.errors import DataError, GuideError, SupportError, UsageError
from vipack.posterior import RowBounds, RowEvidence

NUM_PIXELS, NUM_LATENTS, NOISE = 6, 2, 0.5


class LinearVAE(nn.Module):
    """z ~ N(0, I), x ~ N(W z, NOISE^2 I), with an encoder that is off by `error`, and `spread` times too wide."""

    def __init__(self, error: float = 0.0, spread: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.decoder = nn.Linear(NUM_LATENTS, NUM_PIXELS, bias=False)
        self.dropout = nn.Dropout(0.5)
        weight = self.decoder.weight.detach()
        covariance = torch.linalg.inv(torch.eye(NUM_LATENTS) + weight.T @ weight / NOISE**2)
        self.register_buffer("solve", covariance @ weight.T / NOISE**2)
        self.register_buffer("root", torch.linalg.cholesky(covariance) * spread)
        self.error = error

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(NUM_LATENTS), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), NOISE).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("vae", self)
        with pyro.plate("data", len(x)):
            loc = self.dropout(x) @ self.solve.T + self.error
            pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=self.root))

    def log_evidence(self, x: Tensor) -> Tensor:
        weight = self.decoder.weight.detach()
        covariance = weight @ weight.T + NOISE**2 * torch.eye(NUM_PIXELS)
        return dist.MultivariateNormal(torch.zeros(NUM_PIXELS), covariance).log_prob(x)


def rows(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, NUM_PIXELS, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def exact() -> tuple[LinearVAE, vi.Fit]:
    vae = LinearVAE()
    return vae, vi.fit(vae.model, vae.guide, data=rows(50), steps=0)


@pytest.fixture(scope="module")
def rough() -> tuple[LinearVAE, vi.Fit]:
    vae = LinearVAE(error=0.1, spread=1.3)
    return vae, vi.fit(vae.model, vae.guide, data=rows(50), batch_size=20, steps=0)


def test_the_posterior_itself_gives_the_evidence_of_each_row_without_error(exact):
    vae, fit = exact
    new = rows(7, seed=2)
    for answer in (fit.log_evidence(3, data=new), fit.elbo(3, data=new)):
        np.testing.assert_allclose(answer.rows, vae.log_evidence(new), atol=2e-5)
        np.testing.assert_allclose(answer.row_se, 0.0, atol=2e-5)
        assert answer.value == pytest.approx(float(vae.log_evidence(new).sum()), abs=1e-4)


def test_evidence_by_importance_sampling_is_within_its_errors(rough):
    vae, fit = rough
    new = rows(40, seed=3)
    answer = fit.log_evidence(4_000, data=new)
    assert isinstance(answer, RowEvidence)
    z = (answer.rows - vae.log_evidence(new).numpy()) / answer.row_se
    assert np.abs(z).max() < 4.5
    assert 0.5 < z.std() < 1.5
    assert (answer.khats < 0.7).all()
    assert answer.num_particles == 4_000
    assert "40 observations" in str(answer)


def test_the_bias_is_that_of_few_particles(rough):
    vae, fit = rough
    new = rows(1, seed=4).expand(4_000, -1)
    answer = fit.log_evidence(20, data=new)
    true = float(answer.rows.mean()) - float(vae.log_evidence(new[:1]))
    assert 3 * true < answer.bias < 0.9 * true < -0.004  # so few weights do not show their tail


def test_the_bound_falls_short_by_the_divergence(rough):
    vae, fit = rough
    new = rows(30, seed=5)
    answer = fit.elbo(4_000, data=new)
    assert isinstance(answer, RowBounds)
    root, wide = LinearVAE().root, vae.root
    p, q = (dist.MultivariateNormal(torch.full((2,), shift), scale_tril=r) for shift, r in ((0.0, root), (0.1, wide)))
    gap = float(torch.distributions.kl_divergence(q, p))
    z = (answer.rows - (vae.log_evidence(new).numpy() - gap)) / answer.row_se
    assert np.abs(z).max() < 4.5
    assert answer.per_row.value == pytest.approx(answer.rows.mean())


def test_blocks_give_each_row_its_own(rough, monkeypatch):
    vae, fit = rough
    new = rows(23, seed=6)
    whole = fit.log_evidence(2_000, data=new)
    monkeypatch.setattr("vipack.posterior.by_rows._MOST_ROWS", 5)
    cut = fit.log_evidence(2_000, data=new)
    np.testing.assert_allclose(cut.rows[:5], whole.rows[:5], atol=0.2)
    z = (cut.rows - vae.log_evidence(new).numpy()) / cut.row_se
    assert np.abs(z).max() < 5
    encoded = fit.encode(new)
    torch.testing.assert_close(encoded.mean["z"], new @ vae.solve.T + vae.error)


def test_scales_of_the_program_are_left_out():
    vae = LinearVAE()

    def scaled(function):
        return pyro.poutine.scale(function, scale=0.3)

    fit = vi.fit(scaled(vae.model), scaled(vae.guide), data=rows(30), batch_size=10, steps=0)
    np.testing.assert_allclose(fit.log_evidence(2).rows, vae.log_evidence(rows(30)), atol=2e-5)


def test_encodings_are_the_guides_moments_and_draws(exact):
    vae, fit = exact
    new = rows(9, seed=7)
    encoded = fit.encode(new, num_draws=3_000)
    covariance = vae.root @ vae.root.T
    torch.testing.assert_close(encoded.mean["z"], new @ vae.solve.T)
    torch.testing.assert_close(encoded.sd["z"], covariance.diagonal().sqrt().expand(9, 2))
    assert encoded.exact == {"z"}
    assert encoded.draws["z"].shape == (3_000, 9, 2)
    torch.testing.assert_close(encoded.draws["z"].mean(0), encoded.mean["z"], atol=0.05, rtol=0)
    assert fit.encode(num_draws=0).draws == {}
    assert fit.encode().mean["z"].shape == (50, 2)


def test_moments_that_depend_on_other_draws_are_averaged():
    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            b = pyro.sample("b", dist.LogNormal(a, 1.0))
            pyro.sample("x", dist.Normal(b, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x, 0.1))
            pyro.sample("b", dist.LogNormal(a, 0.1))

    fit = vi.fit(model, guide, data=torch.linspace(-1, 1, 5), steps=0)
    encoded = fit.encode()
    assert encoded.exact == {"a"}
    torch.testing.assert_close(encoded.mean["b"], torch.linspace(-1, 1, 5).exp(), rtol=0.08, atol=0)


def test_reconstructions_are_the_models_means(exact):
    vae, fit = exact
    new = rows(9, seed=8)
    expected = vae.decoder(new @ vae.solve.T).detach()
    torch.testing.assert_close(fit.reconstruct(new, num_draws=4_000)["x"], expected, atol=0.05, rtol=0)


def test_generated_rows_have_the_models_distribution_and_do_not_call_the_guide(exact):
    vae, _ = exact

    def guide(x):
        if guide.closed:
            raise AssertionError("the guide was called")
        vae.guide(x)

    guide.closed = False
    fit = vi.fit(vae.model, guide, data=rows(50), steps=0)
    _ = fit.posterior
    guide.closed = True
    new = fit.generate(20_000, seed=3)
    assert new["x"].shape == (20_000, NUM_PIXELS)
    assert new["z"].shape == (20_000, NUM_LATENTS)
    weight = vae.decoder.weight.detach()
    covariance = weight @ weight.T + NOISE**2 * torch.eye(NUM_PIXELS)
    torch.testing.assert_close(new["x"].T.cov(), covariance, atol=0.03, rtol=0)
    torch.testing.assert_close(new["x"], fit.generate(20_000, seed=3)["x"])
    assert not torch.equal(new["x"], fit.generate(20_000, seed=4)["x"])


def test_generation_given_labels():
    def model(x, label):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + 100.0 * label, 1.0), obs=x)

    def guide(x, label):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("a", torch.zeros(())), 1.0))

    labels = torch.tensor([0, 1, 2, 2])
    fit = vi.fit(model, guide, data=(labels * 100.0, labels), steps=0)
    new = fit.generate(data={"label": torch.tensor([2, 0])})
    torch.testing.assert_close(new["x"], torch.tensor([200.0, 0.0]), atol=10, rtol=0)
    drawn = fit.generate(1_000)["x"]
    assert ((drawn > 150).float().mean() - 0.5).abs() < 0.06  # two of four labels
    with pytest.raises(UsageError, match=r"'colour'.*x, label"):
        fit.generate(2, data={"colour": torch.zeros(2)})
    with pytest.raises(vi.errors.DataError, match=r"label.*2 rows, and 3"):
        fit.generate(3, data={"label": torch.tensor([2, 0])})


@pytest.mark.parametrize("ask", ["log_evidence", "elbo", "encode", "reconstruct"])
def test_latents_that_are_shared_are_named(ask):
    def model(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(w, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    fit = vi.fit(model, AutoNormal, data=torch.zeros(40), steps=0)
    with pytest.raises(UsageError, match=f"{ask}.*'w' is shared"):
        getattr(fit, ask)(data=torch.zeros(3))


def test_guides_with_parameters_for_rows_answer_for_their_own_rows_alone():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.linspace(-2, 2, 30)
    fit = vi.fit(model, AutoNormal, data=x, steps=300)
    torch.testing.assert_close(fit.encode(num_draws=4_000).mean["z"], x / 2, atol=0.15, rtol=0)
    exact = dist.Normal(0.0, 2**0.5).log_prob(x)
    np.testing.assert_allclose(fit.log_evidence(2_000).rows, exact, atol=0.1)
    for count in (7, 30):  # as many as the fit's, whose parameters would be taken for theirs
        with pytest.raises(GuideError, match="amortised"):
            fit.log_evidence(data=torch.zeros(count))


def test_parameters_for_rows_are_seen_before_they_differ():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        loc = pyro.param("loc", torch.zeros(5))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0))

    fit = vi.fit(model, guide, data=torch.zeros(5), steps=0)
    with pytest.raises(GuideError, match="each row of the fit's data"):
        fit.elbo(data=torch.ones(5))
    assert fit.encode().mean["z"].shape == (5,)


def test_networks_are_in_evaluation_mode_and_stay_as_they_were(exact):
    vae, fit = exact
    vae.train()
    new = rows(4, seed=9)
    one, two = fit.encode(new).mean["z"], fit.encode(new).mean["z"]
    assert torch.equal(one, two)  # no dropout
    assert vae.dropout.training


def test_evidence_of_shared_latents_is_that_of_all_data_together():
    def model(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w, 1.0), obs=x)

    def guide(x):
        pyro.sample("w", dist.Normal(x.sum() / (len(x) + 1), (len(x) + 1) ** -0.5))

    x = torch.linspace(-1, 2, 10)
    exact = dist.MultivariateNormal(torch.zeros(10), torch.eye(10) + 1.0).log_prob(x)
    assert vi.fit(model, guide, data=x, steps=0).log_evidence(50).value == pytest.approx(float(exact), abs=1e-4)


def test_many_rows_are_judged_by_some_of_them():
    vae, other = LinearVAE(error=0.1, spread=1.2), LinearVAE(error=0.3, spread=1.2)
    many = rows(6_000, seed=10)
    seen = []

    def counted(x):
        seen.append(len(x))
        return vae.model(x)

    fit = vi.fit(counted, vae.guide, data=many, batch_size=100, steps=0)
    _ = fit.posterior
    seen.clear()
    diagnosis = fit.diagnose(500)
    assert max(seen) == 200
    assert "200 of 6,000 rows" in str(diagnosis)
    exact = float(vae.log_evidence(many).sum())
    assert abs(diagnosis.evidence.value - exact) < 4 * diagnosis.evidence.se
    whole = fit.elbo(50, data=many)
    assert abs(diagnosis.elbo.value - whole.value) < 4 * diagnosis.elbo.se
    assert diagnosis.elbo.se > 5 * whole.se  # which rows they are is most of the error
    table = vi.compare({"one": fit, "two": vi.fit(other.model, other.guide, data=many, steps=0)}, num_draws=500)
    gap = whole.value - vi.fit(other.model, other.guide, data=many, steps=0).elbo(50, data=many).value
    assert abs(table.loc["two", "elbo_diff"] - gap) < 4 * table.loc["two", "diff_se"]
    assert table.loc["two", "diff_se"] < table.loc["two", "elbo_se"] / 3  # the same rows and random numbers


def test_labels_are_reconstructed_as_the_likeliest_one():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Categorical(logits=torch.stack([z, -z, 3 * z], -1)), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(2.0 * (x > 1) - 1.0, 0.01))

    fit = vi.fit(model, guide, data=torch.tensor([0, 2, 1]), steps=0)
    assert fit.reconstruct()["x"].tolist() == [1.0, 2.0, 1.0]


def bits(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Bernoulli(logits=z.unsqueeze(-1).expand(-1, 3)).to_event(1), obs=x)


def of_bits(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.mean(-1), 1.0))


BAD = {
    "bytes": (torch.tensor([[0.0, 1.0, 255.0]]), "255"),
    "grey": (torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.5, 1.0]]), r"0\.5"),
    "missing": (torch.tensor([[0.0, torch.nan, 1.0]]), "(NaN|nan)"),
}


@pytest.mark.parametrize(
    "ask", ["log_evidence", "annealed_evidence", "elbo", "encode", "reconstruct", "posterior_of", "validation"]
)
@pytest.mark.parametrize("kind", BAD)
def test_new_observations_that_the_model_cannot_observe_are_told(kind, ask):
    """Their density is no density: 600,000 nats an image for bytes under a Bernoulli."""
    fit = vi.fit(bits, of_bits, data=torch.ones(40, 3), steps=0)
    rows, said = BAD[kind]
    data = torch.cat([torch.ones(600, 3), rows])  # beyond the first block
    again = functools.partial(vi.fit, bits, of_bits, steps=0)
    asked = (
        functools.partial(again, data=torch.ones(40, 3), validation=data)
        if ask == "validation"
        else functools.partial(getattr(fit, ask), data=data)
    )
    with pytest.raises((SupportError, DataError), match=f"'x'.*{said}"):
        asked()


@pytest.mark.parametrize("seed", [-1, 2**32, 0.5, True])
@pytest.mark.parametrize("ask", ["generate", "encode", "log_evidence", "sample", "predict", "elbo"])
def test_seeds_are_checked(ask, seed):
    fit = vi.fit(bits, of_bits, data=torch.ones(40, 3), steps=0)
    with pytest.raises(UsageError, match="seed: expected an integer"):
        getattr(fit, ask)(
            *([5] if ask == "generate" else []), seed=seed, **({"num_draws": 2} if ask == "encode" else {})
        )


def test_labels_are_averaged_by_their_probabilities_not_by_their_numbers():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Categorical(logits=torch.stack([4 * z, 0 * z - 3, -4 * z], -1)), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.1 * (x - 1), 1.0))  # half of the draws say 0, half 2, next to none 1

    fit = vi.fit(model, guide, data=torch.tensor([0, 2]), steps=0)
    assert set(fit.reconstruct(num_draws=200)["x"].tolist()) <= {0, 2}
    assert fit.decode(torch.tensor([1.0, -1.0]))["x"].tolist() == [0, 2]
