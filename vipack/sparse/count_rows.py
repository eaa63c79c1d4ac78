"""Rows of counts of which few are not zero, as the passes take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vipack.errors import DataError

__all__ = ["CountRows"]


@dataclass(frozen=True, eq=False)
class CountRows:
    """Counts ``(D, V)`` in compressed rows.

    Attributes:
        starts: ``(D + 1,)``: where each row begins among the nonzeros, and where the last ends; of the type of `words`.
        words: ``(nonzeros,)`` int32 or int64: columns.
        counts: ``(nonzeros,)``.
    """

    starts: Tensor
    words: Tensor
    counts: Tensor
    num_words: int

    @classmethod
    def of(cls, matrix: Any, dtype: torch.dtype) -> CountRows:
        """From a SciPy matrix or a torch tensor in CSR form, without a copy where the types agree.

        Raises:
            DataError: its row pointers or column numbers cannot be.
        """
        if isinstance(matrix, Tensor):
            starts, words, counts = matrix.crow_indices(), matrix.col_indices(), matrix.values()
        else:
            starts, words, counts = (torch.as_tensor(piece) for piece in (matrix.indptr, matrix.indices, matrix.data))
        if words.dtype not in (torch.int32, torch.int64):
            words = words.long()
        num_words = int(matrix.shape[1])
        # Passes write where these point to.
        if len(words) and not 0 <= int(words.min()) <= int(words.max()) < num_words:
            raise DataError(f"counts: a column number is outside of 0 to {num_words - 1}; make the matrix anew.")
        if (
            len(starts) != matrix.shape[0] + 1
            or bool((starts.diff() < 0).any())
            or int(starts[0])
            or int(starts[-1]) != len(words)
        ):
            raise DataError("counts: the row pointers do not fit the values; make the matrix anew.")
        return cls(
            starts.to(words.dtype).contiguous(), words.contiguous(), counts.to(dtype).contiguous(), int(matrix.shape[1])
        )

    @property
    def num_rows(self) -> int:
        """D."""
        return len(self.starts) - 1

    @property
    def lengths(self) -> Tensor:
        """``(D,)``: nonzeros of each row."""
        return self.starts.diff()

    @property
    def totals(self) -> Tensor:
        """``(D,)`` float64: counts of each row added up."""
        sums = np.concatenate([[0.0], np.cumsum(self.counts.numpy(), dtype=np.float64)])  # torch's is slower
        return torch.from_numpy(np.diff(sums[self.starts.numpy()]))

    @property
    def word_totals(self) -> Tensor:
        """``(V,)`` float64: counts of each column added up."""
        return torch.zeros(self.num_words, dtype=torch.float64).index_add_(0, self.words.long(), self.counts.double())

    def take(self, rows: Tensor) -> CountRows:
        """Some of the rows, in an order of their own."""
        lengths = self.lengths.long()[rows]
        ends = lengths.cumsum(0)
        starts = torch.cat([ends.new_zeros(1), ends])
        total = int(starts[-1])
        positions = torch.arange(total) + torch.repeat_interleave(self.starts.long()[rows] - starts[:-1], lengths)
        return CountRows(starts.to(self.words.dtype), self.words[positions], self.counts[positions], self.num_words)
