"""A deep Markov model of sequences of different lengths: a latent state that moves on by a network, and what is seen of it.

    model:  z[t] ~ Normal(transition(z[t - 1])), x[t] ~ Normal(emission(z[t]), noise)
    guide:  z[t] ~ Normal(combine(z[t - 1], h[t])), where h[t] is a recurrent network's summary of x[t], x[t + 1], ...

Sequences are padded to the longest, and a mask leaves out what is padding.

Source: Krishnan, Shalit and Sontag (2017), Structured Inference Networks for Nonlinear State Space Models, arXiv:1609.09869.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.nn.functional import softplus

import vipack as vi

NUM_LATENTS, NUM_SEEN, NUM_HIDDEN, LONGEST = 4, 2, 32, 8


def network(num_inputs: int, num_outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(num_inputs, NUM_HIDDEN), nn.Tanh(), nn.Linear(NUM_HIDDEN, num_outputs))


def normal(numbers: Tensor) -> dist.TorchDistribution:
    loc, raw = numbers.chunk(2, -1)
    return dist.Normal(loc, softplus(raw) + 1e-3).to_event(1)


class DeepMarkovModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.transition, self.emission = network(NUM_LATENTS, 2 * NUM_LATENTS), network(NUM_LATENTS, 2 * NUM_SEEN)
        self.recurrent = nn.GRU(NUM_SEEN, NUM_HIDDEN, batch_first=True)
        self.combine = network(NUM_LATENTS + NUM_HIDDEN, 2 * NUM_LATENTS)

    def model(self, x: Tensor, lengths: Tensor) -> None:
        pyro.module("transition", self.transition)
        pyro.module("emission", self.emission)
        with pyro.plate("sequence", len(x)):
            z = x.new_zeros(len(x), NUM_LATENTS)
            for t in range(LONGEST):
                with poutine.mask(mask=t < lengths):
                    z = pyro.sample(f"z[{t}]", normal(self.transition(z)))
                    pyro.sample(f"x[{t}]", normal(self.emission(z)), obs=x[:, t])

    def guide(self, x: Tensor, lengths: Tensor) -> None:
        pyro.module("recurrent", self.recurrent)
        pyro.module("combine", self.combine)
        backward, _ = self.recurrent(x.flip(1))  # from the last step to the first; padding is zeros
        with pyro.plate("sequence", len(x)):
            z = x.new_zeros(len(x), NUM_LATENTS)
            for t in range(LONGEST):
                with poutine.mask(mask=t < lengths):
                    z = pyro.sample(f"z[{t}]", normal(self.combine(torch.cat([z, backward[:, -1 - t]], -1))))


def circles(count: int) -> tuple[Tensor, Tensor]:
    """Points on their way around a circle ``(count, LONGEST, 2)``, each at a speed of its own, and lengths from 3."""
    start, speed = 6.28 * torch.rand(count, 1), 0.3 + 0.5 * torch.rand(count, 1)
    angle = start + speed * torch.arange(LONGEST)
    lengths = torch.randint(3, LONGEST + 1, (count,))
    x = torch.stack([angle.cos(), angle.sin()], -1) + 0.05 * torch.randn(count, LONGEST, NUM_SEEN)
    return torch.where((torch.arange(LONGEST) < lengths[:, None])[..., None], x, 0.0), lengths


def main(num_steps: int = 3_000, seed: int = 0) -> vi.Fit:
    torch.manual_seed(seed)  # of the data and the networks' first weights
    x, lengths = circles(1_000)
    markov = DeepMarkovModel()
    optim = pyro.optim.ClippedAdam({"lr": 5e-3, "lrd": 0.1 ** (1 / num_steps)})
    fit = vi.fit(markov.model, markov.guide, data=(x, lengths), batch_size=50, steps=num_steps, optim=optim, seed=seed)
    print(f"log p(x) a step, at least: {fit.elbo(20).value / int(lengths.sum()):.2f} nats")
    shown = fit.reconstruct((x, lengths))
    off = [(shown[f"x[{t}]"] - x[:, t])[t < lengths].square().mean().sqrt() for t in range(LONGEST)]
    print("off by (noise: 0.05):", " ".join(f"{value:.2f}" for value in off))
    return fit


if __name__ == "__main__":
    # Every state belongs to a sequence, so each sequence's q(z | x) is judged by weights of its own.
    print(main().diagnose(num_draws=500))
