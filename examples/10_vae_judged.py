"""A variational autoencoder on digits, from the builders to a page of pictures and figures.

    model:  z ~ Normal(0, 1), pixels ~ Bernoulli(decoder(z))    p(z) and p(x | z)
    guide:  z ~ Normal(loc, scale) with loc, scale = encoder(pixels)    q(z | x)

Source: Kingma and Welling (2014), Auto-Encoding Variational Bayes, arXiv:1312.6114.
"""

import tempfile
from pathlib import Path

import torch

import vipack as vi
from vipack.vae.likelihoods import Bernoulli

NUM_TRAINED = 1_400


def main(num_steps: int = 2_000, seed: int = 0) -> vi.Fit:
    digits = vi.datasets.digits()
    pixels = torch.bernoulli(torch.from_numpy(digits.rows), generator=torch.Generator().manual_seed(seed))
    labels = torch.from_numpy(digits.labels)
    train, held_out = pixels[:NUM_TRAINED], pixels[NUM_TRAINED:]

    torch.manual_seed(seed)  # of the networks' first weights
    vae = vi.vae.VAE(likelihood=Bernoulli(64), num_latents=8).initialize(train)
    stop = vi.EarlyStopping(patience=5)  # with the weights of the best ELBO on images held out
    fit = vi.fit(
        vae.model, vae.guide, data=train, batch_size=100, steps=num_steps, validation=held_out, stop=stop, seed=seed
    )
    print(fit)

    figures = vi.vae.evaluate(fit, held_out, num_particles=200, labels=labels[:NUM_TRAINED], progress=False)
    print(figures)

    there = torch.arange(64) < 32  # the upper half of an image; what may the lower one be?
    completed = fit.impute(held_out[:8], observed=there.expand(8, -1), num_draws=50, progress=False)
    print(f"\n{completed}")

    page = Path(tempfile.mkdtemp()) / "digits.html"
    vi.vae.report(fit, held_out, page, labels=labels[NUM_TRAINED:], evaluation=figures, title="Digits")
    print(f"\npictures and figures: {page}")
    return fit


if __name__ == "__main__":
    # Each image's q(z | x) is judged by weights of its own.
    print(main().diagnose(num_draws=1_000))
