"""Data that lie in files, read as a fit goes: blocks of rows, never all of them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from vipack.errors import DataError, UsageError
from vipack.program import Arguments
from vipack.sources import MOST_WHOLE, RowSource, as_source, is_stored
from vipack.training.arrays import (
    canonical_csr,
    fingerprint_of,
    joined,
    named_arrays,
    num_rows_of,
    rebuilder,
    tensor_of,
)
from vipack.training.data import ArrayRows, Rows
from vipack.training.streams import BatchStream, WholeStream
from vipack.training.values_read import ValuesRead
from vipack.training.window_stream import WindowStream
from vipack.training.windows import BlockWindows

__all__ = ["StreamedRows"]

_WINDOW_BYTES, _BLOCK_BYTES = (
    8 << 20,
    128 << 10,
)  # a window's rows are shuffled several times faster in a processor's cache
_WINDOW_BATCHES = 4
_LEAST_BLOCKS = 20  # of which a share can be held out
_SAMPLED = 16, 64  # ranges of the data, and rows of each, that a fingerprint is of


class StreamedRows(Rows):
    """Arrays of which at least one lies in files.

    Args:
        blocks: the ranges of rows that belong to the data, ``(blocks, 2)``; all by default.
        first: the number of the first of them, where they are a stretch of more data.

    Raises:
        DataError: they have different numbers of rows, or one has none.
    """

    def __init__(
        self,
        data: Any,
        fixed: Mapping[str, Any],
        dtype: torch.dtype,
        device: torch.device,
        blocks: np.ndarray[Any, Any] | None = None,
        first: int = 0,
    ) -> None:
        super().__init__(fixed, dtype, device)
        self._first = first
        self._data = data
        self._sources = {name: _source(name, value) for name, value in named_arrays(data)}
        self._rebuild = rebuilder(data)
        self._in_file = _common_length(self._sources)
        self._row_bytes = sum(source.row_bytes for source in self._sources.values())
        self._blocks = self._cut() if blocks is None else blocks
        self._bounds = np.concatenate([[0], np.cumsum(self._blocks[:, 1] - self._blocks[:, 0])])
        self.num_rows = int(self._bounds[-1])
        self._nbytes = int(self._bounds[-1]) * self._row_bytes

    @property
    def fits_in_memory(self) -> bool:
        return self._nbytes <= MOST_WHOLE

    def full(self) -> Arguments:
        """The call on every row.

        Raises:
            UsageError: they are too many to be put in memory.
        """
        if not self.fits_in_memory:
            raise UsageError(
                f"data: all {self.num_rows:,} rows of {self._names} are asked for at once, {self._nbytes / 1e9:,.1f} GB, "
                "which are read in pieces alone. To train on them pass batch_size= and a guide without parameters for each row, and size the "
                "plate by the batch (len(x)); for answers pass data= with fewer rows. To have them in memory, pass "
                "data=numpy.array(...) of them."
            )
        return self._full

    @cached_property
    def _full(self) -> Arguments:
        return self.call(self._rebuild(self._read(self._blocks, None)))

    def rows(self, indices: Tensor) -> Arguments:
        """The call on the rows `indices` ``(B,)``."""
        order = torch.argsort(indices.cpu())
        wanted = indices.cpu()[order].numpy()
        blocks = np.searchsorted(self._bounds, wanted, side="right") - 1
        within = wanted - self._bounds[blocks] + self._blocks[blocks, 0]
        cuts = np.flatnonzero(np.diff(blocks)) + 1
        pieces: list[list[Any]] = []
        for rows in np.split(within, cuts):
            start = int(rows[0])
            pieces.append(self._read(np.array([[start, int(rows[-1]) + 1]]), torch.from_numpy(rows - start)))
        back = torch.argsort(order)
        arrays = [_take(joined(list(column)), back) for column in zip(*pieces, strict=True)]
        return self.call(self._rebuild(arrays), indices.to(self.device))

    def stream(
        self,
        batch_size: int | None,
        generator: torch.Generator,
        observe: Callable[[Tensor], None] | None = None,
    ) -> BatchStream:
        """See :class:`Rows`.

        Args:
            observe: is called on the indices of rows with values that are the smallest or largest so far.
        """
        count = int(self._bounds[-1])
        if batch_size is None or batch_size >= count:
            return WholeStream(self.full, generator)
        return self._stream_of_windows(batch_size, generator, observe)

    def stretch(
        self,
        first: int,
        num_rows: int,
        batch_size: int,
        generator: torch.Generator,
        observe: Callable[[Tensor], None] | None = None,
    ) -> BatchStream:
        """As :meth:`stream`, of `num_rows` rows from `first` on, with the indices that they have among all."""
        begin, end = np.searchsorted(self._bounds, [first, first + num_rows - 1], side="right") - 1
        own = self._blocks[begin : end + 1].copy()
        own[-1, 1] = own[-1, 0] + first + num_rows - self._bounds[end]
        own[0, 0] += first - self._bounds[begin]
        some = StreamedRows(self._data, self.fixed, self.dtype, self.device, own, first)
        return some._stream_of_windows(batch_size, generator, observe)

    def _stream_of_windows(
        self, batch_size: int, generator: torch.Generator, observe: Callable[[Tensor], None] | None
    ) -> BatchStream:
        values = ValuesRead()

        def read(blocks: np.ndarray[Any, Any], order: Tensor) -> tuple[list[Any], Tensor | None]:
            arrays = self._read(self._blocks[blocks], order)
            numbers = values.extremes(arrays) if observe is not None else None
            return arrays, numbers

        bounds = self._bounds + self._first
        windows = BlockWindows(read, bounds, self._window_rows(batch_size), batch_size, generator)
        return WindowStream(windows, self._call, int(self._bounds[-1]), batch_size, observe)

    def subset(self, indices: Tensor) -> Rows:
        """See :class:`Rows`; in memory.

        Raises:
            UsageError: the data are too many for that.
        """
        own = ArrayRows(self._rebuild(self._arrays_of(self.rows(indices))), self.fixed, self.dtype, self.device)
        own.schedules = self.schedules
        return own

    def split(self, count: int, seed: int) -> tuple[Rows, Rows]:
        """See :class:`Rows`; whole blocks are held out, of at least `count` rows."""
        if self.fits_in_memory and len(self._blocks) < _LEAST_BLOCKS:
            return super().split(count, seed)
        order = np.random.default_rng(seed).permutation(len(self._blocks))
        sums = np.cumsum((self._blocks[:, 1] - self._blocks[:, 0])[order])
        cut = int(np.searchsorted(sums, count)) + 1
        if cut >= len(order):
            raise UsageError(
                f"validation: the share is held out in whole blocks, of which {self._names} has {len(order)}; pass the data held out."
            )
        return self._of(np.sort(order[cut:])), self._of(np.sort(order[:cut]))

    def _of(self, chosen: np.ndarray[Any, Any]) -> StreamedRows:
        own = StreamedRows(self._data, self.fixed, self.dtype, self.device, self._blocks[chosen])
        own.schedules = self.schedules
        return own

    def fingerprint(self) -> str:
        """See :class:`Rows`; a few rows from all over the data are read, not all of them."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        pieces, size = _SAMPLED
        for name, source in self._sources.items():
            digest.update(f"{name} {source.shape} {source.dtype} {self.num_rows}".encode())
        for block in np.unique(np.linspace(0, len(self._blocks) - 1, pieces).round().astype(int)):
            start, stop = self._blocks[block]
            for name, source in self._sources.items():
                digest.update(
                    fingerprint_of([(name, _tensor(name, source.read(start, min(stop, start + size))))]).encode()
                )
        others = fingerprint_of([*(self.fixed | self.schedules).items()])
        return f"{digest.hexdigest()}{others[:8]}"

    @property
    def _names(self) -> str:
        return ", ".join(dict.fromkeys(source.name for source in self._sources.values()))

    def _call(self, arrays: Sequence[Any], indices: Tensor) -> Arguments:
        return self.call(self._rebuild(arrays), indices.to(self.device))

    def _arrays_of(self, call: Arguments) -> list[Any]:
        """The data's own arrays of a call."""
        return [*call.args, *(value for name, value in call.kwargs.items() if name not in self.fixed)]

    def _cut(self) -> np.ndarray[Any, Any]:
        """The ranges of rows that are read together: whole row groups or chunks where files have such."""
        natural = [source.boundaries for source in self._sources.values() if source.boundaries is not None]
        if natural:
            ends = np.array(min(natural, key=len))
        else:
            sources = self._sources.values()
            asked = [source.block_rows for source in sources if source.block_rows is not None]
            size = max(asked) if asked else max(1, int(_BLOCK_BYTES // max(1.0, self._row_bytes)))
            chunk = max(getattr(source, "chunk_rows", 1) for source in sources)
            size = size if asked else math.ceil(size / chunk) * chunk
            ends = np.arange(0, self._in_file + size, size).clip(max=self._in_file)
        return np.stack([ends[:-1], ends[1:]], 1)

    def _window_rows(self, batch_size: int) -> int:
        asked = [source.window_rows for source in self._sources.values() if source.window_rows is not None]
        if asked:
            return max(*asked, 2 * batch_size)
        return max(int(_WINDOW_BYTES // max(1.0, self._row_bytes)), _WINDOW_BATCHES * batch_size)

    def _read(self, ranges: np.ndarray[Any, Any], order: Tensor | None) -> list[Any]:
        """The rows of ascending ranges, in `order`, as tensors of the fit's type or CSR matrices.

        Raises:
            DataError: a value is NaN or infinite; file, row and column are named.
        """
        joined_ranges = list(_merged(ranges))
        pieces: list[list[Any]] = [[] for _ in self._sources]
        for start, stop in joined_ranges:  # range by range, as arrays may be cut from the same records
            for column, (name, source) in zip(pieces, self._sources.items(), strict=True):
                column.append(_tensor(name, source.read(start, stop)))
        arrays = []
        for source, column in zip(self._sources.values(), pieces, strict=True):
            stored = joined(column)
            array = stored if order is None else _take(stored, order)
            array = _of_type(array, self.dtype) if scipy.sparse.issparse(array) else self.converted(array)
            if not _is_finite(array, source.missing):
                raise _bad_value(source, stored, joined_ranges, self.dtype)
            arrays.append(array)
        return arrays


class _MemoryRows(RowSource):
    """An array in memory beside others in files."""

    def __init__(self, name: str, array: Any) -> None:
        self.name, self._array = name, array
        count = num_rows_of(array)
        if count is None:
            raise DataError(
                f"{name} has no rows ({type(array).__name__}), so it cannot be cut into batches; put what belongs to no single "
                "observation into fixed={...}."
            )
        self.num_rows, self.row_shape = count, tuple(array.shape[1:])
        self.dtype = np.dtype(array.dtype if scipy.sparse.issparse(array) else array[:0].cpu().numpy().dtype)
        self.is_sparse = scipy.sparse.issparse(array)
        self.row_bytes = (
            self.dtype.itemsize * float(np.prod(self.row_shape)) if not self.is_sparse else 12.0 * array.nnz / count
        )

    def read(self, start: int, stop: int) -> Any:
        return self._array[start:stop]


def _source(name: str, value: Any) -> RowSource:
    return as_source(value) if is_stored(value) else _MemoryRows(name, value)


def _common_length(sources: Mapping[str, RowSource]) -> int:
    sizes = {source.num_rows for source in sources.values()}
    if len(sizes) > 1:
        listed = ", ".join(
            f"{name}: {source.num_rows:,}" + (f" ({source.name})" if source.name != name else "")
            for name, source in sources.items()
        )
        raise DataError(
            f"data: every array needs the same number of rows, found {listed}; a file may be cut off, or of another run."
        )
    return sizes.pop()


def _merged(ranges: np.ndarray[Any, Any]) -> Iterator[tuple[int, int]]:
    """Ascending ranges, joined where one begins as another ends."""
    start, stop = (int(bound) for bound in ranges[0])
    for first, last in ranges[1:]:
        if first != stop:
            yield start, stop
            start = int(first)
        stop = int(last)
    yield start, stop


def _tensor(name: str, rows: Any) -> Any:
    if scipy.sparse.issparse(rows):
        return canonical_csr(rows)
    return rows if isinstance(rows, Tensor) else tensor_of(name, rows)


def _take(array: Any, order: Tensor) -> Any:
    return array[order.numpy()] if scipy.sparse.issparse(array) else array.index_select(0, order.to(array.device))


def _of_type(matrix: Any, dtype: torch.dtype) -> Any:
    return matrix.astype(_numpy_of(dtype)) if matrix.dtype.kind == "f" else matrix


def _numpy_of(dtype: torch.dtype) -> np.dtype[Any]:
    return np.dtype(str(dtype).removeprefix("torch."))


def _is_finite(array: Any, missing: bool) -> bool:
    values = torch.from_numpy(array.data) if scipy.sparse.issparse(array) else array
    if not values.is_floating_point() or bool(values.sum().isfinite()):  # a sum is read faster than a mask is made
        return True
    return not bool((values.isinf() if missing else ~values.isfinite()).any())


def _bad_value(source: RowSource, stored: Any, ranges: Sequence[tuple[int, int]], dtype: torch.dtype) -> DataError:
    """The first value that is not finite, with file, row and column."""
    rows = np.concatenate([np.arange(start, stop) for start, stop in ranges])
    if scipy.sparse.issparse(stored):
        table = stored.tocoo()
        index = int(np.flatnonzero(~np.isfinite(table.data.astype(_numpy_of(dtype))))[0])
        position: tuple[int, ...] = int(table.row[index]), int(table.col[index])
        value = float(table.data[index])
    else:
        values = stored.to(dtype)
        bad = values.isinf() if source.missing else ~values.isfinite()
        position = tuple(int(i) for i in bad.nonzero()[0])
        value = float(stored[position])
    where = f"{source.name}: row {rows[position[0]]:,}{source.column(position[1:])}"
    if math.isfinite(value):
        return DataError(
            f"{where} is {value:g}, which {dtype} cannot hold; pass dtype=torch.float64, or scale the column."
        )
    if math.isnan(value):
        return DataError(
            f"{where} is NaN; leave such rows out, or, if NaN stands for missing values that the model masks (obs_mask=), pass "
            "vipack.stream(..., missing=True)."
        )
    return DataError(f"{where} is {value:g}; leave such rows out or fill them.")
