"""Arrays of libraries that read them in slices: HDF5 datasets, Zarr arrays, and the sparse matrices of AnnData's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vipack.errors import DataError, MissingExtraError, UsageError
from vipack.sources.csr_files import CsrRows
from vipack.sources.row_source import FileState, RowSource, checked_dtype, source_errors

__all__ = ["StoredArray", "is_stored_array", "open_hdf5", "open_zarr", "stored_matrix", "stored_rows"]

_LIBRARIES = ("h5py", "zarr", "anndata")


def is_stored_array(value: Any) -> bool:
    """Whether `value` is an array of HDF5, Zarr or AnnData's files."""
    library = type(value).__module__.partition(".")[0]
    return library in _LIBRARIES and all(hasattr(value, name) for name in ("shape", "dtype", "__getitem__"))


class StoredArray(RowSource):
    """The rows of an array that is read by ``array[start:stop]``.

    Raises:
        DataError: it is empty.
    """

    def __init__(self, array: Any) -> None:
        self._array = array
        self.name = _name_of(array)
        self.dtype = checked_dtype(self.name, array.dtype)
        shape = tuple(int(size) for size in array.shape)
        if not shape or 0 in shape:
            raise DataError(f"{self.name}: has shape {shape}; a fit needs at least one row.")
        self.num_rows, self.row_shape = shape[0], shape[1:]
        self.row_bytes = self.dtype.itemsize * float(np.prod(self.row_shape))
        chunks = getattr(array, "chunks", None)
        self.chunk_rows = int(chunks[0]) if isinstance(chunks, tuple) and chunks else 1
        file = getattr(getattr(array, "file", None), "filename", None)
        self._state = FileState(Path(file)) if isinstance(file, str) and Path(file).is_file() else None

    def read(self, start: int, stop: int) -> Any:
        if self._state is not None:
            self._state.check()
        with source_errors(self.name, start, stop):
            rows = self._array[start:stop]
        array = np.asarray(rows)
        if array.shape != (stop - start, *self.row_shape):
            raise DataError(
                f"{self.name}: rows {start:,} to {stop:,} came with shape {array.shape}, expected "
                f"{(stop - start, *self.row_shape)}; the array has changed since it was opened."
            )
        return array


def stored_rows(array: Any) -> RowSource:
    """The rows of what :func:`is_stored_array` says yes to.

    Raises:
        DataError: it is empty, or sparse and stored by columns.
    """
    form = getattr(array, "format", None)
    if not isinstance(form, str):
        return StoredArray(array)
    if form != "csr":
        raise DataError(
            f"{_name_of(array)}: is a sparse matrix in {form} form, which has no rows to read; store it as CSR."
        )
    return _csr(array.group, int(array.shape[1]))


def _csr(group: Any, num_columns: int) -> CsrRows:
    values, indices, indptr = (StoredArray(group[name]) for name in ("data", "indices", "indptr"))
    return CsrRows(values.name.removesuffix("/data]") + "]", values, indices, indptr, num_columns)


def _is_csr(member: Any) -> bool:
    return not hasattr(member, "dtype") and all(name in member for name in ("data", "indices", "indptr"))


def stored_matrix(annotated: Any, key: str | None) -> RowSource:
    """The matrix of an AnnData object in backed mode, or a layer of it.

    Raises:
        UsageError: it lies in memory, or there is no such layer.
    """
    if key is not None and key not in annotated.layers:
        raise UsageError(f"key={key!r}: the AnnData object has the layers {', '.join(annotated.layers) or 'none'}.")
    matrix = annotated.X if key is None else annotated.layers[key]
    if not is_stored_array(matrix):
        raise UsageError(
            f"{type(annotated).__name__}: its matrix lies in memory ({type(matrix).__name__}), and can be data= itself; to read "
            "it from the file, open that with anndata.read_h5ad(path, backed='r'), or a layer by vipack.stream(path, key='layers/counts')."
        )
    return stored_rows(matrix)


def open_hdf5(path: Path, key: str | None) -> RowSource:
    """A dataset of an HDF5 file, or a group of it that is a CSR matrix.

    Raises:
        UsageError, DataError: no such dataset; the file is damaged.
    """
    h5py = _library("h5py", "HDF5 files", "h5py, which vipack's own dependencies bring with them")
    FileState(path)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"{path}: is no HDF5 file, or truncated ({error}); write or copy it again.") from error
    return _member(file, path, key)


def open_zarr(path: Path, key: str | None) -> RowSource:
    """An array of a Zarr store.

    Raises:
        UsageError, DataError: no such array; the store is damaged.
        MissingExtraError: without zarr.
    """
    zarr = _library("zarr", "Zarr stores", "the extra stores: pip install 'vipack[stores]'")
    with source_errors(str(path), 0, 0):
        opened = zarr.open(str(path), mode="r")
    return StoredArray(opened) if hasattr(opened, "dtype") else _member(opened, path, key)


def _library(name: str, what: str, cure: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(f"{what} are read by {name}, which is not installed; install {cure}.") from error


def _member(group: Any, path: Path, key: str | None) -> RowSource:
    names = [name for name in group if hasattr(group[name], "dtype") or _is_csr(group[name])]
    if key is None and len(names) == 1:
        key = names[0]
    if key is None or key not in group:
        given = "holds several arrays" if key is None else f"has no array {key!r}"
        raise UsageError(f"{path}: {given}; name one of {', '.join(names) or 'none'} by key=.")
    member = group[key]
    if hasattr(member, "dtype"):
        return StoredArray(member)
    shape = member.attrs.get("shape")
    if not _is_csr(member) or shape is None or str(member.attrs.get("encoding-type", "csr")).startswith("csc"):
        raise DataError(f"{path}[{key}]: is a group, and no CSR matrix; name an array in it by key={key + '/...'!r}.")
    return _csr(member, int(shape[1]))


def _name_of(array: Any) -> str:
    file = getattr(getattr(array, "file", None), "filename", None)
    inner = getattr(array, "name", None) or getattr(getattr(array, "group", None), "name", "") or type(array).__name__
    if file is None:
        file = getattr(getattr(array, "store_path", None), "__str__", lambda: "")()
        return file or str(inner)
    return f"{file}[{str(inner).lstrip('/')}]"
