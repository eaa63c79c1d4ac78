"""Which rows belong to which process: as many to each, but for one, in one stretch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vipack.errors import DataError, UsageError

__all__ = ["Shard", "seed_of", "shard_of"]


@dataclass(frozen=True)
class Shard:
    """The rows of one process.

    Attributes:
        first, num_rows: where they begin among all, and how many they are, N_r.
        batch_size: how many of them a step takes, B_r.
        all_rows: N.
    """

    first: int
    num_rows: int
    batch_size: int
    all_rows: int

    @property
    def weight(self) -> float:
        """The share of all rows, N_r / N."""
        return self.num_rows / self.all_rows


def shard_of(rank: int, size: int, num_rows: int | None, batch_size: int | None) -> Shard:
    """
    Args:
        batch_size: rows of a step over all processes; None for all of them.

    Raises:
        DataError: there are no rows, or fewer than processes.
        UsageError: a step has fewer rows than there are processes.
    """
    if num_rows is None:
        raise DataError(
            "distributed: the data have no rows that could be dealt out to the processes; leave distributed out, or pass data "
            "whose arrays have one row for each observation."
        )
    if num_rows < size:
        raise DataError(
            f"distributed: {num_rows} rows cannot be dealt out to {size} processes; start at most {num_rows}."
        )
    if batch_size is not None and batch_size < size:
        raise UsageError(
            f"batch_size={batch_size}: the rows of one step over all {size} processes, of which each needs at least one; "
            f"pass at least {size}."
        )
    own, before = _share(num_rows, size, rank)
    return Shard(before, own, _share(batch_size or num_rows, size, rank)[0], num_rows)


def seed_of(seed: int, rank: int) -> int:
    """A seed of a stream of its own for each process; the first has the run's."""
    return seed if rank == 0 else int(np.random.SeedSequence([seed, rank]).generate_state(1)[0])


def _share(total: int, size: int, rank: int) -> tuple[int, int]:
    """How many of `total` a process gets, and how many those before it."""
    each, over = divmod(total, size)
    return each + (rank < over), rank * each + min(rank, over)
