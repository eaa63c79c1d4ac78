"""Variational autoencoders: ``python -m benchmarks.vae speed`` and ``python -m benchmarks.vae quality --root DIR``.

``speed``: processor time of a step beside a loop written in torch with fused Adam, of batches of 20 and 100, of a convolutional
network and of counts, on one thread, in turns, medians; ``--engine interpreted`` for what runs while a step is being compiled. ``quality``: the one-layer network of the paper on importance-weighted autoencoders (Burda et
al. 2016, 2 x 200 tanh units, 50 latents) on MNIST, binarised anew every epoch, judged by 5,000 particles for each of the 10,000
test images; DIR holds ``mnist_grey.npz`` with ``x_train`` and ``x_test``.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

import vipack as vi

NUM_PIXELS = 784
Engine = Literal["compiled", "interpreted", "traced"]


class Pair(nn.Module):
    """An encoder and a decoder of Bernoulli pixels, as a Pyro pair and as a loss."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, num_latents: int) -> None:
        super().__init__()
        self.encoder, self.decoder, self.num_latents = encoder, decoder, num_latents

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(self.num_latents), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            loc, log_scale = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    def loss(self, x: Tensor) -> Tensor:
        loc, log_scale = self.encoder(x).chunk(2, -1)
        scale = log_scale.exp()
        z = loc + scale * torch.randn_like(loc)
        likelihood = -nn.functional.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")
        divergence = 0.5 * (loc.square() + scale.square() - 1).sum() - log_scale.sum()
        return divergence - likelihood


def perceptron(num_latents: int = 50, width: int = 200) -> Pair:
    """The paper's network."""

    def network(inputs: int, outputs: int) -> nn.Module:
        hidden = [nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()]
        return nn.Sequential(*hidden, nn.Linear(width, outputs))

    return Pair(network(NUM_PIXELS, 2 * num_latents), network(num_latents, NUM_PIXELS), num_latents)


def convolutional(num_latents: int = 32) -> Pair:
    """Two convolutions there and back."""
    encoder = nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)), nn.Conv2d(1, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 4, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * 49, 2 * num_latents),
    )  # fmt: skip
    decoder = nn.Sequential(
        nn.Linear(num_latents, 64 * 49), nn.ReLU(), nn.Unflatten(1, (64, 7, 7)), nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU(),
        nn.ConvTranspose2d(32, 1, 4, 2, 1), nn.Flatten(),
    )  # fmt: skip
    return Pair(encoder, decoder, num_latents)


