"""What is new in each window of data: values below or above all that were read before."""

from __future__ import annotations

from typing import Any

import scipy.sparse
import torch
from torch import Tensor

__all__ = ["ValuesRead"]


class ValuesRead:
    """The range of each array so far.

    If a value is outside the support of its site, the first such value is below or above all before, so that looking at these
    few is enough.
    """

    def __init__(self) -> None:
        self._ranges: dict[int, tuple[float, float]] = {}

    def extremes(self, arrays: list[Any]) -> Tensor | None:
        """Positions of rows in a window that extend the range of an array; None where no row does."""
        rows: set[int] = set()
        for number, array in enumerate(arrays):
            values = torch.from_numpy(array.data) if scipy.sparse.issparse(array) else array
            if values.dtype == torch.bool or not values.numel():
                continue
            low, high = (float(value) for value in torch.aminmax(values))
            if low != low:  # NaN, which stands for missing values
                values = values.nan_to_num(nan=self._ranges.get(number, (0.0, 0.0))[0])
                low, high = (float(value) for value in torch.aminmax(values))
            before = self._ranges.get(number)
            self._ranges[number] = (low, high) if before is None else (min(low, before[0]), max(high, before[1]))
            if before is None or low < before[0]:
                rows.add(_row(array, values, int(values.argmin())))
            if before is None or high > before[1]:
                rows.add(_row(array, values, int(values.argmax())))
        return torch.tensor(sorted(rows)) if rows else None


def _row(array: Any, values: Tensor, flat: int) -> int:
    if scipy.sparse.issparse(array):
        return int(array.indptr.searchsorted(flat, side="right")) - 1
    return flat // max(1, values[0].numel())
