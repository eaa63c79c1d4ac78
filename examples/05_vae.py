"""A variational autoencoder: a Pyro model with a neural decoder, and an amortised guide, its encoder.

    model:  z ~ Normal(0, 1), pixels ~ Binomial(16, decoder(z))    p(z) and p(x | z)
    guide:  z ~ Normal(loc, scale) with loc, scale = encoder(x)    q(z | x)

Source: Kingma and Welling (2014), Auto-Encoding Variational Bayes, arXiv:1312.6114.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

import vipack as vi

NUM_LATENTS, NUM_HIDDEN, NUM_PIXELS = 8, 256, 64
INK = 16  # a pixel of these digits is a whole number from 0 to 16


class VAE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = network(NUM_PIXELS, 2 * NUM_LATENTS)
        self.decoder = network(NUM_LATENTS, NUM_PIXELS)

    def model(self, pixels: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("image", len(pixels)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([NUM_LATENTS]).to_event(1))
            pyro.sample("pixels", dist.Binomial(INK, logits=self.decoder(z)).to_event(1), obs=pixels)

    def guide(self, pixels: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("image", len(pixels)):
            loc, log_scale = self.encoder(pixels / INK).chunk(2, dim=-1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def network(num_inputs: int, num_outputs: int) -> nn.Module:
    hidden = [nn.Linear(num_inputs, NUM_HIDDEN), nn.SiLU(), nn.Linear(NUM_HIDDEN, NUM_HIDDEN), nn.SiLU()]
    return nn.Sequential(*hidden, nn.Linear(NUM_HIDDEN, num_outputs))


def show(images: Tensor) -> None:
    """Images side by side, a character for two pixels' ink."""
    shades = torch.round(images.reshape(-1, 8, 8).clamp(0, INK) / INK * 9).int()
    for row in range(8):
        print("   ".join("".join(2 * " .:-=+*#%@"[shade] for shade in image[row]) for image in shades))


def main(num_steps: int = 2_000, seed: int = 0) -> vi.Fit:
    train, test = (torch.from_numpy(INK * images.rows) for images in vi.datasets.digits().split(0.1))
    torch.manual_seed(seed)  # of the networks' first weights
    vae = VAE()
    optim = pyro.optim.ClippedAdam({"lr": 2e-3, "lrd": 0.1 ** (1 / num_steps)})
    fit = vi.fit(vae.model, vae.guide, data=train, batch_size=128, steps=num_steps, seed=seed, optim=optim)

    fit.to_pyro()  # a fit leaves the networks as they were; this copies the trained weights into them
    held_out = vi.fit(vae.model, vae.guide, data=test, steps=0)
    per_image, per_new = fit.elbo(100).value / len(train), held_out.elbo(100).value / len(test)
    print(f"ELBO per image: {per_image:.1f} nats, held out {per_new:.1f}")

    print("\nheld-out images, and their reconstructions:")
    show(test[:5])
    show(fit.predict(100, data=(test[:5],))["pixels"].mean(0))
    print("\nnew images:")
    with torch.no_grad():
        show(INK * vae.decoder(torch.randn(5, NUM_LATENTS)).sigmoid())
    return fit


if __name__ == "__main__":
    # Every latent belongs to an image, so each image's q(z | x) is judged by weights of its own.
    print(main().diagnose(num_draws=1_000))
