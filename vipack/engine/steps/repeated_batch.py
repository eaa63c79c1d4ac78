"""One batch as an endless stream."""

from __future__ import annotations

from collections.abc import Hashable

from torch import Tensor

from vipack.program import Arguments

__all__ = ["RepeatedBatch"]


class RepeatedBatch:
    """One batch, again and again.

    Args:
        key: of its shape, as :meth:`Batches.upcoming` gives it.
    """

    cells: tuple[Tensor, ...] = ()

    def __init__(self, batch: Arguments, key: Hashable = None) -> None:
        self._batch = batch
        self.key = key

    def __next__(self) -> Arguments:
        return self._batch

    def peek(self) -> Arguments:
        """The batch."""
        return self._batch

    def upcoming(self) -> tuple[Hashable, int]:
        """The same key, without end."""
        return self.key, 1_000_000_000

    def indices(self, number: int) -> Tensor | None:
        """Those of its rows, `number` times; None where it has none."""
        return None if self._batch.indices is None else self._batch.indices.expand(number, -1)

    def whole(self) -> Arguments | None:
        """No call on more rows is known."""
        return None

    def scheduled(self, number: int) -> list[Tensor] | None:
        """The numbers of its step are those of its arguments."""
        return None

    def state(self) -> dict[str, object]:
        """Nothing changes."""
        return {}

    def load_state(self, state: dict[str, object]) -> None:
        """Nothing changes."""
