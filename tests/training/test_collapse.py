"""Latents that say nothing of the data: told while they train, and in the verdict; sound ones are left alone."""

import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.transforms import affine_autoregressive
from torch import Tensor, nn

import vipack as vi
from vipack.diagnostics.collapse import latent_activity
from vipack.errors import TrustWarning
from vipack.types import Verdict

TRUE = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))


def images(count: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 2, generator=generator) @ TRUE.T + 0.3 * torch.randn(count, 6, generator=generator)


class Pair(nn.Module):
    """A linear VAE; `deaf` decoders do not read z. Only two of `num_latents` dimensions are of use."""

    def __init__(self, num_latents: int = 4, *, deaf: bool = False, flow: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.decoder = nn.Linear(6, 2 * num_latents), nn.Linear(num_latents, 6)
        self.num_latents, self.deaf = num_latents, deaf
        self.flow = affine_autoregressive(num_latents) if flow else None

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(self.num_latents), 1.0).to_event(1))
            loc = self.decoder(torch.zeros_like(z) if self.deaf else z)
            pyro.sample("x", dist.Normal(loc, 0.3).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("guide", self)
        with pyro.plate("data", len(x)):
            loc, log_scale = self.encoder(x).chunk(2, -1)
            q = dist.Normal(loc, log_scale.exp()).to_event(1)
            pyro.sample("z", q if self.flow is None else dist.TransformedDistribution(q.base_dist, [self.flow]))


def fit(pair: Pair, **options):
    given = {
        "data": images(500),
        "batch_size": 100,
        "steps": 1_000,
        "optim": pyro.optim.Adam({"lr": 0.01}),
        "engine": "traced",
    }
    return vi.fit(pair.model, pair.guide, **{**given, **options})


def cooled(parameters):
    """A linear network takes a higher rate than the default for networks."""
    optimizer = torch.optim.Adam(parameters, lr=0.02, betas=(0.9, 0.99))
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3_000, 2e-4)


@pytest.fixture(scope="module")
def deaf() -> vi.Fit:
    with pytest.warns(TrustWarning) as seen:
        fitted = fit(Pair(deaf=True))
    assert len(seen) == 1
    fitted.said = str(seen[0].message)
    return fitted


@pytest.fixture(scope="module")
def sound() -> vi.Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return fit(Pair(), steps=3_000, optim=cooled)


def test_a_collapse_is_told_within_a_tenth_or_soon_after_it(deaf):
    step = int(deaf.said.split("step ")[1].split()[0])
    assert step == 200  # the second look
    assert "z[0], z[1], z[2], z[3]" in deaf.said


def test_a_collapsed_fit_is_never_trusted_though_its_guide_is_exact(deaf):
    diagnosis = deaf.diagnose(1_000)
    assert diagnosis.verdict is Verdict.DISTRUST
    assert "collapsed" in diagnosis.reasons[0]
    assert diagnosis.ess_share > 0.8
    assert "free_bits" in diagnosis.advice[0]


def test_a_sound_fit_is_left_alone(sound):
    diagnosis = sound.diagnose(1_000)
    assert diagnosis.verdict is Verdict.TRUST
    assert not any("collapsed" in reason for reason in diagnosis.reasons)


def test_idle_dimensions_are_counted(sound):
    activity = latent_activity(sound.posterior)
    assert sorted(activity.variance["z"] > 0.1) == [False, False, True, True]
    assert activity.num_active == (activity.variance["z"] > 0.01).sum() == 4 - len(activity.idle)
    assert activity.idle
    assert not activity.collapsed
    z = sound.encode()
    np.testing.assert_allclose(activity.variance["z"], z.mean["z"].double().var(0, correction=0), rtol=1e-4)
    exact = torch.distributions.kl_divergence(dist.Normal(z.mean["z"], z.sd["z"]), dist.Normal(0.0, 1.0)).mean(0)
    np.testing.assert_allclose(activity.divergence["z"], exact, rtol=1e-4)


def test_divergences_that_are_not_known_are_estimated():
    fitted = fit(Pair(flow=True), steps=600)
    activity = latent_activity(fitted.posterior)
    draws = fitted.encode(num_draws=400).draws["z"]
    assert activity.divergence["z"].shape == ()
    np.testing.assert_allclose(activity.variance["z"], draws.mean(0).double().var(0), atol=0.02)
    log_q = fitted.elbo(400, data=images(500)).value / 500
    weight, bias = fitted.params["decoder$$$weight"], fitted.params["decoder$$$bias"]
    likelihood = dist.Normal(draws @ weight.T + bias, 0.3).log_prob(images(500)).sum(-1).mean()
    assert float(activity.divergence["z"]) == pytest.approx(float(likelihood) - log_q, abs=0.15)


def test_latents_that_are_shared_are_not_looked_at():
    net = nn.Linear(6, 1)

    def model(x):
        pyro.module("net", net)
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(net(x)[:, 0] + 0.0 * w, 1.0), obs=x[:, 0])

    def guide(x):
        pyro.sample("w", dist.Normal(pyro.param("loc", torch.zeros(())), 1.0))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vi.fit(model, guide, data=images(300), batch_size=50, steps=300, engine="traced")
