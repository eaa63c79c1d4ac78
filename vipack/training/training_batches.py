"""The batches that a fit trains on: those of its rows, with the numbers of its schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from vipack.program import Arguments
from vipack.training.data import ArrayRows, Rows
from vipack.training.distributed.shards import Shard, seed_of
from vipack.training.scheduled import ScheduledStream
from vipack.training.streamed import StreamedRows
from vipack.training.streams import BatchStream, ShuffledStream
from vipack.training.transformed import TransformedRows

__all__ = ["training_batches"]


def training_batches(
    rows: Rows,
    batch_size: int | None,
    loss: Any,
    seed: int,
    observe: Callable[[Arguments], None] | None = None,
    *,
    shard: Shard | None = None,
) -> BatchStream:
    """An endless, resumable stream of batches, shuffled by `seed`.

    Args:
        observe: is called on rows of data in files whose values are the smallest or largest so far, as they are read.
        shard: the rows that this process draws from, where there are several.
        loss: whose ``schedules``, if it has any, are functions of the step by name.
    """
    raw = rows.raw if isinstance(rows, TransformedRows) else rows  # which the loss transforms, anew at every step
    generator = torch.Generator().manual_seed(seed if shard is None else seed_of(seed, shard.first))
    look = None if observe is None else lambda indices: observe(rows.rows(indices))
    if shard is not None and isinstance(raw, StreamedRows):
        stream = raw.stretch(shard.first, shard.num_rows, shard.batch_size, generator, look)
    elif shard is not None:
        stream = _own_batches(raw, shard, generator)
    elif isinstance(raw, StreamedRows):
        stream = raw.stream(batch_size, generator, look)
    else:
        stream = raw.stream(batch_size, generator)
    own = getattr(loss, "schedules", {})
    if not own and not rows.schedules:
        return stream
    return ScheduledStream(stream, rows.schedules, rows.fixed, own, rows.dtype, rows.device)


def _own_batches(rows: Rows, shard: Shard, generator: torch.Generator) -> BatchStream:
    """Batches of the rows of one process, each with the numbers that its rows have among all."""
    whole = rows.full if isinstance(rows, ArrayRows) else None
    return ShuffledStream(rows.rows, whole, shard.num_rows, shard.batch_size, generator, shard.first)
