"""A VAE whose decoder is linear, so that log p(x) is known, and whose encoder is as good as it was trained."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

import vipack as vi

NUM_PIXELS, NUM_LATENTS, NOISE = 20, 5, 0.5
WEIGHT = torch.randn(NUM_PIXELS, NUM_LATENTS, generator=torch.Generator().manual_seed(0))


class TrainedEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(NUM_PIXELS, 50), nn.Tanh(), nn.Linear(50, 2 * NUM_LATENTS))

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(NUM_LATENTS), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ WEIGHT.T, NOISE).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            loc, log_scale = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def observations(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    z, noise = torch.randn(count, NUM_LATENTS, generator=generator), torch.randn(count, NUM_PIXELS, generator=generator)
    return z @ WEIGHT.T + NOISE * noise


def exact(x: Tensor) -> Tensor:
    covariance = WEIGHT @ WEIGHT.T + NOISE**2 * torch.eye(NUM_PIXELS)
    return dist.MultivariateNormal(torch.zeros(NUM_PIXELS), covariance).log_prob(x)


def trained(steps: int) -> vi.Fit:
    vae = TrainedEncoder()
    adam = pyro.optim.Adam({"lr": 3e-3})
    return vi.fit(vae.model, vae.guide, data=observations(2_000, 1), batch_size=100, steps=steps, optim=adam)
