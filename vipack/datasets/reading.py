"""Files of text as lines, with what is wrong in them said by file and line."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vipack.errors import DataError, DataWarning, UsageError, warn

__all__ = ["PathLike", "existing_file", "opened_text", "read_names", "read_text", "unzipped", "warn_uncached"]

PathLike = str | os.PathLike[str]


def existing_file(path: PathLike) -> Path:
    """`path`, which must be a file.

    Raises:
        DataError: there is no such file, or it is a folder.
    """
    target = Path(path)
    if target.is_dir():
        raise DataError(f"{target}: is a folder, expected a file; give the path of one file in it.")
    if not target.is_file():
        raise DataError(f"{target}: no such file; check the path (looked from {Path.cwd()}).")
    return target


def unzipped(path: PathLike) -> bytes:
    """The content of a file, unpacked if it is gzipped.

    Raises:
        DataError: missing, unreadable, or a damaged gzip file.
    """
    target = existing_file(path)
    with _damage(target):
        content = target.read_bytes()
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


def read_text(path: PathLike, encoding: str = "utf-8") -> str:
    """The text of a file, gzipped or not, without a byte order mark.

    Raises:
        DataError: missing, or in another encoding; the position of the first bad byte is named.
        UsageError: there is no encoding of that name.
    """
    content = unzipped(path)
    try:
        return content.decode(_codec_of(encoding)).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _undecodable(path, encoding, content[error.start], error.start, line) from error


@contextlib.contextmanager
def opened_text(path: PathLike, encoding: str = "utf-8", newline: str = "") -> Iterator[Iterator[str]]:
    """The lines of a file, gzipped or not, without a byte order mark, read as they are asked for.

    Args:
        newline: what ends a line, as of :func:`open`.

    Raises:
        DataError, UsageError: see :func:`read_text`.
    """
    target, codec = existing_file(path), _codec_of(encoding)
    with _damage(target):
        with target.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        opener: Any = gzip.open if zipped else open
        with opener(target, "rb") as file, io.TextIOWrapper(file, codec, newline=newline) as lines:
            try:
                yield lines
            except UnicodeDecodeError as error:
                file.seek(0)
                raise _first_undecodable(target, encoding, file) from error


def _codec_of(encoding: str) -> str:
    """The codec's name, of the one that leaves out a byte order mark in UTF-8.

    Raises:
        UsageError: there is no encoding of that name.
    """
    try:
        name = codecs.lookup(encoding).name
        "".encode(name)
    except (LookupError, ValueError, TypeError) as error:
        raise UsageError(
            f"encoding: expected one of Python's, such as 'utf-8' or 'latin-1', found {encoding!r}."
        ) from error
    return "utf-8-sig" if name == "utf-8" else name


def _first_undecodable(path: Path, encoding: str, file: Any) -> DataError:
    decoder = codecs.getincrementaldecoder(_codec_of(encoding))()
    position, line = 0, 1
    while True:
        before = len(decoder.getstate()[0])
        block = file.read(1 << 16)
        try:
            decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            lines = line + error.object.count(b"\n", before, max(error.start, before))
            return _undecodable(path, encoding, error.object[error.start], position - before + error.start, lines)
        position, line = position + len(block), line + block.count(b"\n")


def _undecodable(path: PathLike, encoding: str, byte: int, position: int, line: int) -> DataError:
    name = "UTF-8" if _codec_of(encoding).startswith("utf-8") else encoding
    return DataError(
        f"{path}: is not {name}: byte 0x{byte:02x} at position {position} (line {line}) cannot be decoded; say how it is "
        "encoded, as encoding='latin-1' or 'cp1252' of load_texts, or convert the file, for example with `iconv -f LATIN1 -t UTF-8`."
    )


@contextlib.contextmanager
def _damage(target: Path) -> Iterator[None]:
    """
    Raises:
        DataError: the file cannot be read, or is a damaged gzip file.
    """
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{target}: is a damaged or truncated gzip file ({error}); fetch it again.") from error
    except OSError as error:
        raise DataError(f"{target}: cannot be read ({error}); check its permissions.") from error


def read_names(what: str, names: PathLike | Sequence[str]) -> tuple[str, ...]:
    """Names from a sequence, or from a file with one a line.

    Raises:
        DataError: the file is missing or empty, or has an empty line; `what` says what the names are.
    """
    if not isinstance(names, str | os.PathLike):
        return tuple(names)
    lines = [line.strip() for line in read_text(names).splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise DataError(f"{names}: is empty; expected the {what}, one a line.")
    if "" in lines:
        raise DataError(f"{names}: line {lines.index('') + 1} is empty; expected the {what}, one a line without gaps.")
    return tuple(lines)


def warn_uncached(folder: Path, error: OSError, consequence: str) -> None:
    """
    Warns:
        DataWarning: the cache `folder` cannot be written, with the `consequence`.
    """
    warn(
        DataWarning(
            f"{folder}: the cache cannot be written ({error}), so {consequence} each time; set the environment variable "
            "VIPACK_CACHE to a folder that can be written."
        )
    )
