"""Data with gaps: which entries are missing, and the data with something in their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from vipack.display import listed
from vipack.errors import DataError, UsageError
from vipack.posterior.observations import by_names
from vipack.training.arrays import read_array
from vipack.training.data import ArrayRows, Rows

__all__ = ["without_gaps"]


def without_gaps(
    model: Callable[..., Any], rows: Rows, observed: Any, others: Rows, seed: int
) -> tuple[Rows, dict[str, Tensor]]:
    """`rows` with their gaps filled from observations drawn among `others`; argument -> which of its entries are missing.

    Arguments without a gap are not listed, unless `observed` has a mask for them.

    Args:
        observed: a mask of what is there, for the one argument that may have gaps, or a dict of masks; None: what is not NaN.

    Raises:
        UsageError: `observed` names no argument, or does not say of which it is.
        DataError: a mask is of another shape or no booleans, or an entry that is NaN is observed by it; no rows.
    """
    call = rows.full()
    if rows.num_rows is None:
        raise UsageError("impute: the data have no rows, so that there are no observations to tell apart.")
    values = {name: _dense(value) for name, value in by_names(model, call).items() if name not in rows.fixed}
    values = {n: v for n, v in values.items() if isinstance(v, Tensor) and v.dim() and len(v) == rows.num_rows}
    missing = {name: ~mask for name, mask in _masks(values, observed).items()}
    for name, value in values.items():
        gone = value.isnan() if value.is_floating_point() else torch.zeros(value.shape, dtype=torch.bool)
        if name in missing:
            wrong = (gone & ~missing[name]).nonzero()
            if len(wrong):
                entry = ", ".join(map(str, wrong[0].tolist()))
                raise DataError(
                    f"impute: {name}[{entry}] is NaN, and observed= says that it is there ({len(wrong)} such entries); leave it out "
                    "of the mask, or give its value."
                )
        elif bool(gone.any()):
            missing[name] = gone
    gaps = {name: mask for name, mask in missing.items() if bool(mask.any())}
    if not gaps:
        return rows, missing
    indices = torch.randint(others.num_rows or 1, (rows.num_rows,), generator=torch.Generator().manual_seed(seed))
    donors = by_names(model, others.rows(indices))
    filled = {
        name: torch.where(mask, _dense(donors[name]).to(values[name]), values[name]) for name, mask in gaps.items()
    }
    names = list(by_names(model, call))
    args = tuple(filled.get(name, value) for name, value in zip(names, call.args, strict=False))
    kwargs = {name: filled.get(name, value) for name, value in call.kwargs.items() if name not in rows.fixed}
    return ArrayRows(kwargs or args, rows.fixed, rows.dtype, rows.device), missing


def _masks(values: Mapping[str, Tensor], observed: Any) -> dict[str, Tensor]:
    """Argument -> which of its entries are there, as `observed` says."""
    if observed is None:
        return {}
    if not isinstance(observed, Mapping):
        if len(values) != 1:
            raise UsageError(
                f"impute: the data are {listed(values)}; say of which the mask is, as in observed={{{next(iter(values), 'x')!r}: mask}}."
            )
        observed = {next(iter(values)): observed}
    masks = {}
    for name, given in observed.items():
        if name not in values:
            raise UsageError(f"impute: observed has {name!r}, and the data are {listed(values) or 'none'}.")
        mask = read_array(f"observed[{name!r}]", given)
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            kind = mask.dtype if isinstance(mask, Tensor) else type(given).__name__
            raise DataError(
                f"impute: observed[{name!r}] must be booleans, True where an entry is there, found {kind}; write mask.bool() or "
                "~x.isnan()."
            )
        if mask.shape != values[name].shape:
            raise DataError(
                f"impute: observed[{name!r}] has shape {tuple(mask.shape)}, and the data {tuple(values[name].shape)}; give one "
                "boolean an entry."
            )
        masks[name] = mask.to(values[name].device)
    return masks


def _dense(value: Any) -> Any:
    return value.to_dense() if isinstance(value, Tensor) and value.layout != torch.strided else value
