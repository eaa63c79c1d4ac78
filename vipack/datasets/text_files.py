"""Texts of one's own: a folder of .txt files, or a column of a table: CSV, JSON Lines or Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vipack.datasets.corpus import Corpus
from vipack.datasets.metadata import MetadataColumns
from vipack.datasets.reading import PathLike, existing_file, read_text
from vipack.datasets.table_rows import TABLES, Rows, rows_of
from vipack.datasets.words import TextRules, corpus_of
from vipack.errors import DataError, UsageError
from vipack.hints import checked

__all__ = ["Document", "documents_of", "load_texts"]


@checked
def load_texts(
    path: PathLike,
    *,
    field: str | None = None,
    title: str | None = None,
    rules: TextRules | None = None,
    tokenizer: Any = None,
    encoding: str = "utf-8",
    keep_text: int = 0,
    licence: str = "not stated",
) -> Corpus:
    """A corpus from a folder of ``.txt`` files, or a ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet`` file of one text a row.

    Files are read row by row and may be gzipped, except Parquet. Columns beside texts and titles are the corpus's
    ``metadata``; those of a CSV file that hold numbers alone are numbers, and empty cells are missing.

    Args:
        field: the column or JSON field that holds the texts; "text" by default, None for a folder.
        title: the column or field that holds the titles; file names in a folder, else the numbers of the lines.
        rules: what counts as a word, and which words and documents stay.
        tokenizer: a function or vectorizer, as of :func:`corpus_from_texts`.
        encoding: of the files, such as "latin-1"; Parquet needs none.
        keep_text: so many letters of the beginning of each text become a column of the metadata, called as `field`, or "text";
            pass it to :func:`vipack.topics.explore` as ``texts=``.

    Raises:
        DataError: missing or empty files, a line that cannot be read, or a field that is not there.
        UsageError: `field` is missing for a file, or given for a folder; there is no such encoding.
        MissingExtraError: a Parquet file without pyarrow (extra ``data``).

    Warns:
        DataWarning: documents without a word are left out, with their titles and metadata; see :meth:`Corpus.prune`.
    """
    if hasattr(path, "iloc"):
        raise UsageError(f"path: found a {type(path).__name__}; pass it to vipack.datasets.corpus_from_texts.")
    if isinstance(keep_text, bool) or keep_text < 0:
        raise UsageError(f"keep_text: expected a number of letters, 0 or more, found {keep_text!r}.")
    target = Path(path)
    documents, typed = documents_of(target, field, title, encoding)
    titles: list[str] = []
    metadata = MetadataColumns(typed)

    def texts() -> Iterator[str]:
        for name, text, others in documents:
            titles.append(name)
            metadata.add({**others, field or "text": text[:keep_text]} if keep_text else others)
            yield text

    return corpus_of(
        texts(),
        titles,
        metadata,
        rules=rules,
        tokenizer=tokenizer,
        name=target.name,
        source=str(target),
        licence=licence,
    )


Document = tuple[str, str, Mapping[str, Any]]  # title, text, and what else is known


def documents_of(target: Path, field: str | None, title: str | None, encoding: str) -> tuple[Iterator[Document], bool]:
    """The documents of a folder or a table one after the other, and whether all that is known of them is text; see :func:`load_texts`."""
    if target.is_dir():
        if field is not None or title is not None:
            raise UsageError(f"field, title: {target} is a folder, whose files are the documents; leave both out.")
        return _folder(target, encoding), False
    rows = rows_of(existing_file(target), encoding)
    return _fields(target, rows, field, title), rows.is_text


def _folder(folder: Path, encoding: str) -> Iterator[Document]:
    files = sorted(folder.rglob("*.txt"))
    if not files:
        kinds = sorted({p.suffix or "no suffix" for p in folder.iterdir() if p.is_file()})
        others = f"only files with {', '.join(kinds)}" if kinds else "no files"
        cure = "put one document into each .txt file"
        if set(kinds) & set(TABLES):
            cure += ", or give the path of one file"
        raise DataError(f"{folder}: has no .txt files ({others}); {cure}.")
    for file in files:
        yield file.relative_to(folder).as_posix(), read_text(file, encoding), {}


def _fields(path: Path, rows: Rows, field: str | None, title: str | None) -> Iterator[Document]:
    empty = True
    for number, row in rows:
        if field is None and "text" not in row:
            raise UsageError(f"field: say which field of {path} holds the texts; it has {_listed(row)}.")
        empty = False
        where = f"{path}: {rows.what} {number}"
        others = dict(row)
        text = _value(where, others, field or "text")
        name = str(number) if title is None else _title(where, row, title)
        others = {column: value for column, value in others.items() if column != title}
        yield name, text, others
    if empty:
        raise DataError(f"{path}: {rows.emptiness}; expected at least one document.")


def _value(where: str, row: dict[str, Any], field: str) -> str:
    """The text, which is taken out of the row."""
    if field not in row:
        raise DataError(f"{where}: has no field {field!r}; it has {_listed(row)}.")
    value = row.pop(field)
    if not isinstance(value, str):
        raise DataError(f"{where}: field {field!r} holds {value!r}, expected a text.")
    return value


def _title(where: str, row: Mapping[str, Any], title: str) -> str:
    if title not in row:
        raise DataError(f"{where}: has no field {title!r}; it has {_listed(row)}.")
    if row[title] is None or isinstance(row[title], list | dict):
        raise DataError(f"{where}: field {title!r} holds {row[title]!r}, expected a title.")
    return str(row[title])


def _listed(row: Mapping[str, Any]) -> str:
    return ", ".join(repr(name) for name in row) or "none"
