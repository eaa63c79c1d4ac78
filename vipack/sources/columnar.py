"""Columns of tables in Parquet and Arrow files, read by row groups."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from vipack.errors import DataError, DtypeError, MissingExtraError, UsageError
from vipack.sources.row_source import FileState, RowSource, checked_dtype, source_errors

__all__ = ["TABLE_KINDS", "TableRows", "open_table"]

TABLE_KINDS = (".parquet", ".pq", ".arrow", ".feather")


class TableRows(RowSource):
    """Columns of a table as an array ``(N, columns)``, or ``(N,)`` of one column that is named alone.

    Args:
        paths: of the files, one after another.
        columns: a name, or several; all by default.

    Raises:
        UsageError: no such column.
        DataError, DtypeError: a file is damaged or has other columns than the first, or a column is not of numbers.
    """

    def __init__(self, paths: Sequence[Path], columns: str | Sequence[str] | None) -> None:
        self._states = [FileState(path) for path in paths]
        files = [_opened(path) for path in paths]
        self.name = str(paths[0]) if len(paths) == 1 else f"{paths[0].parent} ({len(paths)} files)"
        schema = files[0].schema_arrow
        names = schema.names if columns is None else [columns] if isinstance(columns, str) else list(columns)
        for name in names:
            if name not in schema.names:
                raise UsageError(f"{paths[0]}: has no column {name!r}; its columns are {', '.join(schema.names)}.")
        for path, file in zip(paths[1:], files[1:], strict=True):
            _check_schema(names, paths[0], schema, path, file.schema_arrow)
        self._columns, self._paths = names, list(paths)
        kinds = {name: _kind_of(paths[0], name, schema) for name in names}
        self.dtype = np.result_type(*kinds.values())
        self.row_shape = () if isinstance(columns, str) else (len(names),)
        sizes = [(k, group, size) for k, file in enumerate(files) for group, size in enumerate(file.group_sizes)]
        self._groups = [(k, group) for k, group, size in sizes if size]
        self.boundaries = (0, *accumulate(size for *_, size in sizes if size))
        self.num_rows = self.boundaries[-1]
        if self.num_rows == 0:
            raise DataError(f"{self.name}: has no rows; a fit needs at least one.")
        self.row_bytes = float(self.dtype.itemsize * len(names))
        self._last: tuple[int, np.ndarray[Any, Any]] | None = None

    def read(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        assert self.boundaries is not None
        pieces = []
        index = int(np.searchsorted(self.boundaries, start, side="right")) - 1
        while index < len(self._groups) and self.boundaries[index] < stop:
            first = self.boundaries[index]
            pieces.append(self._group(index)[max(0, start - first) : stop - first])
            index += 1
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def column(self, position: tuple[int, ...]) -> str:
        return f", column {self._columns[position[0] if position else 0]!r}"

    def _group(self, index: int) -> np.ndarray[Any, Any]:
        """One row group, of which the last is kept: a range may end within it."""
        last = self._last
        if last is not None and last[0] == index:
            return last[1]
        assert self.boundaries is not None
        number, group = self._groups[index]
        path, first = self._paths[number], self.boundaries[index]
        self._states[number].check()
        with source_errors(str(path), first, self.boundaries[index + 1]):
            table = _opened(path).read(group, self._columns)
        arrays = []
        for name, values in zip(self._columns, table, strict=True):
            if values.null_count and self.dtype.kind != "f":
                row = first + int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
                raise DataError(
                    f"{path}: row {row:,}, column {name!r} has no value, and integers know no NaN; fill it."
                )
            arrays.append(values.to_numpy(zero_copy_only=False).astype(self.dtype, copy=False))
        rows = arrays[0] if self.row_shape == () else np.stack(arrays, 1)
        self._last = index, rows
        return rows


class _Opened:
    """A file's row groups.

    Attributes:
        group_sizes: rows of each.
    """

    def __init__(self, path: Path) -> None:
        arrow, parquet = _pyarrow()
        self._is_parquet = path.suffix.lower() in (".parquet", ".pq")
        if self._is_parquet:
            self._file = parquet.ParquetFile(path)
            self.schema_arrow = self._file.schema_arrow
            metadata = self._file.metadata
            self.group_sizes = [metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)]
        else:
            self._file = arrow.ipc.open_file(arrow.memory_map(str(path)))
            self.schema_arrow = self._file.schema
            self.group_sizes = [self._file.get_batch(k).num_rows for k in range(self._file.num_record_batches)]

    def read(self, group: int, columns: Sequence[str]) -> list[Any]:
        """The columns of one row group."""
        if self._is_parquet:
            table = self._file.read_row_group(group, columns=list(dict.fromkeys(columns)), use_threads=False)
            return [table.column(name).combine_chunks() for name in columns]
        batch = self._file.get_batch(group)
        return [batch.column(batch.schema.get_field_index(name)) for name in columns]


def _opened(path: Path) -> _Opened:
    _pyarrow()
    try:
        return _Opened(path)
    except (OSError, ValueError) as error:  # pyarrow's own are of these kinds
        message = str(error).strip().partition("\n")[0]
        raise DataError(
            f"{path}: cannot be read as a table ({message}); it is truncated, damaged or of another kind."
        ) from error


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(
            "Parquet and Arrow files are read by pyarrow, which is not installed; install the extra: pip install 'vipack[data]'."
        ) from error
    return pyarrow, pyarrow.parquet


def _check_schema(names: Sequence[str], first: Path, schema: Any, path: Path, other: Any) -> None:
    for name in names:
        if name not in other.names:
            raise DataError(
                f"{path}: has no column {name!r}, which {first} has, so its schema changes midway; its columns are "
                f"{', '.join(other.names)}."
            )
        before, now = schema.field(name).type, other.field(name).type
        if before != now:
            raise DataError(
                f"{path}: column {name!r} is of type {now}, and of type {before} in {first}, so the schema changes midway; write "
                "both with one schema."
            )


def _kind_of(path: Path, name: str, schema: Any) -> np.dtype[Any]:
    kind = schema.field(name).type
    try:
        dtype = np.dtype(kind.to_pandas_dtype())
    except (NotImplementedError, TypeError):
        dtype = np.dtype(object)
    if dtype.kind not in "fiub":
        raise DtypeError(
            f"{path}: column {name!r} is of type {kind}, which is not numeric; leave it out by columns=[...], or store codes."
        )
    return checked_dtype(f"{path}, column {name!r}", dtype)


def open_table(path: Path, columns: str | Sequence[str] | None) -> TableRows:
    """The table in a Parquet or Arrow file, or in all those of a folder in the order of their names.

    Raises:
        UsageError, DataError, DtypeError, MissingExtraError: see :class:`TableRows`.
    """
    paths = sorted(p for p in path.iterdir() if p.suffix.lower() in TABLE_KINDS) if path.is_dir() else [path]
    return TableRows(paths, columns)
