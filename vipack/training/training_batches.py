"""The batches that a fit trains on: those of its rows, with the numbers of its schedules."""

from __future__ import annotations

from typing import Any

import torch

from vipack.training.data import Rows
from vipack.training.scheduled import ScheduledStream
from vipack.training.streams import BatchStream
from vipack.training.transformed import TransformedRows

__all__ = ["training_batches"]


def training_batches(rows: Rows, batch_size: int | None, loss: Any, seed: int) -> BatchStream:
    """An endless, resumable stream of batches, shuffled by `seed`.

    Args:
        loss: whose ``schedules``, if it has any, are functions of the step by name.
    """
    raw = rows.raw if isinstance(rows, TransformedRows) else rows  # which the loss transforms, anew at every step
    stream = raw.stream(batch_size, torch.Generator().manual_seed(seed))
    own = getattr(loss, "schedules", {})
    if not own and not rows.schedules:
        return stream
    return ScheduledStream(stream, rows.schedules, rows.fixed, own, rows.dtype, rows.device)
