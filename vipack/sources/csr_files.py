"""Sparse matrices in three arrays: data, indices and indptr, as SciPy names them, in .npy files or a group of HDF5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from vipack.errors import DataError, UsageError
from vipack.sources.npy_files import open_npy
from vipack.sources.row_source import RowSource

__all__ = ["CsrRows", "is_csr_folder", "open_csr"]

_FILES = ("data", "indices", "indptr")


class CsrRows(RowSource):
    """The rows of a CSR matrix; row i has the values ``data[indptr[i]:indptr[i + 1]]`` in the columns ``indices[...]``.

    Raises:
        DataError: the files do not belong together.
    """

    is_sparse = True

    def __init__(self, name: str, values: RowSource, indices: RowSource, indptr: RowSource, num_columns: int) -> None:
        self.name = name
        self._values, self._indices, self._indptr = values, indices, indptr
        for source in (values, indices, indptr):
            if source.row_shape:
                raise DataError(f"{source.name}: has shape {source.shape}, expected one dimension.")
        for source in (indices, indptr):
            if source.dtype.kind not in "iu":
                raise DataError(f"{source.name}: is of type {source.dtype}, expected integers.")
        self.dtype = values.dtype
        self.num_rows, self.row_shape = indptr.num_rows - 1, (num_columns,)
        last = int(indptr.read(indptr.num_rows - 1, indptr.num_rows)[0])
        if self.num_rows < 1 or not len(values) == len(indices) == last:
            raise DataError(
                f"{name}: indptr ends at {last:,} values for {self.num_rows:,} rows, data has {len(values):,} and indices "
                f"{len(indices):,}; these must be equal: the files belong to different matrices, or one is truncated."
            )
        bytes_each = values.dtype.itemsize + indices.dtype.itemsize
        self.row_bytes = indptr.dtype.itemsize + bytes_each * len(values) / self.num_rows

    def read(self, start: int, stop: int) -> Any:
        bounds = self._indptr.read(start, stop + 1).astype(np.int64)
        lengths = np.diff(bounds)
        if (lengths < 0).any() or bounds[0] < 0 or bounds[-1] > len(self._values):
            row = start + int(np.argmax(lengths < 0))
            raise DataError(f"{self._indptr.name}: falls, or runs out of the values, at row {row:,}; it is damaged.")
        first, last = int(bounds[0]), int(bounds[-1])
        values = self._values.read(first, last) if last > first else np.empty(0, self.dtype)
        columns = self._indices.read(first, last) if last > first else np.empty(0, self._indices.dtype)
        width = self.row_shape[0]
        outside = (columns < 0) | (columns >= width)
        if outside.any():
            index = int(np.argmax(outside))
            row = start + int(np.searchsorted(bounds, first + index, side="right")) - 1
            raise DataError(
                f"{self._indices.name}: row {row:,} has column {int(columns[index]):,}, and the matrix has {width:,} columns, 0 to {width - 1:,}."
            )
        return scipy.sparse.csr_array((values, columns, bounds - first), shape=(stop - start, width))


def open_csr(folder: Path, num_columns: int | None) -> CsrRows:
    """The matrix in ``data.npy``, ``indices.npy`` and ``indptr.npy`` of a folder.

    Args:
        num_columns: its width; that in ``shape.npy`` by default.

    Raises:
        UsageError: the width is not known.
        DataError: a file is missing or truncated, or they do not belong together.
    """
    values, indices, indptr = (open_npy(folder / f"{name}.npy") for name in _FILES)
    shape = folder / "shape.npy"
    if num_columns is None and shape.is_file():
        num_columns = int(np.load(shape)[1])
    if num_columns is None:
        raise UsageError(
            f"{folder}: the number of columns is in none of the files; pass num_columns=, or save the matrix's shape in {shape}."
        )
    return CsrRows(str(folder), values, indices, indptr, num_columns)


def is_csr_folder(folder: Path) -> bool:
    """Whether a folder holds such files."""
    return all((folder / f"{name}.npy").is_file() for name in _FILES)
