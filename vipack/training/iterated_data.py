"""Data of an ``IterableDataset``: rows that come one after another, kept a window at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from vipack.errors import DataError, UsageError
from vipack.program import Arguments, RandomState, seeded
from vipack.sources import MOST_WHOLE, IteratedRows
from vipack.training.arrays import fingerprint_of, named_arrays, rebuilder
from vipack.training.data import Rows
from vipack.training.streams import BatchStream, WholeStream
from vipack.training.window_stream import WindowStream
from vipack.training.windows import Window, Windows

__all__ = ["IteratedDataRows"]

_WINDOW_BYTES, _WINDOW_BATCHES = 8 << 20, 4
_STRIDE = 0x9E3779B1  # between the seeds of epochs
_HEAD = 1_000  # rows that are kept, for checks to look at


class IteratedDataRows(Rows):
    """The rows of an ``IterableDataset``, gone through anew every epoch and shuffled within windows.

    Raises:
        DataError: it gives no row, or another number of rows than it said.
    """

    indexed = False

    def __init__(
        self, source: IteratedRows, fixed: Mapping[str, Any], dtype: torch.dtype, device: torch.device
    ) -> None:
        super().__init__(fixed, dtype, device)
        self._source = source
        self.num_rows = source.num_rows
        self._cursor: tuple[int, Iterator[Any]] | None = None
        with seeded(0):
            self._head = list(islice(iter(source.dataset), min(_HEAD, source.num_rows)))
        if not self._head:
            raise DataError(f"data: {source.name} gave no row; it must yield {source.num_rows:,}.")
        if len(self._head) < min(_HEAD, source.num_rows):
            raise _ended(source, len(self._head))
        some = self._collated(self._head[:100], 0)
        self._row_bytes = sum(array.nbytes for _, array in named_arrays(some)) / len(self._head[:100])

    def spread(self, count: int) -> Tensor:
        """See :class:`Rows`; the first ones."""
        return torch.arange(min(count, len(self._head)))

    @property
    def fits_in_memory(self) -> bool:
        return bool(self._source.num_rows * self._row_bytes <= MOST_WHOLE)

    def full(self) -> Arguments:
        """The call on every row.

        Raises:
            UsageError: they are too many to be put in memory.
        """
        if not self.fits_in_memory:
            raise UsageError(
                f"data: all {self.num_rows:,} rows of {self._source.name} are asked for at once, which come one after another. To train "
                "on them pass batch_size=; for answers pass data= with fewer rows, in arrays."
            )
        return self._full

    @cached_property
    def _full(self) -> Arguments:
        with seeded(0):
            items = list(islice(iter(self._source.dataset), self.num_rows))
        if len(items) < (self.num_rows or 0):
            raise _ended(self._source, len(items))
        return self.call(self._collated(items, 0))

    def rows(self, indices: Tensor) -> Arguments:
        """The call on the rows `indices` ``(B,)``; those far from each other are passed by one after another."""
        low, high = int(indices.min()), int(indices.max())
        if high < len(self._head):
            items = [self._head[i] for i in indices.tolist()]
            return self.call(self._collated(items, low), indices.to(self.device))
        if (high - low + 1) * self._row_bytes > MOST_WHOLE:
            raise UsageError(
                f"data: rows {low:,} to {high:,} of {self._source.name} are asked for together, and rows come one after another; pass "
                "data= in arrays or files for this."
            )
        with seeded(0):
            if self._cursor is None or self._cursor[0] > low:
                self._cursor = 0, iter(self._source.dataset)
            at, rows = self._cursor
            between = list(islice(rows, low - at, high + 1 - at))
        self._cursor = high + 1, rows
        if len(between) < high + 1 - low:
            raise _ended(self._source, low + len(between))
        items = [between[i - low] for i in indices.tolist()]
        return self.call(self._collated(items, low), indices.to(self.device))

    def stream(self, batch_size: int | None, generator: torch.Generator) -> BatchStream:
        """See :class:`Rows`; rows are shuffled within windows."""
        count = self._source.num_rows
        if batch_size is None or batch_size >= count:
            return WholeStream(self.full, generator)
        size = self._source.window_rows or int(_WINDOW_BYTES // max(1.0, self._row_bytes))
        windows = _IteratedWindows(self, max(size, _WINDOW_BATCHES * batch_size), generator)
        return WindowStream(windows, self._call, count, batch_size)

    def fingerprint(self) -> str:
        """See :class:`Rows`; of the length and the first row."""
        first = named_arrays(self._collated(self._head[:1], 0))
        return fingerprint_of([("length", torch.tensor(self.num_rows)), *first, *(self.fixed | self.schedules).items()])

    @cached_property
    def rebuild(self) -> Any:
        """What puts the arrays of a row together again."""
        return rebuilder(self._collated(self._head[:1], 0))

    def window(self, items: list[Any], start: int, order: Tensor) -> list[Tensor]:
        """Rows from number `start` on as arrays of the fit's type, in `order`."""
        named = named_arrays(self._collated(items, start))
        return [self.converted(array).index_select(0, order.to(self.device)) for _, array in named]

    def _call(self, arrays: list[Any], indices: Tensor) -> Arguments:
        # Only the number of rows is known, for the scale: a data set may give them in another order every epoch.
        return self.call(self.rebuild(arrays), torch.arange(len(indices), device=self.device))

    def _collated(self, items: list[Any], start: int) -> Any:
        try:
            rows = default_collate(items)
        except (RuntimeError, TypeError, KeyError, ValueError) as error:
            message = str(error).strip().partition("\n")[0]
            raise DataError(
                f"data: rows {start:,} to {start + len(items):,} of {self._source.name} cannot be put together ({message}); every row must be "
                "a tensor, a tuple or a dict of them, of the same shapes."
            ) from error
        for name, array in named_arrays(rows):
            if not isinstance(array, Tensor):
                raise DataError(
                    f"{name}: {self._source.name} gives a {type(array).__name__}, expected numbers or tensors."
                )
            bad = (array.isinf() if self._source.missing else ~array.isfinite()) if array.is_floating_point() else None
            if bad is not None and bool(bad.any()):
                row, *column = (int(i) for i in bad.nonzero()[0])
                where = f", column {column[0] if len(column) == 1 else tuple(column)}" if column else ""
                raise DataError(
                    f"{name}: row {start + row:,}{where} of {self._source.name} is {float(array[(row, *column)]):g}; leave such rows out, or, if "
                    "NaN stands for missing values that the model masks, pass vipack.stream(..., missing=True)."
                )
        return rows


