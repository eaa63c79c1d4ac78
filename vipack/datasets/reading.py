"""Files of text as lines, with what is wrong in them said by file and line."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

from vipack.errors import DataError, DataWarning, warn

__all__ = ["PathLike", "existing_file", "read_names", "read_text", "unzipped", "warn_uncached"]

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
    try:
        content = target.read_bytes()
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{target}: is a damaged or truncated gzip file ({error}); fetch it again.") from error
    except OSError as error:
        raise DataError(f"{target}: cannot be read ({error}); check its permissions.") from error


def read_text(path: PathLike) -> str:
    """The text of a UTF-8 file, gzipped or not, without a byte order mark.

    Raises:
        DataError: missing, or not UTF-8; the position of the first bad byte is named.
    """
    content = unzipped(path)
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: is not UTF-8: byte 0x{content[error.start]:02x} at position {error.start} (line {line}) cannot be "
            "decoded; convert the file, for example with `iconv -f LATIN1 -t UTF-8`."
        ) from error


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
