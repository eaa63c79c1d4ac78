"""Files of data as arrays with names: .npz, .npy, .csv, .tsv, .json and .mtx."""

from __future__ import annotations

import functools
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.io
import scipy.sparse

from vipack.errors import DataError

__all__ = ["is_data_file", "read_data_file"]


def read_data_file(name: str) -> dict[str, Any] | Any:
    """Arrays and numbers by name, or the one array of a file that holds no names.

    Raises:
        DataError: the file is missing, of a kind that is not read, or damaged.
    """
    path = Path(name)
    if path.suffix.lower() not in _READERS:
        raise DataError(f"{name}: files of this kind are not read; give one of {', '.join(_READERS)}.")
    if not path.is_file():
        reason = "is a folder" if path.is_dir() else "no such file"
        raise DataError(f"{name}: {reason}; give the path of a file (looked from {Path.cwd()}).")
    try:
        return _READERS[path.suffix.lower()](path)
    except DataError:
        raise
    except PermissionError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror}); look at its permissions.") from error
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, pd.errors.ParserError) as error:
        raise DataError(f"{name}: no readable {path.suffix} file ({_first_line(error)}); write it again.") from error


def is_data_file(name: str) -> bool:
    """Whether `name` is to be read as a file."""
    return Path(name).suffix.lower() in _READERS


def _read_npz(path: Path) -> dict[str, Any] | Any:
    with np.load(path, allow_pickle=False) as file:
        if {"format", "shape", "data"} <= set(file.files):  # written by scipy.sparse.save_npz
            return scipy.sparse.csr_array(scipy.sparse.load_npz(path))
        return {key: _scalar_or_array(file[key]) for key in file.files}


def _read_mtx(path: Path) -> Any:
    matrix = scipy.io.mmread(path)
    return scipy.sparse.csr_array(matrix) if scipy.sparse.issparse(matrix) else np.asarray(matrix)


def _read_table(separator: str) -> Callable[[Path], dict[str, Any]]:
    def read(path: Path) -> dict[str, Any]:
        table = pd.read_csv(path, sep=separator)
        if table.empty:
            raise DataError(f"{path}: has no rows below its first line, which names the columns; give at least one.")
        return {str(column).strip(): table[column] for column in table.columns}

    return read


def _read_json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise DataError(
            f'{path}: holds a {type(content).__name__}, expected an object of named values, such as {{"y": [1, 2]}}.'
        )
    return {key: as_value(f"{path}: {key!r}", value) for key, value in content.items()}


def as_value(what: str, value: Any) -> Any:
    """A list of numbers as an array; a number, text, true, false or null as it is.

    Raises:
        DataError: lists of unequal lengths, lists of other things, or an object.
    """
    if isinstance(value, dict):
        raise DataError(
            f"{what}: is an object, expected numbers or lists of them; give what is in it names of their own."
        )
    if not isinstance(value, list):
        return value
    try:
        array = np.array(value)
    except ValueError as error:
        raise DataError(f"{what}: its lists have unequal lengths, which make no array; pad or split them.") from error
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"{what}: is not a list of numbers (it makes an array of {array.dtype}); null and text are not read."
        )
    return array


def _scalar_or_array(array: np.ndarray) -> Any:
    return array.item() if array.ndim == 0 else array


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


_READERS: dict[str, Callable[[Path], Any]] = {
    ".npz": _read_npz,
    ".npy": functools.partial(np.load, allow_pickle=False),
    ".csv": _read_table(","),
    ".tsv": _read_table("\t"),
    ".json": _read_json,
    ".mtx": _read_mtx,
}
