"""What a fit asks of an array that lies in files: its size, and its rows from one to another."""

from __future__ import annotations

import contextlib
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vipack.errors import DataError, DtypeError, VipackError

__all__ = ["FileState", "RowSource", "checked_dtype", "source_errors"]


class RowSource(ABC):
    """N rows of one shape and type, read in ranges; what :func:`vipack.stream` gives and ``data=`` takes in place of an array.

    Attributes:
        name: of file and dataset, for messages.
        num_rows: N.
        row_shape: of one row; ``()`` where the array is ``(N,)``.
        dtype: as it is stored.
        row_bytes: of one row as it is stored, on average.
        missing: whether NaN stands for a missing value.
        block_rows: rows that are read together; None where the fit may choose.
        window_rows: rows that are shuffled together; None where the fit may choose.
        boundaries: the rows at which ranges should begin and end, where the file has such; else None.
        is_sparse: whether rows come as a SciPy CSR matrix.
    """

    name: str
    num_rows: int
    row_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    row_bytes: float
    missing: bool = False
    block_rows: int | None = None
    window_rows: int | None = None
    boundaries: tuple[int, ...] | None = None
    is_sparse: bool = False

    @abstractmethod
    def read(self, start: int, stop: int) -> Any:
        """The rows from `start` to `stop` in memory of their own, ``(stop - start, *row_shape)``.

        Raises:
            DataError: the file cannot be read, or has changed since it was opened.
        """

    def column(self, position: tuple[int, ...]) -> str:
        """A value within a row, as messages name it; empty where a row is one value."""
        if not position:
            return ""
        return f", column {position[0] if len(position) == 1 else position}"

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, *row_shape)``."""
        return (self.num_rows, *self.row_shape)

    @property
    def nbytes(self) -> int:
        """Of all rows as they are stored."""
        return math.ceil(self.num_rows * self.row_bytes)

    def __len__(self) -> int:
        return self.num_rows

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, shape {self.shape}, {self.dtype})"


class FileState:
    """A file as it was when it was opened.

    Raises:
        DataError: there is no such file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state = self._now()

    @property
    def size(self) -> int:
        """Bytes, when it was opened."""
        return self._state[0]

    def check(self) -> None:
        """
        Raises:
            DataError: the file is another one by now, or gone.
        """
        now = self._now()
        if now != self._state:
            detail = (
                f"it had {self._state[0]:,} bytes, and has {now[0]:,}"
                if now[0] != self._state[0]
                else "it was written to"
            )
            raise DataError(
                f"{self.path}: has changed since it was opened ({detail}), so that rows read before and after would not belong "
                "together; leave the file alone while a fit runs, and start again."
            )

    def _now(self) -> tuple[int, int, int]:
        try:
            status = os.stat(self.path)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror or error}); check the path.") from error
        return status.st_size, status.st_mtime_ns, status.st_ino


def checked_dtype(name: str, dtype: Any) -> np.dtype[Any]:
    """
    Raises:
        DtypeError: not of real numbers.
    """
    kind: np.dtype[Any] = np.dtype(dtype)
    if kind.kind == "c":
        raise DtypeError(f"{name}: complex numbers are not supported; store real and imaginary columns.")
    if kind.kind not in "fiub" or kind.itemsize > 8:
        raise DtypeError(
            f"{name}: values of type {kind} are not numbers that torch has; store them as float32, float64 or integers."
        )
    return kind


@contextlib.contextmanager
def source_errors(name: str, start: int, stop: int) -> Iterator[None]:
    """What another library raises while it reads, as an error that names file and rows.

    Raises:
        DataError: something was raised inside the block.
    """
    try:
        yield
    except VipackError:
        raise
    except Exception as error:
        message = str(error).strip().partition("\n")[0] or "no message"
        raise DataError(
            f"{name}: rows {start:,} to {stop:,} cannot be read ({type(error).__name__}: {message}); the file may be truncated, "
            "damaged or closed."
        ) from error
