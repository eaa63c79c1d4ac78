"""Models whose observations each have latents of their own, as a VAE: what these carry, new observations, reconstructions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from vipack.diagnostics.collapse import LatentActivity, latent_activity
from vipack.errors import UsageError, VipackError
from vipack.plots.image_sheet import images
from vipack.report.content import Picture, Section, Table
from vipack.report.figures import figure_of
from vipack.report.fitted import Fitted

__all__ = ["observation_section"]

_LOOKED_AT = 1_000  # observations
_SHEET, _COLUMNS = 30, 10  # images
_FEATURES = 10
_LEAST_PIXELS = 16


def observation_section(fit: Fitted, image_shape: Sequence[int] | None, *, seed: int) -> Section | None:
    """What the latents carry, what the model generates, and how well it reconstructs; None for other models.

    Raises:
        UsageError: an observation does not have `image_shape`.
    """
    if not fit.posterior.rows_apart or (fit.num_observations or 1) < 2:
        if image_shape is not None:
            raise UsageError("image_shape: it is for fits whose observations have latents of their own; leave it out.")
        return None
    some = fit.posterior_of(most=_LOOKED_AT)
    sections = []
    activity = latent_activity(some, seed=seed)
    if activity is not None:
        sections.append(_activity_section(activity))
    sections += _validation_section(fit)
    for name, seen in fit.posterior_of(most=_SHEET).observed.items():
        shape = _image_shape(name, some.observed[name], image_shape)
        sections += _compared(fit, name, seen, some.observed[name], shape, seed)
    return Section(
        "Observations",
        [
            "Every latent belongs to an observation, so the verdict is on what the guide says of each, q(z | x); whether the "
            "model is any good shows in new observations, which do not depend on the guide, and in observations held out."
        ],
        sections=sections,
    )


def _activity_section(activity: LatentActivity) -> Section:
    rows = [
        (f"{name}[{index[0]}]" if index else name, divergence, variance)
        for name in activity.variance
        for index in [(i,) for i in range(np.size(activity.variance[name]))]
        for divergence, variance in [
            (
                float(np.ravel(activity.divergence[name])[index[0]])
                if np.size(activity.divergence[name]) == np.size(activity.variance[name])
                else math.nan,
                float(np.ravel(activity.variance[name])[index[0]]),
            )
        ]
    ]
    frame = pd.DataFrame(rows, columns=["dimension", "KL (nats)", "share of variance"]).set_index("dimension")
    frame = frame.sort_values("share of variance", ascending=False)
    return Section(
        "What the latents carry",
        [
            f"{activity.num_active} of {activity.num_dimensions} latent dimensions are active over {activity.num_rows:,} "
            f"observations; together they carry {activity.total:.2f} nats an observation."
            + (" The latents have collapsed." if activity.collapsed else "")
        ],
        tables=[
            Table(
                frame.head(_SHEET),
                "KL divergence from the prior, and how much of the prior's variance the posterior means have, by dimension",
            )
        ],
    )


def _validation_section(fit: Fitted) -> list[Section]:
    history = fit.history
    if "elbo" not in history.columns:
        return []
    best = history.loc[history["elbo"].idxmax()]
    frame = history[["step", "epoch", "elbo", "elbo_se"]].tail(10).set_index("step")
    return [
        Section(
            "Held-out ELBO",
            [
                f"ELBO of an observation held out: {best['elbo']:.2f} ± {best['elbo_se']:.2f} nats at its best, step "
                f"{int(best['step']):,}."
            ],
            tables=[Table(frame, "The last evaluations on observations held out, nats an observation")],
        )
    ]


def _compared(
    fit: Fitted, name: str, seen: Tensor, many: Tensor, shape: tuple[int, ...] | None, seed: int
) -> list[Section]:
    """Generated observations and reconstructions of a site: images as sheets, other values as figures of features."""
    try:
        new = fit.generate(max(_SHEET, min(len(many), _LOOKED_AT)), seed=seed, progress=False)[name]
        expected = fit.reconstruct(seed=seed, progress=False)[name]
    except (VipackError, KeyError) as error:
        return [Section(f"New observations of {name}", [f"Not shown: {error}"])]
    if shape is None:
        return [_features(name, many, new, expected)]
    chosen = torch.linspace(0, len(expected) - 1, len(seen), dtype=torch.float64).round().long()
    sheets = {
        f"New observations of {name}": (
            images(_pictures(new[:_SHEET], shape), columns=_COLUMNS),
            f"{_SHEET} observations drawn from the model: z from the prior, x from p(x | z).",
        ),
        f"Reconstructions of {name}": (
            images(
                _pictures(seen, shape),
                _pictures(expected[chosen], shape),
                titles=("observed", "reconstructed"),
                columns=min(6, len(seen)),
            ),
            f"{len(seen)} observations, and at the same positions the mean of p(x | z) over draws of q(z | x).",
        ),
    }
    return [
        Section(title, pictures=[Picture(figure_of(axes[0]), caption, plot=False)])
        for title, (axes, caption) in sheets.items()
    ]


def _features(name: str, seen: Tensor, new: Tensor, expected: Tensor) -> Section:
    """Means and sds of the first features of observed, new and reconstructed observations."""
    columns = {}
    for what, values in (("observed", seen), ("new", new), ("reconstructed", expected)):
        flat = values.double().reshape(len(values), -1)[:, :_FEATURES]
        columns[f"mean, {what}"] = flat.nanmean(0).cpu().numpy()
        if what != "reconstructed":
            columns[f"sd, {what}"] = np.nanstd(np.asarray(flat.cpu()), axis=0)
    count = len(next(iter(columns.values())))
    frame = pd.DataFrame(columns, index=pd.Index([f"{name}[{i}]" for i in range(count)], name="feature"))
    return Section(
        f"New observations of {name}",
        ["Observations drawn from the model, z from the prior and x from p(x | z), beside those observed."],
        tables=[Table(frame, f"The first {count} features: means and standard deviations over observations")],
    )


def _image_shape(name: str, values: Tensor, given: Sequence[int] | None) -> tuple[int, ...] | None:
    """The shape of an observation as an image; None where it is none.

    Raises:
        UsageError: it has another number of pixels than was said.
    """
    event = tuple(values.shape[1:])
    numbers = math.prod(event)
    if given is not None:
        if math.prod(given) != numbers or len(given) not in (2, 3):
            raise UsageError(
                f"image_shape: found {tuple(given)}, and an observation of {name!r} has shape {event}, {numbers} numbers; give "
                "(height, width) or (channels, height, width) with as many."
            )
        return tuple(given)
    if len(event) == 2 or (len(event) == 3 and event[0] in (1, 3)):
        return event if min(event[-2:]) > 3 else None
    side = math.isqrt(numbers)
    grey = bool(((values >= 0) & (values <= 1)).all())
    return (side, side) if len(event) == 1 and side**2 == numbers >= _LEAST_PIXELS and grey else None


def _pictures(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    pictures = values.detach().float().cpu().reshape(len(values), *shape)
    if len(shape) == 3 and shape[0] == 1:
        return pictures[:, 0]
    return pictures.clamp(0, 1) if len(shape) == 3 else pictures