class Counts(Pair):
    """Counts of genes by a negative binomial with library sizes, with BatchNorm and dropout, as single-cell models have them."""

    def __init__(self, num_genes: int = 2_000, num_latents: int = 10, width: int = 128) -> None:
        def hidden(inputs: int) -> list[nn.Module]:
            return [nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU()]

        encoder = nn.Sequential(*hidden(num_genes), nn.Dropout(0.1), nn.Linear(width, 2 * num_latents))
        super().__init__(encoder, nn.Sequential(*hidden(num_latents), nn.Linear(width, num_genes)), num_latents)
        self.log_dispersion = nn.Parameter(torch.zeros(num_genes))

    def log_mean(self, x: Tensor, z: Tensor) -> Tensor:
        return (x.sum(-1, keepdim=True) * self.decoder(z).softmax(-1) + 1e-8).log()

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        log_dispersion = pyro.param("log_dispersion", self.log_dispersion)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(self.num_latents), 1.0).to_event(1))
            logits = self.log_mean(x, z) - log_dispersion
            pyro.sample("x", dist.NegativeBinomial(log_dispersion.exp(), logits=logits).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            loc, log_scale = self.encoder(x.log1p()).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    def loss(self, x: Tensor) -> Tensor:
        loc, log_scale = self.encoder(x.log1p()).chunk(2, -1)
        scale, dispersion = log_scale.exp(), self.log_dispersion.exp()
        logits = self.log_mean(x, loc + scale * torch.randn_like(loc)) - self.log_dispersion
        log_sigmoid = nn.functional.logsigmoid
        likelihood = dispersion * log_sigmoid(-logits) + x * log_sigmoid(logits)
        likelihood = likelihood + torch.lgamma(x + dispersion) - torch.lgamma(x + 1) - torch.lgamma(dispersion)
        return 0.5 * (loc.square() + scale.square() - 1).sum() - log_scale.sum() - likelihood.sum()


def speed(turns: int, engine: Engine) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.bernoulli(0.3 * torch.rand(2_000, NUM_PIXELS, generator=generator))
    counts = torch.poisson(2 * torch.rand(2_000, 2_000, generator=generator), generator=generator)
    cases: dict[str, tuple[Callable[[], Pair], Tensor, int, int]] = {
        "batch 20": (perceptron, pixels, 20, 400),
        "batch 100": (perceptron, pixels, 100, 200),
        "convolutional, 64": (convolutional, pixels, 64, 40),
        "counts, 128": (Counts, counts, 128, 40),
    }
    for name, (make, x, batch_size, steps) in cases.items():
        ours, theirs = compared(make, batch_size, steps, x, turns, engine)
        print(
            f"{name:20} vipack {ours:6.2f} ms   torch, fused Adam {theirs:6.2f} ms   ratio {ours / theirs:.2f}",
            flush=True,
        )


def compared(
    make: Callable[[], Pair], batch_size: int, steps: int, x: Tensor, turns: int, engine: Engine
) -> tuple[float, float]:
    """Milliseconds of processor time of a step and of one written by hand."""
    torch.manual_seed(0)
    pair = make()
    adam = pyro.optim.Adam({"lr": 1e-3})
    fit = vi.fit(pair.model, pair.guide, data=x, batch_size=batch_size, steps=20, optim=adam, engine=engine)
    by_hand = loop(make(), x, batch_size)
    rows = [(timed(lambda: fit.resume(steps), steps), timed(lambda: by_hand(steps), steps)) for _ in range(turns)]
    ours, theirs = (statistics.median(row[i] for row in rows) for i in (0, 1))
    return ours, theirs


def loop(pair: Pair, x: Tensor, batch_size: int) -> Callable[[int], None]:
    optimizer = torch.optim.Adam(pair.parameters(), lr=1e-3, fused=True)

    def run(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            pair.loss(x[torch.randint(len(x), (batch_size,))]).backward()
            optimizer.step()

    run(5)
    return run


def timed(run: Callable[[], Any], steps: int) -> float:
    """Milliseconds of processor time a step."""
    started = time.process_time()
    run()
    return 1_000 * (time.process_time() - started) / steps


def quality(root: Path, epochs: int, rate: float, particles: int, number: int) -> None:
    images = np.load(root / "mnist_grey.npz")
    grey, test = (
        torch.from_numpy(images[name]).reshape(-1, NUM_PIXELS).float() / 255 for name in ("x_train", "x_test")
    )
    test = torch.bernoulli(test, generator=torch.Generator().manual_seed(7))
    torch.manual_seed(0)
    pair = perceptron()
    for layer in (layer for layer in pair.modules() if isinstance(layer, nn.Linear)):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    last: Any = pair.decoder[-1]  # type: ignore[index]
    last.bias.data = grey.mean(0).clamp(1e-3, 1 - 1e-3).logit()
    generator = torch.Generator().manual_seed(1)
    x = torch.bernoulli(grey, generator=generator)
    between = (grey > 0) & (grey < 1)

    def redraw(progress: Any) -> None:
        x[between] = torch.bernoulli(grey[between], generator=generator)

    per_epoch, steps = len(x) // 100, epochs * (len(x) // 100)

    def adam(parameters: Any) -> Any:
        optimizer = torch.optim.Adam(parameters, lr=rate)
        return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=0.02 * rate)

    loss = None if particles == 1 else vi.objectives.ImportanceWeighted(particles)
    started = time.process_time()
    fit = vi.fit(
        pair.model, pair.guide, data=x, batch_size=100, steps=steps, optim=adam, loss=loss, callbacks=vi.Every(per_epoch, redraw)
    )  # fmt: skip
    print(f"{epochs} epochs in {time.process_time() - started:.0f} s of processor time, {fit.engine}", flush=True)
    started = time.process_time()
    print(
        fit.log_evidence(number, data=test), f"in {time.process_time() - started:.0f} s of processor time", flush=True
    )
    print("ELBO", fit.elbo(10, data=test))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["speed", "quality"])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--engine", choices=get_args(Engine), default="compiled", help="of the steps that speed times")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--epochs", type=int, default=260)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--particles", type=int, default=1, help="of the objective in training")
    parser.add_argument("--judged-by", type=int, default=5_000, help="particles for log p(x)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "speed":
        speed(options.turns, options.engine)
    elif options.root is None:
        parser.error("quality needs --root, the folder of mnist_grey.npz")
    else:
        quality(options.root, options.epochs, options.rate, options.particles, options.judged_by)


if __name__ == "__main__":
    main()
