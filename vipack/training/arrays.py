"""One array of the data: read from whatever it is, cut into rows, kept in files and told apart."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
import torch
from torch import Tensor

from vipack.errors import DataError, DtypeError
from vipack.schedules import KINDS

__all__ = [
    "UNKNOWN",
    "canonical_csr",
    "choose_dtype",
    "csr_tensor",
    "extreme_rows",
    "fingerprint_of",
    "joined",
    "named_arrays",
    "num_rows_of",
    "plain_array",
    "read_array",
    "rebuilder",
    "scipy_csr",
    "take_rows",
    "tensor_of",
    "unplain_array",
    "whole",
]


def choose_dtype(given: Mapping[str, Any], dtype: torch.dtype | None) -> torch.dtype:
    """The floating-point type of a fit: the one asked for, else that of the tensors given, else torch's default.

    NumPy arrays do not vote: float64 is merely NumPy's default.

    Raises:
        DtypeError: `dtype` is not a floating-point torch.dtype, or tensors disagree.
    """
    if dtype is not None:
        if not isinstance(dtype, torch.dtype) or dtype not in (torch.float32, torch.float64):
            raise DtypeError(f"dtype: expected torch.float32 or torch.float64, found {dtype!r}.")
        return dtype
    names: dict[torch.dtype, str] = {}
    for name, value in given.items():
        if isinstance(value, Tensor) and value.is_floating_point():
            names.setdefault(value.dtype, name)
    if len(names) > 1:
        listed = ", ".join(f"{name} is {kind}" for kind, name in names.items())
        raise DtypeError(f"floating-point types disagree: {listed}; convert them, or pass dtype=torch.float64.")
    chosen = next(iter(names), torch.get_default_dtype())
    if chosen not in (torch.float32, torch.float64):
        raise DtypeError(
            f"{names.get(chosen, 'the default dtype')} is {chosen}, too coarse to fit a posterior in; convert it, or pass dtype=torch.float32."
        )
    return chosen


def read_array(name: str, value: Any) -> Any:
    """One array of the data as a tensor or CSR matrix; what is no array passes as it is.

    Raises:
        DataError, DtypeError: empty, or not of real numbers.
    """
    if isinstance(value, pd.Index | pd.api.extensions.ExtensionArray):
        value = pd.Series(value)
    if isinstance(value, pd.DataFrame | pd.Series):
        value = _pandas_values(name, value)
    if isinstance(value, np.ma.MaskedArray):
        raise DataError(f"{name}: NumPy masked arrays are not read; fill the gaps and mask the site with obs_mask=.")
    if isinstance(value, np.generic):
        value = np.asarray(value)
    if isinstance(value, np.ndarray):
        value = tensor_of(name, value)
    if isinstance(value, Tensor):
        if value.is_complex():
            raise DtypeError(f"{name}: complex numbers are not supported; pass real and imaginary parts.")
        if value.dim() > 0 and value.numel() == 0:
            raise DataError(f"{name}: is empty (shape {tuple(value.shape)}); a fit needs at least one observation.")
        # What was made in inference mode cannot be computed with where gradients are wanted.
        return value.clone() if value.is_inference() else value.detach()
    if scipy.sparse.issparse(value):
        if 0 in value.shape:
            raise DataError(f"{name}: is empty (shape {value.shape}); a fit needs at least one observation.")
        csr = value.tocsr()
        try:
            csr.check_format(full_check=True)  # torch reads beyond its memory where this fails
        except ValueError as error:
            raise DataError(
                f"{name}: is no valid sparse matrix ({error}); make it anew from its rows and columns."
            ) from error
        return canonical_csr(csr)
    if isinstance(value, list):
        raise DataError(f"{name}: found a list; make an array of it with torch.tensor or numpy.array.")
    return value


def _pandas_values(name: str, value: Any) -> np.ndarray[Any, Any]:
    """Numbers of a Series ``(N,)`` or DataFrame ``(N, columns)``; missing ones are NaN."""
    for column, kind in value.to_frame().dtypes.items() if isinstance(value, pd.Series) else value.dtypes.items():
        if isinstance(kind, pd.CategoricalDtype) or kind.kind not in "fiub":
            raise DataError(
                f"{name}: column {column!r} is of type {kind}, which is not numeric; encode categories as integers "
                "(pandas.factorize) and drop text columns."
            )
    array: np.ndarray[Any, Any] = value.to_numpy()
    # pandas' own nullable types come out as objects.
    return value.to_numpy(dtype=np.float64, na_value=np.nan) if array.dtype.kind == "O" else array


def tensor_of(name: str, value: np.ndarray[Any, Any]) -> Tensor:
    """A NumPy array as a tensor that shares its memory where torch can.

    Raises:
        DataError, DtypeError: its values are not real numbers.
    """
    if value.dtype.kind == "c":
        raise DtypeError(f"{name}: complex numbers are not supported; pass real and imaginary parts.")
    if value.dtype.kind not in "fiub":
        raise DataError(
            f"{name}: NumPy array of type {value.dtype} is not numeric; encode categories as integers "
            "(pandas.factorize) and drop text columns."
        )
    if value.dtype.kind == "u" and value.dtype.itemsize > 1:
        value = value.astype(np.int64)
    if not value.flags.writeable or not value.flags.c_contiguous or not value.dtype.isnative:
        value = value.astype(value.dtype.newbyteorder("="), order="C", copy=True)
    return torch.from_numpy(value)


def named_arrays(data: Any) -> list[tuple[str, Any]]:
    """The arrays of `data` with names for messages: ``data``, ``data[0]`` or ``data['x']``."""
    if isinstance(data, Mapping):
        return [(f"data[{name!r}]", value) for name, value in data.items()]
    if isinstance(data, tuple | list):
        return [(f"data[{i}]", value) for i, value in enumerate(data)]
    return [] if data is None else [("data", data)]


def rebuilder(data: Any) -> Callable[[Sequence[Any]], Any]:
    """What puts arrays in the order of :func:`named_arrays` together again: to a dict or a tuple."""
    if isinstance(data, Mapping):
        return functools.partial(_named, list(data))
    return tuple


def _named(names: Sequence[Any], arrays: Sequence[Any]) -> dict[Any, Any]:
    return dict(zip(names, arrays, strict=True))


UNKNOWN = object()  # what a file cannot hold


def plain_array(array: Any) -> Any:
    """An array as ``torch.load(weights_only=True)`` reads it back, or UNKNOWN."""
    if scipy.sparse.issparse(array):
        pieces = {"indptr": array.indptr, "indices": array.indices, "data": array.data}
        return {"csr": {k: torch.from_numpy(np.array(v)) for k, v in pieces.items()}, "shape": list(array.shape)}
    if isinstance(array, Tensor) and array.layout != torch.strided:
        return plain_array(scipy_csr(array))
    if isinstance(array, Tensor):
        kept = array.detach().cpu()
        # A file would hold the whole array that a view is cut from.
        return kept.clone() if kept.untyped_storage().nbytes() > kept.nbytes else kept
    if type(array) in KINDS.values():
        return {"schedule": type(array).__name__, "options": dataclasses.asdict(array)}
    return array if array is None or isinstance(array, bool | int | float | str) else UNKNOWN


def unplain_array(plain: Any) -> Any:
    """The inverse of :func:`plain_array`."""
    if isinstance(plain, Mapping) and "schedule" in plain:
        return KINDS[plain["schedule"]](**plain["options"])
    if isinstance(plain, Mapping):
        csr = {k: v.numpy() for k, v in plain["csr"].items()}
        return scipy.sparse.csr_array((csr["data"], csr["indices"], csr["indptr"]), shape=tuple(plain["shape"]))
    return plain


def canonical_csr(matrix: Any) -> Any:
    """CSR with sorted columns, as torch wants it; the user's own matrix is not changed."""
    csr = matrix.tocsr()
    if not csr.has_canonical_format:
        csr = csr.copy()
        csr.sum_duplicates()
    return csr


