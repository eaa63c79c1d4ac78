"""Rows of tables in files, one after the other: CSV, JSON Lines and Parquet."""

from __future__ import annotations

import csv
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vipack.datasets.reading import opened_text
from vipack.errors import DataError, MissingExtraError

__all__ = ["TABLES", "Rows", "rows_of"]


class Rows:
    """The rows of a table with their numbers, each a dict of fields.

    Attributes:
        what: is numbered, "line" or "row".
        is_text: whether all fields are texts, whatever they hold.
        emptiness: what is to be said of the file if no row comes.
    """

    def __init__(
        self, path: Path, read: Callable[[Rows, Path, str], Iterator[tuple[int, dict[str, Any]]]], encoding: str
    ) -> None:
        self.what, self.is_text, self.emptiness = "line", False, "is empty"
        self._rows = read(self, path, encoding)

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        return self._rows


def rows_of(path: Path, encoding: str) -> Rows:
    """
    Raises:
        DataError: a kind of file that is not read; later on, a row that cannot be.
        MissingExtraError: a Parquet file without pyarrow.
    """
    kind = ("".join(path.suffixes[-2:-1]) if path.suffix.lower() == ".gz" else path.suffix).lower()
    if kind not in TABLES:
        raise DataError(
            f"{path}: files ending in {kind or 'nothing'!r} are not read; give a folder of .txt files, or a file ending "
            f"in {', '.join(TABLES)}."
        )
    rows = Rows(path, TABLES[kind], encoding)
    rows.is_text = kind in (".csv", ".tsv")
    return rows


def _table(delimiter: str) -> Callable[[Rows, Path, str], Iterator[tuple[int, dict[str, Any]]]]:
    def read(rows: Rows, path: Path, encoding: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """Line number and fields of each row under the header."""
        header: list[str] | None = None
        start = 1
        with _long_fields(), opened_text(path, encoding) as lines:
            first = next(lines, "")
            separator = _separator(first, delimiter)
            reader = csv.reader(itertools.chain([first], lines), delimiter=separator, strict=True)
            while True:
                try:
                    row = next(reader, None)
                except csv.Error as error:
                    raise DataError(
                        f"{path}: line {reader.line_num}: {error}; correct the quotes of that row."
                    ) from error
                if row is None:
                    return
                if header is None and "".join(row).strip():
                    header, rows.emptiness = row, "has a header but no rows"
                    if len(set(header)) < len(header):
                        raise DataError(
                            f"{path}: line {start}: a column occurs twice in {header}; give each its own name."
                        )
                elif header is not None and row:
                    if len(row) != len(header):
                        raise DataError(
                            f"{path}: line {start}: {len(row)} fields, expected the {len(header)} of the header "
                            f"({', '.join(header)}); put texts that hold a {separator!r} into double quotes."
                        )
                    yield start, dict(zip(header, row, strict=True))
                start = reader.line_num + 1

    return read


def _separator(header: str, delimiter: str) -> str:
    """What separates columns: semicolons or tabs, as spreadsheets of some languages write them, where there is no comma."""
    others = [each for each in ("\t", ";", ",") if each in header]
    return others[0] if others and delimiter not in header else delimiter


@contextmanager
def _long_fields() -> Iterator[None]:
    """The csv module refuses fields over 128 KiB unless told otherwise, for the whole process."""
    before = csv.field_size_limit(sys.maxsize if sys.platform != "win32" else 2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _records(rows: Rows, path: Path, encoding: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of each line that is not blank."""
    with opened_text(path, encoding, newline="\n") as lines:
        for line, content in enumerate(lines, 1):
            if not content.strip():
                continue
            try:
                record = json.loads(content)
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{path}: line {line}: is not JSON ({error.msg} at character {error.colno}); write one object a line."
                ) from error
            if not isinstance(record, dict):
                raise DataError(
                    f"{path}: line {line}: found a JSON {type(record).__name__}, expected an object {{...}}."
                )
            yield line, record


def _parquet(rows: Rows, path: Path, encoding: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number, from 1, and columns of each row."""
    rows.what, rows.emptiness = "row", "has no rows"
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(
            f"{path}: Parquet files need pyarrow, which is not installed: pip install 'vipack[data]'; or write the table "
            "as a .csv or .jsonl file."
        ) from error
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: is not a readable Parquet file ({error}); write it again.") from error


TABLES: dict[str, Callable[[Rows, Path, str], Iterator[tuple[int, dict[str, Any]]]]] = {
    ".csv": _table(","),
    ".tsv": _table("\t"),
    ".jsonl": _records,
    ".ndjson": _records,
    ".parquet": _parquet,
}
"""How to read each kind of file."""
