"""Autoencoders with discrete latents: relaxed ones (Gumbel-softmax), and a codebook (VQ).

    Gumbel-softmax:  codes ~ RelaxedOneHotCategorical(temperature, 1 / K), pixels ~ Bernoulli(decoder(codes)), and an encoder;
                     the temperature falls from step to step
    VQ:              the entry of the codebook next to encoder(pixels), straight-through; pixels ~ Bernoulli(decoder(entry))

Source: Jang et al. (2017), arXiv:1611.01144; Maddison et al. (2017), arXiv:1611.00712; van den Oord et al. (2017), arXiv:1711.00937.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

import vipack as vi

NUM_PIXELS, NUM_CODES, NUM_CLASSES, WIDTH = 64, 8, 10, 4  # a code is one of so many classes, or entries so wide


def network(num_inputs: int, num_outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(num_inputs, 256), nn.SiLU(), nn.Linear(256, num_outputs))


class Relaxed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = network(NUM_PIXELS, NUM_CODES * NUM_CLASSES)
        self.decoder = network(NUM_CODES * NUM_CLASSES, NUM_PIXELS)

    def model(self, pixels: Tensor, temperature: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        probs = torch.full((NUM_CODES, NUM_CLASSES), 1 / NUM_CLASSES)
        with pyro.plate("image", len(pixels)):
            codes = pyro.sample("codes", dist.RelaxedOneHotCategorical(temperature, probs=probs).to_event(1))
            pyro.sample("pixels", dist.Bernoulli(logits=self.decoder(codes.flatten(-2))).to_event(1), obs=pixels)

    def guide(self, pixels: Tensor, temperature: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        logits = self.encoder(pixels).unflatten(-1, (NUM_CODES, NUM_CLASSES))
        with pyro.plate("image", len(pixels)):
            pyro.sample("codes", dist.RelaxedOneHotCategorical(temperature, logits=logits).to_event(1))


class Quantized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = network(NUM_PIXELS, NUM_CODES * WIDTH)
        self.decoder = network(NUM_CODES * WIDTH, NUM_PIXELS)
        self.codebook = nn.Embedding(NUM_CLASSES, WIDTH)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        encoded = self.encoder(pixels).unflatten(-1, (NUM_CODES, WIDTH))
        nearest = self.codebook((encoded[..., None, :] - self.codebook.weight).square().sum(-1).argmin(-1))
        entry = encoded + (nearest - encoded).detach()  # the gradient passes straight through
        lost = (nearest - encoded.detach()).square() + 0.25 * (nearest.detach() - encoded).square()
        return self.decoder(entry.flatten(-2)), lost.sum((-1, -2))

    def model(self, pixels: Tensor) -> None:
        logits, lost = pyro.module("quantized", self)(pixels)
        with pyro.plate("image", len(pixels)):
            pyro.factor("codebook", -lost)
            pyro.sample("pixels", dist.Bernoulli(logits=logits).to_event(1), obs=pixels)

    def guide(self, pixels: Tensor) -> None:
        """Nothing is drawn: a code is a function of the pixels."""


def main(num_steps: int = 3_000, seed: int = 0) -> vi.Fit:
    pixels = torch.from_numpy(vi.datasets.digits().rows).round()
    torch.manual_seed(seed)  # of the networks' first weights
    options = {"data": pixels, "batch_size": 100, "steps": num_steps, "seed": seed}
    quantized = Quantized()
    vi.fit(quantized.model, quantized.guide, optim=pyro.optim.Adam({"lr": 2e-3}), **options).to_pyro()
    with torch.no_grad():
        error = (quantized(pixels)[0].sigmoid() - pixels).abs().mean()
    print(f"VQ: {NUM_CODES} codes of {NUM_CLASSES} entries, pixels off by {error:.3f}")

    relaxed = Relaxed()
    options["fixed"] = {"temperature": vi.schedules.Exponential(start=1.0, end=0.4, steps=num_steps)}
    warm_up = vi.objectives.BetaELBO(vi.schedules.Linear(0.0, 1.0, steps=num_steps // 2))  # or the codes go unused
    fit = vi.fit(relaxed.model, relaxed.guide, optim=pyro.optim.Adam({"lr": 2e-3}), loss=warm_up, **options)
    error = (fit.reconstruct(pixels)["pixels"] - pixels).abs().mean()
    print(f"Gumbel-softmax: pixels off by {error:.3f}, ELBO {fit.elbo(20).value / len(pixels):.1f} nats an image")
    return fit


if __name__ == "__main__":
    # An image's codes are judged as they were trained, relaxed at the last temperature.
    print(main().diagnose(num_draws=1_000))
