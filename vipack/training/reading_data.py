"""From what a user passes as ``data=`` and ``fixed=`` to rows that a model can be called on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sized
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from vipack.errors import DataError, UsageError
from vipack.export.labels import axes_of
from vipack.program import seeded
from vipack.sources import IteratedRows, is_stored
from vipack.training.arrays import choose_dtype, named_arrays, read_array, rebuilder
from vipack.training.data import ArrayRows, LoadedRows, Rows, StoredRows
from vipack.training.iterated_data import IteratedDataRows
from vipack.training.streamed import StreamedRows

__all__ = ["read_data"]


def read_data(data: Any, fixed: Mapping[str, Any] | None, dtype: torch.dtype | None, device: torch.device) -> Rows:
    """The rows of `data`, whatever form it has.

    Raises:
        DataError, DtypeError, UsageError: empty, or of a form or type that no model can use.
    """
    if fixed is not None and not isinstance(fixed, Mapping):
        raise UsageError(f"fixed: expected a dict of keyword arguments, found {type(fixed).__name__}.")
    before: dict[str | int, Any] = {str(name): value for name, value in (fixed or {}).items()}
    given = {f"fixed[{name!r}]": value for name, value in (fixed or {}).items()}
    fixed = {str(name): read_array(f"fixed[{name!r}]", value) for name, value in (fixed or {}).items()}
    if isinstance(data, IteratedRows) or (isinstance(data, IterableDataset) and isinstance(data, Sized)):
        source = data if isinstance(data, IteratedRows) else IteratedRows(data)
        return IteratedDataRows(source, fixed, choose_dtype(given, dtype), device)
    if isinstance(data, DataLoader):
        return LoadedRows(data, fixed, choose_dtype({**given, **_first_row(data.dataset)}, dtype), device)
    if isinstance(data, Dataset):
        return StoredRows(data, fixed, choose_dtype({**given, **_first_row(data)}, dtype), device)
    if isinstance(data, list):
        raise DataError(
            "data: found a list; pass a tuple for several positional arguments, a dict for keyword arguments, or one "
            "array made with torch.tensor or numpy.array."
        )
    if isinstance(data, str | bytes | os.PathLike | set | Iterator):
        raise DataError(
            f"data: found a {type(data).__name__}; read the file or collect the values first, and pass an array made with "
            "torch.tensor or numpy.array, or what lies in files as vipack.stream(path)."
        )
    own: dict[str | int, Any] = dict(enumerate(value for _, value in named_arrays(data)))
    if isinstance(data, Mapping):
        own = {str(name): value for name, value in data.items()}
    given |= dict(named_arrays(data))
    if any(is_stored(value) for value in own.values()):
        kept = [value if is_stored(value) else read_array(name, value) for name, value in named_arrays(data)]
        return StreamedRows(
            data if is_stored(data) else rebuilder(data)(kept), fixed, choose_dtype(given, dtype), device
        )
    arrays = [read_array(name, value) for name, value in named_arrays(data)]
    rows = ArrayRows(rebuilder(data)(arrays), fixed, choose_dtype(given, dtype), device)
    rows.axes = {name: axes for name, value in {**own, **before}.items() if (axes := axes_of(value))}
    return rows


def _first_row(dataset: Any) -> dict[str, Any]:
    if isinstance(dataset, IterableDataset) or not isinstance(dataset, Sized) or len(dataset) == 0:
        return {}
    with seeded(0):
        return dict(named_arrays(dataset[0]))  # type: ignore[index]
