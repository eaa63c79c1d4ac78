"""New digits from a variational autoencoder, beside the training images that are most like them."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from pyro.optim import ClippedAdam
from torch import Tensor

import vipack
from vipack.cli.demo.models import INK, VAE
from vipack.cli.demo.section import Section, Settings, say
from vipack.cli.text_tables import text_table
from vipack.diagnostics import Diagnosis
from vipack.report.content import Picture
from vipack.report.figures import figure_of

__all__ = ["run_digits"]

_NUM_NEW = 64


@dataclass(frozen=True)
class _Images:
    """Images as vectors ``(N, 64)`` of ink: to train on, held out, and drawn from the model."""

    train: Tensor
    test: Tensor
    new: Tensor


def run_digits(settings: Settings) -> Section:
    """Fit the VAE, score it on held-out images and draw new ones."""
    started = time.perf_counter()
    train, test = (
        torch.from_numpy(INK * each.rows) for each in vipack.datasets.digits().split(0.1, seed=settings.seed)
    )
    torch.manual_seed(settings.seed)  # of the networks' first weights
    vae = VAE()
    fit = vipack.fit(
        vae.model,
        vae.guide,
        data=train,
        batch_size=128,
        steps=settings.digit_steps,
        seed=settings.seed,
        optim=ClippedAdam({"lr": 2e-3, "lrd": 0.1 ** (1 / settings.digit_steps)}),
    )
    say(f"  VAE: {fit.steps} steps in {fit.seconds:.1f} s\n")
    fit.to_pyro()  # the trained weights into the networks themselves
    unseen = vipack.fit(vae.model, vae.guide, data=test, steps=0, progress=False)
    generator = torch.Generator().manual_seed(settings.seed)
    with torch.no_grad():
        new = INK * vae.decoder(torch.randn(_NUM_NEW, vae.num_latents, generator=generator)).sigmoid()
    num_draws = max(100, settings.num_draws // 8)
    diagnoses = {
        name: each.diagnose(num_draws, seed=settings.seed) for name, each in (("train", fit), ("held out", unseen))
    }
    sizes = {"train": len(train), "held out": len(test)}
    table = _table(diagnoses, sizes)
    say(f"{text_table(table)}\n")
    return _report(fit, diagnoses["train"], table, _Images(train, test, new), num_draws, settings, started)


def _table(diagnoses: dict[str, Diagnosis], sizes: dict[str, int]) -> pd.DataFrame:
    rows = {
        name: {
            "images": sizes[name],
            "elbo per image": each.elbo.value / sizes[name],
            "evidence per image": each.evidence.value / sizes[name],
            "khat": each.khat,
            "verdict": each.verdict.value,
        }
        for name, each in diagnoses.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index.name = "digits"
    return table


def _report(
    fit: vipack.Fit,
    diagnosis: Diagnosis,
    table: pd.DataFrame,
    images: _Images,
    num_draws: int,
    settings: Settings,
    started: float,
) -> Section:
    distances = torch.cdist(images.new, images.train)
    nearest = images.train[distances.argmin(1)]
    apart = float(distances.amin(1).median()) / INK
    usual = float(torch.cdist(images.test, images.train).amin(1).median()) / INK
    copied = float(distances.amin()) <= 0.25 * usual * INK
    copies = "some may be copies" if copied else "none is a copy"
    per_image = table["elbo per image"]
    return Section(
        title="Digits: images that nobody wrote",
        headline=(
            f"{_NUM_NEW} new digits, {'some perhaps copies' if copied else 'none a copy'} of a training image; the model explains "
            f"unseen images {per_image['train'] - per_image['held out']:.1f} nats each worse than those it was trained on."
        ),
        question=(
            f"A variational autoencoder (Kingma and Welling, 2014) of {len(images.train):,} handwritten digits of 8 x 8 pixels: the model "
            "decodes 8 standard normal latents into the ink of each pixel, the guide encodes an image into a normal over its "
            "latents. The same call to vipack.fit trains it as trained the two models above."
        ),
        verdict=diagnosis.verdict.value,
        judged=(
            f"on the codes q(z | x) of the images, of which it certifies {diagnosis.certifies}. The new images come from the "
            "model alone and do not depend on it."
        ),
        see=(
            "Left, images decoded from draws of the prior; right, at the same positions, the training image nearest to each. "
            f"New images lie {apart:.2f} from the nearest training image (median distance; white to black is 1), held-out images "
            f"{usual:.2f}: {copies}."
        ),
        trust=(
            f"Of the codes: {diagnosis.reasons[0]}. Every latent belongs to an image, so each image's q(z | x) is judged by "
            "weights of its own. For the model, look at images it has not seen: the ELBO of a held-out image is "
            f"{per_image['held out']:.1f} nats, {per_image['train'] - per_image['held out']:.1f} below that of a training image."
        ),
        tables={"digits": table},
        pictures={
            "digits_new": Picture(_sheet(images.new, nearest), "New digits, and the nearest training image of each."),
            "digits_fit": Picture(
                _how_it_went(fit, num_draws, settings),
                "Left: the loss of minibatches while training. Right: k-hat of each training image's own importance weights.",
            ),
        },
        seconds=time.perf_counter() - started,
    )


def _sheet(new: Tensor, nearest: Tensor) -> Figure:
    sheets = (np.asarray(images.reshape(-1, 8, 8)) for images in (new, nearest))
    axes = vipack.plots.images(*sheets, titles=("new", "nearest training image"))
    return figure_of(axes[0])


def _how_it_went(fit: vipack.Fit, num_draws: int, settings: Settings) -> Figure:
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    vipack.plots.losses(fit, figure.add_subplot(1, 2, 1))
    vipack.plots.khat(fit, figure.add_subplot(1, 2, 2), num_draws=num_draws, seed=settings.seed)
    return figure
