"""Classes learned from a hundred labels and many images without: the semi-supervised autoencoder M2.

    model:  label ~ p(label), z ~ Normal(0, 1), pixels ~ ContinuousBernoulli(decoder(z, label))
    guide:  label ~ Categorical(classifier(pixels)), z ~ Normal(loc, scale) with loc, scale = encoder(pixels, label)

Labels that are missing are summed out; those that are known are given, and train the classifier too.

Source: Kingma et al. (2014), Semi-supervised Learning with Deep Generative Models, arXiv:1406.5298.
"""

import pyro
import torch
from pyro.infer import TraceEnum_ELBO
from torch import Tensor, nn

import vipack as vi
from vipack.vae import SemiSupervisedVAE, oversampled
from vipack.vae.likelihoods import ContinuousBernoulli
from vipack.vae.networks import MLP

NUM_PIXELS, NUM_CLASSES, NUM_LATENTS = 64, 10, 3
NUM_LABELLED, NUM_TRAINED = 100, 1_500


def show(images: Tensor) -> None:
    """Images side by side, a character for two pixels' ink."""
    for row in range(8):
        print(
            "  ".join("".join(2 * " .:-=+*#%@"[int(9 * pixel)] for pixel in image[8 * row :][:8]) for image in images)
        )


def main(num_steps: int = 3_000, seed: int = 0) -> vi.Fit:
    digits = vi.datasets.digits()
    pixels, labels = torch.from_numpy(digits.rows), torch.from_numpy(digits.labels)
    known = torch.where(torch.arange(len(labels)) < NUM_LABELLED, labels, -1)[:NUM_TRAINED]  # -1: missing
    torch.manual_seed(seed)  # of the networks' first weights

    vae = SemiSupervisedVAE(
        MLP(NUM_PIXELS, (128,)),
        MLP(NUM_LATENTS + NUM_CLASSES, (128,)),
        nn.Sequential(nn.Dropout(0.2), MLP(NUM_PIXELS, (128,)), nn.Dropout(0.5)),  # the classifier
        likelihood=ContinuousBernoulli(NUM_PIXELS),
        num_latents=NUM_LATENTS,
        num_classes=NUM_CLASSES,
        alpha=100.0,
    ).initialize(pixels[:NUM_TRAINED], known)
    rows = oversampled(known, share=0.1)  # so that every batch has some labels
    fit = vi.fit(
        vae.model,
        vae.guide,
        data=(pixels[rows], known[rows]),
        batch_size=100,
        steps=num_steps,
        loss=TraceEnum_ELBO(max_plate_nesting=1),
        optim=pyro.optim.ClippedAdam({"lr": 3e-3, "lrd": 0.1 ** (1 / num_steps)}),
        seed=seed,
    )
    right = vae.classify(fit, pixels).argmax(-1) == labels
    print(f"right: {right[NUM_LABELLED:NUM_TRAINED].float().mean():.1%} of those without a label in training,")
    print(f"{right[NUM_TRAINED:].float().mean():.1%} of {len(right) - NUM_TRAINED} new images")
    for label in range(3):
        print(f"\nnew images of a {label}:")
        show(fit.generate(data={"y": torch.full((6,), label)})["x"])
    return fit


if __name__ == "__main__":
    # Each image's label and z are judged by weights of its own.
    print(main().diagnose(num_draws=1_000))
