"""How a fit was trained: losses, stages, starts and the engine."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vipack.plots.canvas import axis_for
from vipack.plots.loss_curve import losses
from vipack.report.content import Picture, Section, Table
from vipack.report.figures import figure_of
from vipack.report.fitted import Fitted

__all__ = ["loss_picture", "training_section"]


def training_section(fit: Fitted) -> Section:
    """Why training ended, the losses, and what stages and starts came to."""
    texts = [f"Training took {fit.steps:,} steps and {fit.seconds:.1f} s; it ended for this reason: {fit.stopped}."]
    if fit.steps:
        texts.append(f"Engine: {fit.engine}.")
    tables = []
    if len(fit.stages):
        texts.append(
            "There was no guide, so a ladder of guides was climbed; each stage was kept only for what it gained."
        )
        tables.append(Table(fit.stages.to_frame(), "Stages of the ladder; ELBO and gain in nats"))
    if len(fit.restarts) > 1:
        frame = pd.DataFrame(
            {"elbo": list(fit.restarts)}, index=pd.Index(range(1, len(fit.restarts) + 1), name="start")
        )
        tables.append(Table(frame, "ELBO in nats that each start came to; the best was kept"))
    history = fit.history
    if "elbo" in history.columns:
        best = history.loc[history["elbo"].idxmax()]
        last = history.iloc[-1]
        texts.append(
            f"ELBO of an observation held out: {last['elbo']:.2f} ± {last['elbo_se']:.2f} nats at the last evaluation, "
            f"{best['elbo']:.2f} ± {best['elbo_se']:.2f} at the best, step {int(best['step']):,}."
        )
    return Section("Training", texts, tables=tables, pictures=loss_picture(fit))


def loss_picture(fit: Fitted, name: str = "") -> list[Picture]:
    """The losses; none of a fit without steps, or without a finite loss."""
    finite = fit.losses[np.isfinite(fit.losses)]
    if not len(finite):
        return []
    of = f" of {name}" if name else ""
    tenth = max(1, len(finite) // 10)
    return [
        Picture(
            figure_of(losses(fit, axis_for(None, 6.8, 3.4))),
            f"The loss{of}, minus the ELBO estimate of each step, and its running mean.",
            f"Loss{of} over {fit.steps:,} steps: {finite[:tenth].mean():,.2f} nats on average in the first tenth of them, "
            f"{finite[-tenth:].mean():,.2f} in the last.",
        )
    ]
