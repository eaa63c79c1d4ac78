"""How a run went, as a table."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vipack.training.loop import RunState

__all__ = ["history"]

_ROWS = 100  # where no evaluations say which steps to show


def history(state: RunState) -> pd.DataFrame:
    """step, epoch, seconds, loss and held-out ELBO of a run; see :attr:`vipack.Fit.history`."""
    losses = np.asarray(state.losses, dtype=np.float64)
    points = state.validation
    steps = [point.step for point in points]
    if not points and len(losses):
        steps = sorted({int(step) for step in np.linspace(len(losses) / min(_ROWS, len(losses)), len(losses), _ROWS)})
    total = np.concatenate([[0.0], np.cumsum(losses)])
    before = [0, *steps[:-1]]
    loss = (
        [(total[end] - total[start]) / (end - start) for start, end in zip(before, steps, strict=True)] if steps else []
    )
    table = pd.DataFrame({"step": np.asarray(steps, dtype=np.int64), "loss": np.asarray(loss, dtype=np.float64)})
    table.insert(1, "epoch", table["step"] / state.batches.per_epoch)
    if points:
        table["seconds"] = [point.seconds for point in points]
        table["elbo"] = [point.elbo for point in points]
        table["elbo_se"] = [point.se for point in points]
    return table
