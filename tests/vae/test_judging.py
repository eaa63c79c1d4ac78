"""``vi.vae.evaluate`` on a linear VAE, where each of its figures is known."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import vipack as vi
from tests.posterior.linear_vae import NOISE, NUM_LATENTS
from vipack.vae.judging import evaluate

WEIGHT = 0.2 * torch.randn(20, NUM_LATENTS, generator=torch.Generator().manual_seed(3))
PRECISION = torch.eye(NUM_LATENTS) + WEIGHT.T @ WEIGHT / NOISE**2


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(NUM_LATENTS), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ WEIGHT.T, NOISE).to_event(1), obs=x)


def posterior(x):
    with pyro.plate("data", len(x)):
        loc = x @ WEIGHT @ PRECISION.inverse() / NOISE**2
        pyro.sample("z", dist.MultivariateNormal(loc, precision_matrix=PRECISION))


def independent(x):
    """The best Gaussian with independent dimensions, off by .3 sd."""
    with pyro.plate("data", len(x)):
        sd = PRECISION.diagonal() ** -0.5
        loc = x @ WEIGHT @ PRECISION.inverse() / NOISE**2 + 0.3 * sd
        pyro.sample("z", dist.Normal(loc, sd).to_event(1))


def observations(count, seed):
    generator = torch.Generator().manual_seed(seed)
    z, noise = torch.randn(count, NUM_LATENTS, generator=generator), torch.randn(count, 20, generator=generator)
    return z @ WEIGHT.T + NOISE * noise


NEW = observations(300, 4)
INFORMATION = 0.5 * float(torch.logdet(PRECISION))
FAMILY_GAP = 0.5 * float(PRECISION.diagonal().log().sum() - torch.logdet(PRECISION))


@pytest.fixture(scope="module")
def evaluated():
    fit = vi.fit(model, posterior, data=observations(500, 5), steps=0)
    return evaluate(fit, NEW, num_particles=100, generated=400)


@pytest.fixture(scope="module")
def off():
    fit = vi.fit(model, independent, data=observations(500, 5), steps=0)
    return evaluate(fit, NEW, num_particles=500, generated=0)


def log_evidence():
    covariance = WEIGHT @ WEIGHT.T + NOISE**2 * torch.eye(20)
    return dist.MultivariateNormal(torch.zeros(20), covariance).log_prob(NEW)


def test_the_bound_and_its_split(evaluated):
    truth = float(log_evidence().mean())
    assert evaluated.evidence.per_row.value == pytest.approx(truth, abs=1e-3)
    assert evaluated.elbo.value == pytest.approx(truth, abs=1e-3)
    assert evaluated.reconstruction.value - evaluated.divergence.value == pytest.approx(evaluated.elbo.value)


def test_information_and_the_averages_divergence(evaluated):
    assert evaluated.mutual_information == pytest.approx(INFORMATION, abs=0.25)
    assert evaluated.marginal_divergence == pytest.approx(evaluated.divergence.value - evaluated.mutual_information)
    assert abs(evaluated.marginal_divergence) < 0.3


def test_gaps(evaluated, off):
    for each, shift in ((evaluated, None), (off, NUM_LATENTS * 0.3**2 / 2)):
        assert each.gaps.approximation.value == pytest.approx(FAMILY_GAP, abs=0.05)
        if shift is not None:
            assert each.gaps.amortisation.value == pytest.approx(shift, abs=0.05)
    assert evaluated.gaps.amortisation.value == pytest.approx(-FAMILY_GAP, abs=0.05)  # its family is richer


def test_generated_observations_are_like_new_ones(evaluated, off):
    assert not evaluated.generated.copies
    assert evaluated.generated.told_apart == pytest.approx(0.5, abs=0.08)
    assert off.generated is None


def test_it_reads_as_a_page(evaluated):
    text = str(evaluated)
    for said in ("log p(x)", "reconstruction", "mutual information", "5 of 5 latent dimensions", "gap", "no copies"):
        assert said in text


def test_shared_latents_are_refused():
    def shared(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w, 1.0), obs=x)

    fit = vi.fit(shared, lambda x: pyro.sample("w", dist.Normal(0.0, 1.0)), data=torch.zeros(60), steps=0)
    with pytest.raises(vi.errors.UsageError, match="'w' is shared"):
        evaluate(fit, torch.zeros(60))
