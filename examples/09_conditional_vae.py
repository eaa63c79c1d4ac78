"""A conditional variational autoencoder from the builders: images given their label, and new ones of each class.

    model:  z ~ Normal(0, 1), pixels ~ Bernoulli(decoder(z, label))    p(z) and p(x | z, y)
    guide:  z ~ q(z | x, y) = Normal(loc, scale), from encoder(pixels, label)

Source: Sohn, Lee and Yan (2015), Learning Structured Output Representation using Deep Conditional Generative Models.
"""

import pyro
import torch
from torch import Tensor

import vipack as vi
from vipack.vae import VAE, Labels
from vipack.vae.likelihoods import Bernoulli
from vipack.vae.networks import MLP

NUM_LATENTS, NUM_PIXELS, NUM_CLASSES = 6, 64, 10


def show(images: Tensor) -> None:
    """Images side by side, a character for two pixels' ink."""
    for row in range(8):
        print(
            "  ".join("".join(2 * " .:-=+*#%@"[int(9 * pixel)] for pixel in image[8 * row :][:8]) for image in images)
        )


def main(num_steps: int = 3_000, seed: int = 0) -> vi.Fit:
    digits = vi.datasets.digits()
    torch.manual_seed(seed)  # of the binary pixels and the networks' first weights
    pixels, labels = torch.bernoulli(torch.from_numpy(digits.rows)), torch.from_numpy(digits.labels)

    vae = VAE(
        MLP(NUM_PIXELS + NUM_CLASSES, (256, 256)),
        MLP(NUM_LATENTS + NUM_CLASSES, (256, 256)),
        likelihood=Bernoulli(NUM_PIXELS),
        num_latents=NUM_LATENTS,
        condition=Labels(NUM_CLASSES),
    ).initialize(pixels, labels)
    optim = pyro.optim.ClippedAdam({"lr": 2e-3, "lrd": 0.1 ** (1 / num_steps)})
    fit = vi.fit(vae.model, vae.guide, data=(pixels, labels), batch_size=128, steps=num_steps, seed=seed, optim=optim)
    print(f"ELBO per image: {fit.elbo(100).value / len(pixels):.1f} nats")

    for label in range(NUM_CLASSES):
        print(f"\nnew images of a {label}:")
        show(fit.generate(data={"y": torch.full((6,), label)})["x"])
    return fit


if __name__ == "__main__":
    # Every latent belongs to an image, so each image's q(z | x, y) is judged by weights of its own.
    print(main().diagnose(num_draws=1_000))
