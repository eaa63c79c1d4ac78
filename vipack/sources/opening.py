"""``vipack.stream``: from a path or another library's object to rows that a fit reads as it goes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset

from vipack.errors import DataError, UsageError
from vipack.hints import checked
from vipack.sources.array_stores import is_stored_array, open_hdf5, open_zarr, stored_matrix, stored_rows
from vipack.sources.columnar import TABLE_KINDS, TableRows, open_table
from vipack.sources.csr_files import is_csr_folder, open_csr
from vipack.sources.iterated import IteratedRows
from vipack.sources.npy_files import mapped, open_npy
from vipack.sources.row_source import RowSource

__all__ = ["MOST_WHOLE", "as_source", "is_stored", "stream"]

MOST_WHOLE = 256_000_000  # bytes that are put in memory where all rows are asked for at once
_HDF5 = (".h5", ".hdf5", ".hdf", ".h5ad")


@checked
def stream(
    source: Any,
    *,
    columns: str | Sequence[str] | None = None,
    key: str | None = None,
    num_columns: int | None = None,
    num_rows: int | None = None,
    missing: bool = False,
    block_rows: int | None = None,
    window_rows: int | None = None,
) -> RowSource | IteratedRows:
    """Rows that a fit reads as it goes, in place of an array in ``data=``.

    Args:
        source: the path of a .npy, HDF5, Zarr, Parquet or Arrow file, of a folder of Parquet or Arrow files, or of a folder with
            ``data.npy``, ``indices.npy`` and ``indptr.npy`` of a CSR matrix; or a ``numpy.memmap``, an ``h5py.Dataset``, a Zarr array, a
            backed AnnData object, or a torch ``IterableDataset``.
        columns: of a table: several give an array ``(N, columns)``, one name ``(N,)``; all by default.
        key: the array in an HDF5 file or Zarr store, or the layer of an AnnData object, where there are several.
        num_columns: of a CSR matrix; that in ``shape.npy`` beside it by default.
        num_rows: of an ``IterableDataset`` without a length.
        missing: whether NaN stands for values that the model masks; else NaN is an error.
        block_rows: rows that are read together; about 128 KB, whole chunks or row groups by default.
        window_rows: rows that are shuffled together; about 8 MB, and four batches at least, by default.

    Raises:
        UsageError, DataError, DtypeError: not a kind of file that is read; damaged, truncated, empty or not of numbers.
        MissingExtraError: the library that reads it is not installed.
    """
    for name, value in (("block_rows", block_rows), ("window_rows", window_rows), ("num_columns", num_columns)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise UsageError(f"stream: {name} must be a positive integer, found {value!r}.")
    if isinstance(source, IterableDataset):
        return IteratedRows(source, num_rows, missing=missing, window_rows=window_rows)
    opened = _opened(source, columns, key, num_columns)
    if num_rows is not None:
        raise UsageError(f"stream: num_rows is for an IterableDataset; {opened.name} has {opened.num_rows:,} rows.")
    if columns is not None and not isinstance(opened, TableRows):
        raise UsageError(
            f"stream: columns is for Parquet and Arrow tables; take columns of {opened.name} in the model."
        )
    opened.missing, opened.block_rows, opened.window_rows = missing, block_rows, window_rows
    return opened


def is_stored(value: Any) -> bool:
    """Whether `value` in ``data=`` is read as it goes, and not put in memory, as small memory maps are."""
    if isinstance(value, np.memmap):
        return value.nbytes > MOST_WHOLE and mapped(value) is not None
    return isinstance(value, RowSource) or is_stored_array(value)


def as_source(value: Any) -> RowSource:
    """The rows of what :func:`is_stored` says yes to."""
    return value if isinstance(value, RowSource) else _opened(value, None, None, None)


def _opened(source: Any, columns: Any, key: str | None, num_columns: int | None) -> RowSource:
    if isinstance(source, RowSource):
        return source
    if isinstance(source, np.memmap):
        rows = mapped(source)
        if rows is None:
            raise UsageError(
                f"stream: this memory map (mode {source.mode!r}) does not show a file as it is; open it with mode='r', or pass the "
                "array itself as data=."
            )
        return rows
    if is_stored_array(source):
        return stored_rows(source)
    if hasattr(source, "isbacked") and hasattr(source, "layers"):
        return stored_matrix(source, key)
    if isinstance(source, str | os.PathLike):
        return _opened_path(Path(source), columns, key, num_columns)
    raise UsageError(
        f"stream: found a {type(source).__name__}; pass a path, a numpy.memmap, an h5py.Dataset, a Zarr array, a backed AnnData "
        "object or an IterableDataset. What lies in memory is data= itself."
    )


def _opened_path(path: Path, columns: Any, key: str | None, num_columns: int | None) -> RowSource:
    kind = path.suffix.lower()
    if not path.exists():
        raise DataError(f"{path}: no such file; check the path.")
    if kind == ".npy":
        return open_npy(path)
    if kind in TABLE_KINDS:
        return open_table(path, columns)
    if kind in _HDF5:
        return open_hdf5(path, key if key is not None or kind != ".h5ad" else "X")
    if kind == ".zarr" or any((path / name).is_file() for name in (".zarray", ".zgroup", "zarr.json")):
        return open_zarr(path, key)
    if path.is_dir() and is_csr_folder(path):
        return open_csr(path, num_columns)
    if path.is_dir() and any(other.suffix.lower() in TABLE_KINDS for other in path.iterdir()):
        return open_table(path, columns)
    raise DataError(
        f"{path}: is of no kind that is read in pieces: .npy, {', '.join((*TABLE_KINDS, *_HDF5, '.zarr'))}, a folder of tables, or a "
        "folder with data.npy, indices.npy and indptr.npy. Read other files into arrays."
    )
