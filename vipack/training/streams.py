"""Endless, resumable streams of batches: all rows at every step, shuffled rows, or a user's loader."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from vipack.errors import DataError
from vipack.program import Arguments

__all__ = ["BatchStream", "LoaderStream", "ShuffledStream", "WholeStream", "WrappedStream", "complete_batch"]

_MANY = 1_000_000_000


class BatchStream(ABC):
    """Where a run stands in its epochs; iterating never ends.

    Attributes:
        epoch: epochs completed.
        per_epoch: batches in one epoch, which need not be a whole number.
        cells: tensors ``()`` in :meth:`whole` that stand for numbers of the step, which :meth:`scheduled` gives.
    """

    epoch: int
    per_epoch: float
    cells: tuple[Tensor, ...] = ()

    def __iter__(self) -> BatchStream:
        return self

    @abstractmethod
    def __next__(self) -> Arguments:
        """The next batch."""

    @abstractmethod
    def peek(self) -> Arguments:
        """The next batch, which stays the next."""

    @abstractmethod
    def upcoming(self) -> tuple[int | None, int]:
        """Rows in the next batch (None where every step sees all), and how many batches of that size come in a row."""

    @abstractmethod
    def indices(self, number: int) -> Tensor | None:
        """Indices ``(number, B)`` of the next batches, which are passed by; None where batches are not rows.

        `number` must not exceed what :meth:`upcoming` says.
        """

    @abstractmethod
    def whole(self) -> Arguments | None:
        """The call on all the rows that :meth:`indices` counts; None where they are not tensors in memory."""

    def scheduled(self, number: int) -> list[Tensor] | None:
        """The numbers of the next steps, ``(number,)`` for each of ``cells``; they are not passed by."""
        return []

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What :meth:`load_state` needs to go on with the very next batch."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where the stream was when :meth:`state` gave `state`."""


class WrappedStream(BatchStream):
    """A stream whose batches are those of another one, changed."""

    def __init__(self, inner: BatchStream) -> None:
        self._inner = inner
        self.per_epoch = inner.per_epoch

    @property
    def epoch(self) -> int:  # type: ignore[override]
        """Epochs completed."""
        return self._inner.epoch

    def upcoming(self) -> tuple[int | None, int]:
        return self._inner.upcoming()

    def indices(self, number: int) -> Tensor | None:
        return self._inner.indices(number)

    def state(self) -> dict[str, Any]:
        return self._inner.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._inner.load_state(state)