class _IteratedWindows(Windows):
    """Windows of consecutive rows, each shuffled. Its own random numbers serve the data set, epoch by epoch."""

    ahead = False  # a data set may draw from the process's generators

    def __init__(self, data: IteratedDataRows, size: int, generator: torch.Generator) -> None:
        self._data, self._size, self._generator = data, size, generator
        self._epoch, self._done = 0, 0
        self._random: RandomState | None = None
        self._items: Iterator[Any] = iter(())

    def next(self) -> Window:
        state = self.state()
        source = self._data._source
        if self._done == 0:
            self._begin()
        items = self._give(min(self._size, source.num_rows - self._done))
        start = self._done
        order = torch.randperm(len(items), generator=self._generator)
        window = Window(self._data.window(items, start, order), order + start, self._epoch, state)
        self._done += len(items)
        if self._done == source.num_rows:
            if self._more():
                raise DataError(
                    f"data: {source.name} gave more than the {source.num_rows:,} rows that it said, so log p would not be scaled to "
                    "all of them; set num_rows or __len__ right."
                )
            self._epoch, self._done = self._epoch + 1, 0
        return window

    def state(self) -> dict[str, Any]:
        return {"epoch": self._epoch, "done": self._done, "generator": self._generator.get_state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See :class:`Windows`; rows of the epoch that were already seen are passed by."""
        self._epoch, self._done = int(state["epoch"]), int(state.get("done", 0))
        if self._done:
            self._begin()
            left = self._done
            while left:
                left -= len(self._give(min(left, self._size)))
        self._generator.set_state(state["generator"])

    def _begin(self) -> None:
        self._random = RandomState.from_seed((self._generator.initial_seed() + _STRIDE * (self._epoch + 1)) % 2**31)
        with self._random.active():
            self._items = iter(self._data._source.dataset)

    def _give(self, count: int) -> list[Any]:
        assert self._random is not None
        with self._random.active():
            items = list(islice(self._items, count))
        if len(items) < count:
            raise _ended(self._data._source, self._done + len(items))
        return items

    def _more(self) -> bool:
        assert self._random is not None
        with self._random.active():
            return next(self._items, self) is not self


def _ended(source: IteratedRows, count: int) -> DataError:
    return DataError(
        f"data: {source.name} ended after {count:,} rows of the {source.num_rows:,} that it said, so log p would be scaled wrongly; set "
        "num_rows or __len__ to what an epoch gives."
    )
