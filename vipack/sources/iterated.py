"""Rows that come one after another and cannot be asked for: a torch ``IterableDataset``."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

from torch.utils.data import IterableDataset

from vipack.errors import DataError, UsageError

__all__ = ["IteratedRows"]


class IteratedRows:
    """An ``IterableDataset`` and how many rows it gives in an epoch, for ``data=``.

    Attributes:
        dataset: gives a row at a time: a tensor, a tuple of the model's arguments or a dict of them.
        num_rows: N, by which minibatches are scaled.
        window_rows: rows that are shuffled together; None where the fit may choose.

    Raises:
        DataError: it has no length, and none was given.
    """

    def __init__(
        self,
        dataset: IterableDataset[Any],
        num_rows: int | None = None,
        *,
        missing: bool = False,
        window_rows: int | None = None,
    ) -> None:
        self.name = type(dataset).__name__
        self.dataset, self.missing, self.window_rows = dataset, missing, window_rows
        if num_rows is None and not isinstance(dataset, Sized):
            raise DataError(
                f"data: {self.name} has no length, so log p cannot be scaled to all of its rows; pass vipack.stream(dataset, "
                "num_rows=N), give it a __len__, or use a map-style Dataset."
            )
        count = len(dataset) if num_rows is None else num_rows  # type: ignore[arg-type]
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise UsageError(f"{self.name}: num_rows must be a positive integer, found {count!r}.")
        self.num_rows: int = count

    def __len__(self) -> int:
        return self.num_rows

    def __repr__(self) -> str:
        return f"IteratedRows({self.name}, {self.num_rows:,} rows)"