class WholeStream(BatchStream):
    """Every row at every step."""

    per_epoch = 1.0

    def __init__(self, whole: Callable[[], Arguments], generator: torch.Generator) -> None:
        self._whole = whole
        self._generator = generator
        self._steps = 0

    @property
    def epoch(self) -> int:  # type: ignore[override]
        """Epochs completed, the one under way not counted until the next begins."""
        return max(0, self._steps - 1)

    def __next__(self) -> Arguments:
        self._steps += 1
        return self._whole()

    def peek(self) -> Arguments:
        return self._whole()

    def upcoming(self) -> tuple[int | None, int]:
        return None, _MANY

    def indices(self, number: int) -> Tensor | None:
        self._steps += number
        return None

    def whole(self) -> Arguments | None:
        return self._whole()

    def state(self) -> dict[str, Any]:
        return {"epoch": self._steps, "taken": 0, "generator": self._generator.get_state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._steps = int(state["epoch"])
        self._generator.set_state(state["generator"])


class ShuffledStream(BatchStream):
    """Every row once an epoch in a new random order, cut into batches of equal size.

    Where the size does not divide the number of rows, a batch takes the last rows of one epoch and the first of the next,
    none of them twice: a smaller batch would need a graph of its own, and normalisation over a batch fails on a single row.
    """

    def __init__(
        self,
        rows: Callable[[Tensor], Arguments],
        whole: Callable[[], Arguments] | None,
        num_rows: int,
        batch_size: int,
        generator: torch.Generator,
        first: int = 0,
    ) -> None:
        """`first` is the number of the first of the `num_rows` rows, where there are others."""
        self._first = first
        self._rows_of = rows
        self._whole = whole
        self._num_rows = num_rows
        self._batch_size = batch_size
        self._generator = generator
        self.per_epoch = num_rows / batch_size
        self.epoch = 0
        self._orders: list[tuple[Tensor, Tensor | None, Tensor]] = []  # generator's state and tail before, and order
        self._done = 0  # rows of the first of them

    def __next__(self) -> Arguments:
        batch = self.peek()
        self._done += self._batch_size
        return batch

    def peek(self) -> Arguments:
        return self._rows_of(self._next(self._batch_size) + self._first)

    def upcoming(self) -> tuple[int | None, int]:
        return self._batch_size, _MANY

    def indices(self, number: int) -> Tensor | None:
        blocks = []
        while number:
            here = min(number, max(1, (self._num_rows - self._done) // self._batch_size))
            blocks.append(self._next(here * self._batch_size).view(here, self._batch_size))
            self._done += here * self._batch_size
            number -= here
        return (blocks[0] if len(blocks) == 1 else torch.cat(blocks)) + self._first

    def whole(self) -> Arguments | None:
        return None if self._whole is None else self._whole()

    def state(self) -> dict[str, Any]:
        before, tail = self._orders[0][:2] if self._orders else (self._generator.get_state(), None)
        return {"epoch": self.epoch, "rows": self._done, "generator": before.clone(), "tail": tail}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._generator.set_state(state["generator"])
        self._orders.clear()
        self.epoch = int(state["epoch"])
        self._done = int(state["rows"]) if "rows" in state else int(state["taken"]) * self._batch_size
        if self._done or state.get("tail") is not None:
            self._shuffle(state.get("tail"))
        if self._done > self._num_rows:
            self._shuffle(self._orders[0][2][self._done - self._batch_size :])

    def _next(self, count: int) -> Tensor:
        """The rows to come, of at most two epochs."""
        if self._orders and self._done >= self._num_rows:
            self._done -= self._num_rows
            self.epoch += 1
            if len(self._orders) == 1:
                self._shuffle(None)
            del self._orders[0]
        if not self._orders:
            self._shuffle(None)
        rows = self._orders[0][2][self._done : self._done + count]
        if len(rows) == count:
            return rows
        if len(self._orders) == 1:
            self._shuffle(rows)
        return torch.cat([rows, self._orders[1][2][: count - len(rows)]])

    def _shuffle(self, tail: Tensor | None) -> None:
        """A new epoch, whose first rows complete the batch that `tail`, the last rows of the epoch before, begins."""
        before = self._generator.get_state()
        order = torch.randperm(self._num_rows, generator=self._generator)
        if tail is not None:
            order = complete_batch(order, order, tail, self._batch_size)
        self._orders.append((before, tail, order))


class LoaderStream(BatchStream):
    """Batches of a user's loader, one epoch after another."""

    def __init__(self, epoch_of: Callable[[], Iterator[Arguments]], per_epoch: int, generator: torch.Generator) -> None:
        self._epoch_of = epoch_of
        self._generator = generator
        self.per_epoch = per_epoch
        self.epoch = 0
        self._batches_done = 0
        self._before = generator.get_state()
        self._batches: Iterator[Arguments] | None = None
        self._next: Arguments | None = None  # already drawn, not yet handed out

    def __next__(self) -> Arguments:
        batch = self.peek()
        self._next = None
        self._batches_done += 1
        return batch

    def peek(self) -> Arguments:
        while self._next is None:
            if self._batches is None:
                self._before = self._generator.get_state()
                self._batches = self._epoch_of()
            self._next = next(self._batches, None)
            if self._next is None:
                if self._batches_done == 0:
                    raise DataError("data: the loader gave no batch in a whole epoch; it must yield at least one.")
                self.epoch += 1
                self._batches_done, self._batches = 0, None
        return self._next

    def upcoming(self) -> tuple[int | None, int]:
        indices = self.peek().indices
        return None if indices is None else len(indices), 1

    def indices(self, number: int) -> Tensor | None:
        return None

    def whole(self) -> Arguments | None:
        return None

    def state(self) -> dict[str, Any]:
        start = self._generator.get_state() if self._batches is None else self._before
        return {"epoch": self.epoch, "taken": self._batches_done, "generator": start.clone()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See :class:`BatchStream`; batches already seen in its epoch are drawn again and skipped."""
        self._generator.set_state(state["generator"])
        self.epoch, self._batches_done, self._batches, self._next = int(state["epoch"]), 0, None, None
        for _ in range(int(state["taken"])):
            next(self)


def complete_batch(order: Tensor, indices: Tensor, tail: Tensor, batch_size: int) -> Tensor:
    """`order` with none of the rows `tail` among those that complete their batch, which would then have a row twice.

    Args:
        indices: the rows in that order.
        tail: the last rows of the epoch before.
    """
    order = order.clone()
    head = batch_size - len(tail)
    twice = torch.isin(indices, tail)
    again = twice[:head].nonzero()[:, 0]
    others = (~twice[head:]).nonzero()[: len(again), 0] + head
    again = again[: len(others)]
    order[again], order[others] = order[others], order[again]
    return order
