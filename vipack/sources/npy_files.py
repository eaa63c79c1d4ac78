"""Arrays in .npy files and other memory maps, read by plain reads of the file.

A page of a map counts as the process's own memory once it is touched, and touching one that has been cut off the file
ends the process. So the map only says where its values lie.
"""

from __future__ import annotations

import mmap
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from vipack.errors import DataError
from vipack.sources.row_source import FileState, RowSource, checked_dtype

__all__ = ["NpyRows", "mapped", "open_npy"]


class NpyRows(RowSource):
    """The rows of an array in a file.

    Args:
        start: bytes from the start of the file to the first value.
        origin: bytes to the first of the records that the rows are cut from, if they are.
        strides: bytes from one value to the next along each dimension.

    Raises:
        DataError: the file is too short, or its values do not lie row by row or column by column.
    """

    def __init__(
        self,
        path: Path,
        dtype: Any,
        shape: tuple[int, ...],
        start: int,
        strides: tuple[int, ...] | None = None,
        *,
        origin: int | None = None,
    ) -> None:
        self.name = str(path)
        self.dtype = checked_dtype(self.name, dtype)
        self.num_rows, self.row_shape = shape[0], tuple(shape[1:])
        size = self.dtype.itemsize
        self._strides = strides or tuple(size * int(np.prod(shape[k + 1 :])) for k in range(len(shape)))
        self._start = start
        self._state = FileState(path)
        self._extent = size + sum((n - 1) * s for n, s in zip(self.row_shape, self._strides[1:], strict=True))
        stride = self._strides[0]
        self._by_columns = stride == size and bool(self.row_shape) and self._extent > stride
        if min(self._strides) < 0 or not (self._by_columns or stride >= self._extent or self.num_rows == 1):
            raise DataError(
                f"{self.name}: the rows of this view lie neither one after another nor column by column (strides "
                f"{self._strides}); save the array in C order, as numpy.save does of numpy.ascontiguousarray(array)."
            )
        self.row_bytes = size * float(np.prod(self.row_shape)) if self._by_columns else float(max(stride, self._extent))
        self._check_length()
        origin = start if origin is None or stride == 0 else origin
        first, self._within = divmod(start - origin, max(1, stride))
        if self._within + self._extent > stride:
            origin, first, self._within = start, 0, 0
        self._first = first
        self._records = None if self._by_columns else _records_of(self._state, origin, max(stride, self._extent))
        self._file = _File(path)

    def read(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        self._state.check()
        count = stop - start
        if self._records is None:
            return self._read_columns(start, count)
        record = self._strides[0]
        buffer = self._records.read(self._first + start, count, self._within + self._extent)
        view = np.ndarray(
            (count, *self.row_shape), self.dtype, buffer, offset=self._within, strides=(record, *self._strides[1:])
        )
        return np.ascontiguousarray(view)

    def _read_columns(self, start: int, count: int) -> np.ndarray[Any, Any]:
        array = np.empty((count, *self.row_shape), self.dtype)
        size = self.dtype.itemsize
        for position in np.ndindex(*self.row_shape):
            within = sum(i * s for i, s in zip(position, self._strides[1:], strict=True))
            buffer = self._file.read(self._start + within + start * size, count * size)
            array[(slice(None), *position)] = np.frombuffer(buffer, self.dtype)
        return array

    def _check_length(self) -> None:
        step = self.dtype.itemsize if self._by_columns else self._strides[0]
        needed = self._start + (self.num_rows - 1) * step + self._extent
        if self._state.size >= needed:
            return
        whole = 0 if self._by_columns else max(0, (self._state.size - self._start) // max(1, step))
        kept = "" if self._by_columns else f", which is {whole:,} whole rows"
        raise DataError(
            f"{self.name}: is truncated: {self.num_rows:,} rows of {self.dtype} need {needed:,} bytes, and the file has "
            f"{self._state.size:,}{kept}; write or copy it again."
        )


class _File:
    """Ranges of bytes of a file, for any thread."""

    _open: Any = None

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._open: Any = None

    def read(self, start: int, count: int) -> np.ndarray[Any, Any]:
        """
        Raises:
            DataError: the file ends before.
        """
        buffer = np.empty(count, np.uint8)
        view = memoryview(buffer.data)
        done = 0
        with self._lock:
            try:
                if self._open is None:
                    self._open = self._path.open("rb", buffering=0)
                self._open.seek(start)
                while done < count:
                    some = self._open.readinto(view[done:])
                    if not some:
                        break
                    done += some
            except OSError as error:
                raise DataError(
                    f"{self._path}: bytes {start:,} to {start + count:,} cannot be read ({error.strerror or error}); check disk and file."
                ) from error
        if done < count:
            raise DataError(
                f"{self._path}: ends at byte {start + done:,}, where {start + count:,} are needed; it was cut off while the fit ran."
            )
        return buffer

    def __del__(self) -> None:
        if self._open is not None:
            self._open.close()

    def __getstate__(self) -> Path:
        return self._path

    def __setstate__(self, path: Path) -> None:
        self.__init__(path)  # type: ignore[misc]


class _Records:
    """Records of a file, of which the last range read is kept: several views of the same rows read them once."""

    def __init__(self, path: Path, end: int, origin: int, size: int) -> None:
        self._file, self._end, self._origin, self._size = _File(path), end, origin, size
        self._last: tuple[int, int, np.ndarray[Any, Any]] | None = None

    def read(self, start: int, count: int, extent: int) -> np.ndarray[Any, Any]:
        """The bytes of `count` records, of which a view needs the first `extent`; the file's last one may be shorter."""
        last = self._last
        if last is not None and last[:2] == (start, count):
            return last[2]
        first = self._origin + start * self._size
        buffer = self._file.read(
            first, max((count - 1) * self._size + extent, min(count * self._size, self._end - first))
        )
        self._last = (start, count, buffer) if extent < self._size else None
        return buffer

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None}


def _records_of(state: FileState, origin: int, size: int) -> _Records:
    key = (str(state.path), state.size, origin, size)
    records = _SHARED.get(key)
    if records is None:
        records = _SHARED[key] = _Records(state.path, state.size, origin, size)
    return records


_SHARED: weakref.WeakValueDictionary[tuple[str, int, int, int], _Records] = weakref.WeakValueDictionary()


def mapped(array: np.memmap[Any, Any]) -> NpyRows | None:
    """The rows of a memory map or a view of one; None where its values are not those of a file.

    Raises:
        DataError: it is empty, or its values do not lie row by row or column by column.
    """
    pages = getattr(array, "_mmap", None)
    if not isinstance(pages, mmap.mmap) or array.filename is None or array.mode == "c" or array.ndim == 0:
        return None
    base = np.frombuffer(pages, np.uint8).__array_interface__["data"][0]
    within = array.__array_interface__["data"][0] - base
    if not 0 <= within < len(pages):
        return None
    if 0 in array.shape:
        raise DataError(f"{array.filename}: is empty (shape {array.shape}); a fit needs at least one observation.")
    if array.mode != "r":
        array.flush()
    mapped_from = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY
    path = Path(str(array.filename))
    return NpyRows(path, array.dtype, array.shape, mapped_from + within, array.strides, origin=array.offset)


def open_npy(path: Path) -> NpyRows:
    """The rows of a .npy file.

    Raises:
        DataError: no such file, not a .npy file, empty or truncated.
    """
    state = FileState(path)
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, by_columns, dtype = read(file)
            start = file.tell()
    except (ValueError, OSError) as error:
        raise DataError(
            f"{path}: is no .npy file, or its head is damaged ({error}); write it with numpy.save."
        ) from error
    if not shape or 0 in shape:
        raise DataError(f"{path}: has shape {shape}, in a file of {state.size:,} bytes; a fit needs at least one row.")
    strides = None
    if by_columns and len(shape) > 1:
        sizes = np.cumprod([dtype.itemsize, *shape[:-1]])
        strides = tuple(int(size) for size in sizes)
    return NpyRows(path, dtype, shape, start, strides)
