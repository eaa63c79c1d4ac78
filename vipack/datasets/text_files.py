"""Texts of one's own: a folder of .txt files, a column of a CSV file, or a field of a JSON Lines file."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vipack.datasets.corpus import Corpus
from vipack.datasets.reading import PathLike, existing_file, read_text
from vipack.datasets.words import TextRules, corpus_from_texts
from vipack.errors import DataError, UsageError
from vipack.hints import checked

__all__ = ["load_texts"]

_TABLES = {".csv": ",", ".tsv": "\t"}
_RECORDS = (".jsonl", ".ndjson")


@checked
def load_texts(
    path: PathLike,
    *,
    field: str | None = None,
    title: str | None = None,
    rules: TextRules | None = None,
    tokenizer: Any = None,
    licence: str = "not stated",
) -> Corpus:
    """A corpus from a folder of ``.txt`` files, a ``.csv`` or ``.tsv`` file, or a ``.jsonl`` file, all UTF-8.

    Args:
        field: the column or JSON field that holds the texts; None for a folder.
        title: the column or field that holds the titles; file names in a folder, else the numbers of the lines.
        rules: what counts as a word, and which words and documents stay.
        tokenizer: a function or vectorizer, as of :func:`corpus_from_texts`.

    Raises:
        DataError: missing or empty files, a line that cannot be read, or a field that is not there.
        UsageError: `field` is missing for a file, or given for a folder.
    """
    if hasattr(path, "iloc"):
        raise UsageError(f"path: found a {type(path).__name__}; pass it to vipack.datasets.corpus_from_texts.")
    target = Path(path)
    if target.is_dir():
        if field is not None or title is not None:
            raise UsageError(f"field, title: {target} is a folder, whose files are the documents; leave both out.")
        texts, titles = _folder(target)
    else:
        texts, titles = _fields(existing_file(target), field, title)
    return corpus_from_texts(
        texts, titles, rules=rules, tokenizer=tokenizer, name=target.name, source=str(target), licence=licence
    )


def _folder(folder: Path) -> tuple[list[str], list[str]]:
    files = sorted(folder.rglob("*.txt"))
    if not files:
        kinds = sorted({p.suffix or "no suffix" for p in folder.iterdir() if p.is_file()})
        others = f"only files with {', '.join(kinds)}" if kinds else "no files"
        raise DataError(f"{folder}: has no .txt files ({others}); put one document into each .txt file.")
    return [read_text(file) for file in files], [file.relative_to(folder).as_posix() for file in files]


def _fields(path: Path, field: str | None, title: str | None) -> tuple[list[str], list[str]]:
    kind = "".join(path.suffixes[-2:-1]) if path.suffix == ".gz" else path.suffix
    if kind not in (*_TABLES, *_RECORDS):
        raise DataError(
            f"{path}: files ending in {kind or 'nothing'!r} are not read; give a folder of .txt files, or a file ending "
            f"in {', '.join([*_TABLES, *_RECORDS])}."
        )
    text = read_text(path)
    if not text.strip():
        raise DataError(f"{path}: is empty; expected at least one document.")
    rows = _table(path, text, _TABLES[kind]) if kind in _TABLES else _records(path, text)
    texts, titles = [], []
    for line, row in rows:
        if field is None:
            raise UsageError(f"field: say which field of {path} holds the texts; it has {_listed(row)}.")
        texts.append(_value(path, line, row, field))
        titles.append(str(line) if title is None else _value(path, line, row, title))
    if not texts:
        raise DataError(f"{path}: has a header but no rows; expected at least one document.")
    return texts, titles


def _value(path: Path, line: int, row: Mapping[str, Any], field: str) -> str:
    if field not in row:
        raise DataError(f"{path}: line {line}: has no field {field!r}; it has {_listed(row)}.")
    value = row[field]
    if not isinstance(value, str):
        raise DataError(f"{path}: line {line}: field {field!r} holds {value!r}, expected a text.")
    return value


def _listed(row: Mapping[str, Any]) -> str:
    return ", ".join(repr(name) for name in row) or "none"


def _table(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and fields of each row under the header."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    start = 1
    with _long_fields():
        while True:
            try:
                row = next(reader, None)
            except csv.Error as error:
                raise DataError(f"{path}: line {reader.line_num}: {error}; mend the quotes of that row.") from error
            if row is None:
                return
            if header is None:
                header = row
                if len(set(header)) < len(header):
                    raise DataError(f"{path}: line 1: a column stands twice in {header}; give each its own name.")
            elif row:
                if len(row) != len(header):
                    raise DataError(
                        f"{path}: line {start}: {len(row)} fields, expected the {len(header)} of the header "
                        f"({', '.join(header)}); put texts that hold a {delimiter!r} into double quotes."
                    )
                yield start, dict(zip(header, row, strict=True))
            start = reader.line_num + 1


@contextmanager
def _long_fields() -> Iterator[None]:
    """The csv module refuses fields over 128 KiB unless told otherwise, for the whole process."""
    before = csv.field_size_limit(sys.maxsize if sys.platform != "win32" else 2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _records(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of each line that is not blank."""
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            record = json.loads(content)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}: line {line}: is not JSON ({error.msg} at character {error.colno}); write one object a line."
            ) from error
        if not isinstance(record, dict):
            raise DataError(f"{path}: line {line}: found a JSON {type(record).__name__}, expected an object {{...}}.")
        yield line, record
