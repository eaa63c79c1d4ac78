"""What is known of documents beside their words: columns of one value a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vipack.errors import DataError

if TYPE_CHECKING:
    import pandas

__all__ = ["MetadataColumns", "aligned"]


def aligned(name: str, metadata: Any, num_documents: int) -> pandas.DataFrame | None:
    """A copy of a table, or of a dict of columns, with rows numbered from 0; None if there are no columns.

    Raises:
        DataError: neither, another number of rows, or two columns of one name.
    """
    if isinstance(metadata, Mapping) and not metadata:
        return None
    import pandas

    if isinstance(metadata, Mapping):
        for column, values in metadata.items():
            if isinstance(values, str | bytes) or not hasattr(values, "__len__") or getattr(values, "ndim", 1) != 1:
                shown = " ".join(repr(values).split())
                raise DataError(f"{name}: metadata {column!r} is {shown:.80}; expected a value for each document.")
            if len(values) != num_documents:
                raise DataError(
                    f"{name}: metadata {column!r} has {len(values)} values for {num_documents} documents; give one for each."
                )
        columns = {column: pandas.Series(values).reset_index(drop=True) for column, values in metadata.items()}
        return pandas.DataFrame(columns, index=range(num_documents))
    if not isinstance(metadata, pandas.DataFrame):
        raise DataError(f"{name}: metadata is a {type(metadata).__name__}; expected a DataFrame or a dict of columns.")
    if len(metadata) != num_documents:
        raise DataError(f"{name}: metadata has {len(metadata)} rows for {num_documents} documents; give one for each.")
    if not metadata.columns.is_unique:
        twice = metadata.columns[metadata.columns.duplicated()][0]
        raise DataError(f"{name}: two columns of metadata are called {twice!r}; give each its own name.")
    return metadata.reset_index(drop=True).copy()


class MetadataColumns(Mapping[str, Sequence[Any]]):
    """Columns that fill row by row; a field that a row does not have is None there.

    Args:
        typed: whether texts that all are numbers become numbers, and empty ones None, as where a file holds text alone.
    """

    def __init__(self, typed: bool = False) -> None:
        self._columns: dict[str, list[Any]] = {}
        self._num_rows, self._typed = 0, typed

    def add(self, row: Mapping[str, Any]) -> None:
        """Take one row."""
        for name, value in row.items():
            column = self._columns.get(name)
            if column is None:
                column = self._columns[name] = [None] * self._num_rows
            column.append(value)
        self._num_rows += 1
        for column in self._columns.values():
            if len(column) < self._num_rows:
                column.append(None)

    def __getitem__(self, name: str) -> Sequence[Any]:
        column = self._columns[name]
        return _numbers(column) if self._typed else column

    def __iter__(self) -> Any:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


def _numbers(column: list[str | None]) -> Any:
    import pandas

    present = pandas.Series(column, dtype=object).replace("", None)
    try:
        return pandas.to_numeric(present) if present.notna().any() else present.infer_objects()
    except (ValueError, TypeError):
        return present.infer_objects()
