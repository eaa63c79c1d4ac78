"""Batches cut from windows of rows, of which a thread makes the next while steps are taken on this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from vipack.program import Arguments
from vipack.training.arrays import joined
from vipack.training.streams import BatchStream
from vipack.training.windows import Window, Windows

__all__ = ["WindowStream"]

_MANY = 1_000_000_000
_LOOKS = 3  # batches that a check before training may take; who takes more is a run, for which to read ahead


class WindowStream(BatchStream):
    """Every row once an epoch, in batches of equal size; see :class:`vipack.training.windows.BlockWindows` for the order.

    Where the size does not divide the number of rows, a batch takes the last rows of one epoch and the first of the next.

    Args:
        call: arrays of a batch and the indices of its rows -> the call of the model.
        observe: is given the rows of each window that are the smallest or largest so far, before any step sees the window.
    """

    def __init__(
        self,
        windows: Windows,
        call: Callable[[list[Any], Tensor], Arguments],
        num_rows: int,
        batch_size: int,
        observe: Callable[[Tensor], None] | None = None,
    ) -> None:
        self._windows, self._call, self._batch_size, self._observe = windows, call, batch_size, observe
        self.per_epoch = num_rows / batch_size
        self._ready: deque[Window] = deque()
        self._done = 0  # rows of the first of them
        self._given = 0  # batches
        self._next: Arguments | None = None  # already cut, not yet handed out
        self._thread: ThreadPoolExecutor | None = None
        self._ahead: Future[Window] | None = None
        self._error: Exception | None = None  # of the data, which no further call gets past

    @property
    def epoch(self) -> int:  # type: ignore[override]
        """Epochs completed."""
        return self._ready[0].epoch if self._ready else int(self._windows.state()["epoch"])

    def __next__(self) -> Arguments:
        batch = self.peek()
        self._pass()
        return batch

    def peek(self) -> Arguments:
        if self._next is None:
            pieces = self._pieces()
            arrays = [joined([window.arrays[k][start:stop] for window, start, stop in pieces]) for k in self._columns()]
            self._next = self._call(arrays, self._indices_of(pieces))
        return self._next

    def upcoming(self) -> tuple[int | None, int]:
        return self._batch_size, _MANY

    def indices(self, number: int) -> Tensor | None:
        batches = []
        for _ in range(number):
            batches.append(self._indices_of(self._pieces()))
            self._pass()
        return torch.stack(batches)

    def whole(self) -> Arguments | None:
        return None

    def state(self) -> dict[str, Any]:
        state = self._ready[0].state if self._ready else self._windows.state()
        return {**state, "rows": self._done}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See :class:`BatchStream`; the window that the stream was in is read again."""
        if self._ahead is not None:
            self._ahead.exception()  # it is of no use any more, but must have left the windows alone
        self._ready.clear()
        self._ahead, self._next = None, None
        self._windows.load_state(state)
        self._done = int(state.get("rows", 0))

    def _pass(self) -> None:
        self._done += self._batch_size
        self._given += 1
        self._next = None
        if self._windows.ahead and self._ahead is None and self._given >= _LOOKS and len(self._ready) == 1:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, "vipack-rows")
            self._ahead = self._thread.submit(self._windows.next)

    def _pieces(self) -> list[tuple[Window, int, int]]:
        """The rows of the next batch, in one window or several."""
        while not self._ready or self._done >= len(self._ready[0].indices):
            if self._ready:
                self._done -= len(self._ready[0].indices)
                self._ready.popleft()
            if not self._ready:
                self._add()
        pieces, missing, start, index = [], self._batch_size, self._done, 0
        while missing:
            if index == len(self._ready):
                self._add()
            window = self._ready[index]
            stop = min(start + missing, len(window.indices))
            pieces.append((window, start, stop))
            missing -= stop - start
            start, index = 0, index + 1
        return pieces

    def _add(self) -> None:
        if self._error is not None:
            raise self._error
        try:
            window = self._windows.next() if self._ahead is None else self._ahead.result()
            self._ahead = None
            if self._observe is not None and window.extremes is not None:
                self._observe(window.extremes)
        except Exception as error:
            # An engine that tries a faster tier goes back to a slower one after an error: that must not go on without the window.
            self._error = error
            raise
        self._ready.append(window)

    def _columns(self) -> range:
        return range(len(self._ready[0].arrays))

    @staticmethod
    def _indices_of(pieces: list[tuple[Window, int, int]]) -> Tensor:
        return joined([window.indices[start:stop] for window, start, stop in pieces])  # type: ignore[no-any-return]
