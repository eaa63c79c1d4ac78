"""Windows of rows: blocks drawn at random, read together and shuffled together, one window after another without end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vipack.training.streams import complete_batch

__all__ = ["BlockWindows", "Window", "Windows", "windows_of"]


@dataclass(frozen=True)
class Window:
    """Rows in the order of training.

    Attributes:
        arrays: of the data, a tensor or a SciPy CSR matrix each.
        indices: of the rows ``(n,)``.
        epoch: that they belong to.
        state: of :class:`Windows` before it made this one.
        extremes: indices of rows with values below or above any before.
    """

    arrays: list[Any]
    indices: Tensor
    epoch: int
    state: dict[str, Any]
    extremes: Tensor | None = None


class Windows(ABC):
    """Makes windows one after another; every row is in one window of an epoch.

    Attributes:
        ahead: whether a thread of its own may make them.
    """

    ahead = True

    @abstractmethod
    def next(self) -> Window:
        """The next window."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What :meth:`load_state` needs to make the very next window."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state` was asked for."""


class BlockWindows(Windows):
    """Windows of blocks in a new random order every epoch.

    With a single window the order of rows is that of :class:`vipack.training.streams.ShuffledStream`.

    Args:
        read: blocks by number, ascending, and a permutation of their rows -> the arrays, and the positions of rows to be looked at.
        bounds: of the rows of each block among all, ``(blocks + 1,)``; of a stretch of the data they begin at its first row.
    """

    def __init__(
        self,
        read: Callable[[np.ndarray[Any, Any], Tensor], tuple[list[Any], Tensor | None]],
        bounds: np.ndarray[Any, Any],
        window_rows: int,
        batch_size: int,
        generator: torch.Generator,
    ) -> None:
        self._read, self._bounds, self._generator = read, bounds, generator
        self._window_rows, self._batch_size = window_rows, batch_size
        self._num_rows = int(bounds[-1] - bounds[0])
        self._epoch, self._index = 0, 0
        self._order: list[np.ndarray[Any, Any]] = []
        self._epoch_start = generator.get_state()
        self._tail: Tensor | None = None  # the last rows of the epoch before, which begin a batch
        self._recent = torch.empty(0, dtype=torch.int64)  # rows of this epoch, of which the last are the next tail

    def next(self) -> Window:
        state = self.state()
        if self._index == 0:
            self._epoch_start = self._generator.get_state()
            self._order = self._draw_order()
        blocks = np.sort(self._order[self._index])
        rows = torch.from_numpy(np.concatenate([np.arange(*self._bounds[b : b + 2]) for b in blocks]))
        order = torch.randperm(len(rows), generator=self._generator)
        indices = rows[order]
        if self._index == 0 and self._tail is not None:
            order = complete_batch(order, indices, self._tail, self._batch_size)
            indices = rows[order]
        arrays, extremes = self._read(blocks, order)
        window = Window(arrays, indices, self._epoch, state, None if extremes is None else indices[extremes])
        self._move_on(indices)
        return window

    def state(self) -> dict[str, Any]:
        return {
            "epoch": self._epoch,
            "window": self._index,
            "epoch_start": self._epoch_start.clone(),
            "generator": self._generator.get_state(),
            "tail": self._tail,
            "recent": self._recent,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See :class:`Windows`; the state may be of rows in memory, whose epoch is one window."""
        self._epoch, self._index = int(state["epoch"]), int(state.get("window", 0))
        self._tail, self._recent = state.get("tail"), state.get("recent", self._recent[:0])
        self._epoch_start = state.get("epoch_start", state["generator"]).clone()
        if self._index:
            self._generator.set_state(self._epoch_start)
            self._order = self._draw_order()
        self._generator.set_state(state["generator"])

    def _draw_order(self) -> list[np.ndarray[Any, Any]]:
        """The blocks of each window of an epoch."""
        count = len(self._bounds) - 1
        if self._num_rows <= self._window_rows:
            return [np.arange(count)]
        order = torch.randperm(count, generator=self._generator).numpy()
        return windows_of(order, np.diff(self._bounds), self._window_rows)

    def _move_on(self, indices: Tensor) -> None:
        self._recent = torch.cat([self._recent, indices])[-self._batch_size :].clone()
        self._index += 1
        if self._index < len(self._order):
            return
        head = 0 if self._tail is None else self._batch_size - len(self._tail)
        left = (self._num_rows - head) % self._batch_size
        self._tail = self._recent[len(self._recent) - left :].clone() if left else None
        self._recent = self._recent[:0]
        self._epoch, self._index = self._epoch + 1, 0


def windows_of(
    order: np.ndarray[Any, Any], sizes: np.ndarray[Any, Any], window_rows: int
) -> list[np.ndarray[Any, Any]]:
    """Blocks in `order`, cut into windows of at least `window_rows` rows, but for the last, which has half as many."""
    sums = np.cumsum(sizes[order])
    cuts, start = [], 0
    while start < sums[-1]:
        cut = int(np.searchsorted(sums, start + window_rows)) + 1
        if cut >= len(order):
            break
        cuts.append(cut)
        start = int(sums[cut - 1])
    if cuts and sums[-1] - sums[cuts[-1] - 1] < window_rows / 2:
        cuts.pop()
    return np.split(order, cuts)
