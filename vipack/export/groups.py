"""Sites and arguments as arrays with named dimensions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vipack.export.labels import Axis
from vipack.export.variables import Subset, Variable, axis_names

if TYPE_CHECKING:
    from vipack.program import Site

__all__ = ["add_observed", "as_counts", "constants", "dense", "is_large_and_sparse", "of_site", "plates_of"]

_MOST_DENSE = 10_000_000  # a sparse array larger than this when dense is left out


def add_observed(
    group: dict[str, Variable],
    array: np.ndarray,
    site: Site,
    plates: Mapping[str, int],
    masks: Mapping[str, np.ndarray],
    *,
    sampled: bool = False,
    event_dim: int | None = None,
) -> None:
    """Put an observed site's values or densities in `group`, without the masked ones; densities have an `event_dim`."""
    values = event_dim is None
    event_dim = len(site.event_shape) if event_dim is None else event_dim
    mask = masks.get(site.name)
    if mask is None or mask.all():
        array = as_counts(array, site) if values else array
        group[site.name] = of_site(array, site, plates, sampled=sampled, event_dim=event_dim)
        return
    lead = 1 if sampled else 0
    split = array.ndim - event_dim
    batch = np.broadcast_shapes(array.shape[lead:split], mask.shape)
    array = np.broadcast_to(array, (*array.shape[:lead], *batch, *array.shape[split:]))
    kept = np.flatnonzero(np.broadcast_to(mask, batch))
    source = site.dim_names[-1] if len(batch) == 1 and site.dim_names else None
    if not len(kept):
        return
    array = array.reshape(*array.shape[:lead], -1, *array.shape[lead + len(batch) :]).take(kept, axis=lead)
    array = as_counts(array, site) if values else array  # only now: what is missing may be NaN
    dims = tuple(f"{site.name}_dim_{i}" for i in range(1 + event_dim))
    subset = Subset(source, math.prod(batch), kept)
    group[site.name] = Variable(array[None] if sampled else array, dims, sampled, {dims[0]: kept}, subset)


def of_site(
    array: np.ndarray, site: Site, plates: Mapping[str, int], *, sampled: bool = False, event_dim: int | None = None
) -> Variable:
    """A site's values or densities; with draws first where they are `sampled`."""
    lead = 1 if sampled else 0
    shape = array.shape[lead:]
    plate_dims = dict(zip(site.plate_dims, site.plates, strict=True))
    if event_dim is None:
        event_dim = len(site.event_shape)
    if site.kind == "deterministic":
        event_dim = _event_dim(shape, plate_dims, plates, event_dim)
    names = axis_names(site.name, shape, plate_dims, plates, event_dim)
    kept = [size for size, name in zip(shape, names, strict=True) if name is not None]
    array = array.reshape((*array.shape[:lead], *kept))
    return Variable(array[None] if sampled else array, tuple(name for name in names if name is not None), sampled)


def _event_dim(shape: tuple[int, ...], plate_dims: Mapping[int, str], plates: Mapping[str, int], declared: int) -> int:
    """How many of a deterministic site's axes are not its plates'.

    ``pyro.deterministic`` calls all of them event axes unless told otherwise. Where the site stands in plates, the split
    is the first at which the axes have the plates' sizes.
    """
    for event_dim in range(declared + 1):
        batch = len(shape) - event_dim
        if all(batch + dim >= 0 and shape[batch + dim] == plates[plate] for dim, plate in plate_dims.items()):
            return event_dim if plate_dims else declared
    return declared


def as_counts(array: np.ndarray, site: Site) -> np.ndarray:
    """Whole numbers as integers: Pyro draws them as floats, and ArviZ tells counts from measurements by their type."""
    discrete = bool(getattr(site.support, "is_discrete", False))
    if array.dtype.kind in "bui" or (discrete and np.array_equal(array, np.round(array))):
        return array.astype(np.int64)
    return array


def constants(
    arguments: Mapping[str, Any],
    observed: Mapping[str, Any],
    plates: Mapping[str, int],
    axes: Mapping[str, tuple[Axis, ...]],
    left_out: list[str],
) -> dict[str, Variable]:
    """Arguments that are arrays or numbers, but for those that are observed.

    Args:
        axes: of those that came from pandas.
        left_out: gets what is sparse and too large.
    """
    values = [dense(value) for value in observed.values() if not is_large_and_sparse(value)]
    variables = {}
    for name, value in arguments.items():
        if isinstance(value, bool) or not (_is_array(value) or isinstance(value, int | float)):
            continue
        if is_large_and_sparse(value):
            if not any(value is other for other in observed.values()):
                left_out.append(f"{name} {tuple(value.shape)}")
            continue
        array = dense(value)
        if not any(same(array, other) for other in values):
            variables[name] = Variable(array, _dims(name, array.shape, axes.get(name, ()), plates))
    return variables


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays have one shape and the same numbers."""
    return one.shape == other.shape and np.array_equal(one, other, equal_nan=True)


def _dims(name: str, shape: Sequence[int], axes: tuple[Axis, ...], plates: Mapping[str, int]) -> tuple[str, ...]:
    """Plates that alone have the size, of the first dimension and of those that pandas labels; else its own names."""
    dims: list[str] = []
    for i, size in enumerate(shape):
        axis = axes[i] if i < len(axes) else Axis(None, None)
        owners = [plate for plate, whole in plates.items() if whole == size]
        if axis.name in owners:
            owners = [axis.name]
        if len(owners) == 1 and owners[0] not in dims and (i == 0 or axis.labels is not None or axis.name in owners):
            dims.append(owners[0])
        elif axis.name is not None and axis.name not in (*dims, *plates):
            dims.append(axis.name)
        else:
            dims.append(f"{name}_dim_{i}")
    return tuple(dims)


def plates_of(plates: Mapping[str, int], sites: Mapping[str, Site], arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
    """The sizes that plates have in a call on new data, from draws of observed sites ``(S, *site shape)``."""
    sizes = dict(plates)
    for name, array in arrays.items():
        site = sites.get(name)
        if site is None or site.kind != "observed":
            continue
        batch = array.ndim - 1 - len(site.event_shape)
        for dim, plate in zip(site.plate_dims, site.plates, strict=True):
            if site.batch_shape[dim] == plates[plate] and batch + dim >= 0:
                sizes[plate] = array.shape[1 + batch + dim]
    return sizes


def _is_array(value: object) -> bool:
    return isinstance(value, np.ndarray | np.generic) or hasattr(value, "detach")


def is_large_and_sparse(value: Any) -> bool:
    """Whether making it dense would take more than 40 MB."""
    return str(getattr(value, "layout", "torch.strided")) != "torch.strided" and math.prod(value.shape) > _MOST_DENSE


def dense(value: Any) -> np.ndarray:
    """A torch tensor, strided or sparse and on any device, numbers or a sequence of them as a NumPy array."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().to_dense()
        if str(value.dtype) == "torch.bfloat16":
            value = value.float()  # NumPy has no such type
    return np.asarray(value)