def scipy_csr(tensor: Tensor) -> Any:
    """A sparse torch tensor as a SciPy matrix."""
    tensor = tensor.to_sparse_csr()
    pieces = (tensor.values(), tensor.col_indices(), tensor.crow_indices())
    return scipy.sparse.csr_array(tuple(piece.cpu().numpy() for piece in pieces), shape=tuple(tensor.shape))


def num_rows_of(array: Any) -> int | None:
    """The length of the first dimension; None for what has none."""
    if isinstance(array, Tensor) and array.dim() > 0:
        return int(array.shape[0])
    return int(array.shape[0]) if scipy.sparse.issparse(array) else None


def extreme_rows(array: Any) -> set[int]:
    """Rows with the smallest, the largest and the first non-finite value."""
    if scipy.sparse.issparse(array):
        values = torch.from_numpy(np.ascontiguousarray(array.data))
        if not len(values):
            return set()
        row_of = np.repeat(np.arange(array.shape[0]), np.diff(array.indptr))
        return {int(row_of[i]) for i in _extremes(values, values)}
    if array.layout != torch.strided or array.dtype == torch.bool:
        return set()
    values = array.reshape(len(array), -1)
    return _extremes(values.amin(1), values.amax(1))


def _extremes(low: Tensor, high: Tensor) -> set[int]:
    bad = (~torch.isfinite(low) | ~torch.isfinite(high)).nonzero()[:1, 0].tolist()
    return {int(low.argmin()), int(high.argmax()), *bad}


def take_rows(array: Any, indices: Tensor) -> Any:
    """The rows `indices` ``(B,)``, as a tensor."""
    if scipy.sparse.issparse(array):
        return csr_tensor(array[indices.cpu().numpy()])
    return array[indices.to(array.device)]


def whole(array: Any) -> Any:
    """All rows, as a tensor."""
    return csr_tensor(array) if scipy.sparse.issparse(array) else array


def joined(pieces: list[Any]) -> Any:
    """Rows of tensors, or of CSR matrices, one after the other."""
    if len(pieces) == 1:
        return pieces[0]
    return scipy.sparse.vstack(pieces, format="csr") if scipy.sparse.issparse(pieces[0]) else torch.cat(pieces)


def csr_tensor(matrix: Any) -> Tensor:
    """A SciPy matrix in canonical CSR form as a torch tensor."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr.astype(np.int64)),
            torch.from_numpy(matrix.indices.astype(np.int64)),
            torch.from_numpy(np.ascontiguousarray(matrix.data)),
            size=matrix.shape,
            check_invariants=False,
        )


def fingerprint_of(arrays: Sequence[tuple[str, Any]]) -> str:
    """A hash of names, shapes, types and values."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in arrays:
        digest.update(name.encode())
        if scipy.sparse.issparse(value):
            pieces = [value.indptr, value.indices, value.data]
        elif isinstance(value, Tensor):
            digest.update(str((tuple(value.shape), value.dtype)).encode())
            tensors = [value]
            if value.layout != torch.strided:
                csr = value.to_sparse_csr()
                tensors = [csr.crow_indices(), csr.col_indices(), csr.values()]
            pieces = [each.detach().cpu().contiguous().numpy() for each in tensors]
        else:
            digest.update(repr(value).encode())
            pieces = []
        for piece in pieces:
            digest.update(np.ascontiguousarray(piece).tobytes())
    return digest.hexdigest()
