"""Semi-supervised autoencoders: ``python -m benchmarks.semi_supervised m2 --root DIR``, or ``m1m2``.

MNIST with the labels of 100 images, 10 of each class, and 49,900 without, on one thread: processor time, and the accuracy on the 10,000
test images. ``m2`` is the model of images; ``m1m2`` first trains an autoencoder of images and then the model of its active encodings, which are drawn anew in
every step. DIR holds ``mnist_grey.npz`` with ``x_train``, ``y_train``, ``x_test`` and ``y_test``.

Source: Kingma et al. (2014), arXiv:1406.5298, table 1: 88.0% and 96.7%.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyro.infer import TraceEnum_ELBO
from torch import Tensor, nn

import vipack as vi
from vipack.vae import VAE, SemiSupervisedVAE, oversampled
from vipack.vae.likelihoods import Bernoulli, Gaussian
from vipack.vae.networks import MLP

NUM_PIXELS, NUM_CLASSES = 784, 10
NUM_ENCODINGS = 50  # of the autoencoder below, M1
BATCH = 100


def adam(rate: float, steps: int) -> Any:
    """Adam whose rate falls to 2% along a cosine."""

    def build(parameters: Any) -> Any:
        optimizer = torch.optim.Adam(parameters, lr=rate)
        return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=0.02 * rate)

    return build


def read(root: Path, num_train: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Training images and labels, the labels that are known (-1 elsewhere), test images and labels."""
    files = np.load(root / "mnist_grey.npz")
    x, x_test = (torch.from_numpy(files[name]).reshape(-1, NUM_PIXELS).float() / 255 for name in ("x_train", "x_test"))
    labels, labels_test = (torch.from_numpy(files[name]).long() for name in ("y_train", "y_test"))
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:num_train]
    x, labels = x[order], labels[order]
    known = torch.full_like(labels, -1)
    for label in range(NUM_CLASSES):
        first = (labels == label).nonzero()[:10, 0]
        known[first] = label
    return x, labels, known, x_test, labels_test


def trained(vae: SemiSupervisedVAE, x: Tensor, y: Tensor, options: argparse.Namespace, draw: Any) -> vi.Fit:
    rows = oversampled(y, options.share)
    return vi.fit(
        vae.model,
        vae.guide,
        data=(x[rows], y[rows]),
        batch_size=BATCH,
        steps=options.steps,
        loss=TraceEnum_ELBO(max_plate_nesting=1),
        optim=adam(options.rate, options.steps),
        transform={"x": draw},
        seed=options.seed,
    )


def m2(options: argparse.Namespace) -> None:
    x, _, y, x_test, labels = read(options.root, 50_000, options.seed)
    torch.manual_seed(options.seed)
    vae = SemiSupervisedVAE(
        MLP(NUM_PIXELS, (options.width,), nn.ReLU),
        MLP(options.latents + NUM_CLASSES, (options.width,), nn.ReLU),
        nn.Sequential(nn.Dropout(0.2), MLP(NUM_PIXELS, (options.width,), nn.ReLU), nn.Dropout(0.5)),
        likelihood=Bernoulli(NUM_PIXELS),
        num_latents=options.latents,
        num_classes=NUM_CLASSES,
        alpha=options.alpha,
    ).initialize(torch.bernoulli(x), y)
    started = time.process_time()
    fit = trained(vae, x, y, options, vi.transforms.Binarize())
    report(vae, fit, torch.bernoulli(x_test), labels, started)


def m1m2(options: argparse.Namespace) -> None:
    x, _, y, x_test, labels = read(options.root, 50_000, options.seed)
    torch.manual_seed(options.seed)
    started = time.process_time()
    below = VAE(
        MLP(NUM_PIXELS), MLP(NUM_ENCODINGS), likelihood=Bernoulli(NUM_PIXELS), num_latents=NUM_ENCODINGS
    ).initialize(torch.bernoulli(x))  # fmt: skip
    steps = options.below_steps
    binarize = {"x": vi.transforms.Binarize()}
    fit = vi.fit(
        below.model, below.guide, data=x, batch_size=BATCH, steps=steps, optim=adam(2e-3, steps), transform=binarize
    )
    print(
        f"M1: {fit.losses[-500:].mean() / len(x):.1f} nats, {time.process_time() - started:.0f} s, {fit.engine}",
        flush=True,
    )
    encoded, new = fit.encode(x), fit.encode(x_test)
    active = encoded.mean["z"].var(0) > 0.01
    loc, loc_test = encoded.mean["z"][:, active], new.mean["z"][:, active]
    moments, size = torch.cat([loc, encoded.sd["z"][:, active]], -1), int(active.sum())
    print(f"{size} of {NUM_ENCODINGS} dimensions active", flush=True)
    vae = SemiSupervisedVAE(
        MLP(size, (options.width,), nn.ReLU),
        MLP(options.latents + NUM_CLASSES, (options.width,), nn.ReLU),
        MLP(size, (options.width,), nn.ReLU),
        likelihood=Gaussian(size),
        num_latents=options.latents,
        num_classes=NUM_CLASSES,
        alpha=options.alpha,
    ).initialize(loc, y)
    fit = trained(vae, moments, y, options, drawn)
    report(vae, fit, loc_test, labels, started)


def drawn(moments: Tensor) -> Tensor:
    """A draw of each encoding, from means and standard deviations side by side."""
    loc, scale = moments.chunk(2, -1)
    return loc + scale * torch.randn_like(loc)


def report(vae: SemiSupervisedVAE, fit: vi.Fit, x: Tensor, labels: Tensor, started: float) -> None:
    accuracy = (vae.classify(fit, x).argmax(-1) == labels).float().mean()
    print(
        f"test accuracy {accuracy:.1%}, {time.process_time() - started:.0f} s of processor time, {fit.engine}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["m2", "m1m2"])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=8_000)
    parser.add_argument("--below-steps", type=int, default=20_000, help="of M1")
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--latents", type=int, default=10)
    parser.add_argument("--share", type=float, default=0.02, help="of observations with a label in a batch")
    parser.add_argument("--alpha", type=float, default=25.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    {"m2": m2, "m1m2": m1m2}[options.what](options)


if __name__ == "__main__":
    main()
