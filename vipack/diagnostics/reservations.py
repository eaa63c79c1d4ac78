"""What lowers a verdict though no weight or chain shows it: points, odd densities, and how training ended."""

from __future__ import annotations

import dataclasses

import numpy as np

from vipack.diagnostics.collapse import LatentActivity
from vipack.diagnostics.report import Diagnosis, Verdict
from vipack.posterior import Draws
from vipack.types import Stopped, StopReason

__all__ = ["finished", "lowered_by_collapse"]


def finished(diagnosis: Diagnosis, sets: list[Draws], stopped: Stopped | None) -> Diagnosis:
    """The verdict, lowered where the guide is a point, a density is none, or training ended early."""
    points = sets[0].points
    if points:
        named = ", ".join(map(repr, points))
        diagnosis = dataclasses.replace(
            diagnosis,
            verdict=Verdict.DISTRUST,
            reasons=(f"the guide is a point at latent site(s) {named}: it has no spread there to trust",),
            advice=("a guide with a density, such as AutoNormal or AutoMultivariateNormal",),
        )
    diagnosis = _lowered_by_odd_draws(
        diagnosis, np.concatenate([np.asarray(draws.log_weights.cpu()) for draws in sets])
    )
    return _lowered_by_an_early_end(diagnosis, stopped)


def lowered_by_collapse(diagnosis: Diagnosis, activity: LatentActivity | None) -> Diagnosis:
    """A posterior that is the prior for every observation is drawn from rightly, and says nothing of any of them."""
    if activity is None or not activity.collapsed:
        return diagnosis
    why = (
        f"the latents have collapsed: none of their {activity.num_dimensions} dimensions depends on the data, "
        "so that draws of the posterior say nothing of an observation"
    )
    advice = (
        "BetaELBO(free_bits=0.1) or a weight on the divergence that rises from 0, a lower learning rate, or a weaker decoder",
    )
    return dataclasses.replace(
        diagnosis, verdict=Verdict.DISTRUST, reasons=(why, *diagnosis.reasons), advice=(*advice, *diagnosis.advice)
    )


def _lowered_by_odd_draws(diagnosis: Diagnosis, log_weights: np.ndarray) -> Diagnosis:
    """Draws without a density: the ELBO that they make is no number, however even the other weights are."""
    count, outside = len(log_weights), int(np.isneginf(log_weights).sum())
    unknown = int((~np.isfinite(log_weights)).sum()) - outside
    if unknown:
        why = f"log p(x, z) or log q(z) is NaN or infinite at {unknown} of {count} draws"
        return dataclasses.replace(diagnosis, verdict=Verdict.DISTRUST, reasons=(why, *diagnosis.reasons))
    if outside:
        why = f"{outside} of {count} draws lie where the model has no density, so the ELBO is -inf"
        verdict = Verdict.CORRECTED if diagnosis.verdict is Verdict.TRUST else diagnosis.verdict
        return dataclasses.replace(diagnosis, verdict=verdict, reasons=(*diagnosis.reasons, why))
    return diagnosis


def _lowered_by_an_early_end(diagnosis: Diagnosis, stopped: Stopped | None) -> Diagnosis:
    if stopped is None or stopped.reason not in (StopReason.DIVERGED, StopReason.INTERRUPTED):
        return diagnosis
    diverged = stopped.reason is StopReason.DIVERGED and diagnosis.verdict is Verdict.TRUST
    verdict = Verdict.CORRECTED if diverged else diagnosis.verdict
    return dataclasses.replace(
        diagnosis, verdict=verdict, reasons=(*diagnosis.reasons, f"training ended early ({stopped})")
    )
