"""Names and labels of dimensions: the user's own, and those that pandas' indexes bring."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vipack.errors import UsageError
from vipack.export.variables import SAMPLE_DIMS, Variable

__all__ = ["Axis", "Groups", "Labels", "agreed", "axes_of", "label", "labelled", "rename"]

Groups = dict[str, dict[str, Variable]]


@dataclass(frozen=True)
class Axis:
    """An index of pandas.

    Attributes:
        name: its own, if it has one.
        labels: of the entries along it; None where it merely counts them.
    """

    name: str | None
    labels: npt.NDArray[Any] | None

    def plain(self) -> tuple[str | None, str, list[Any] | None]:
        """Numbers and text, for a file."""
        if self.labels is None:
            return self.name, "", None
        dates = self.labels.dtype.kind == "M"
        return self.name, str(self.labels.dtype), (self.labels.astype(np.int64) if dates else self.labels).tolist()

    @classmethod
    def from_plain(cls, stored: Sequence[Any]) -> Axis:
        """The inverse of :meth:`plain`."""
        name, dtype, labels = stored
        return cls(name, None if labels is None else np.array(labels).astype(dtype))


Labels = Mapping[str, npt.NDArray[Any]]  # dimension -> labels


def labelled(axes: tuple[Axis, ...], indices: Any) -> tuple[Axis, ...]:
    """The axes of the rows `indices`, a tensor; what merely counted them has labels now."""
    first, *others = axes
    labels = indices.numpy() if first.labels is None else first.labels[indices.numpy()]
    return Axis(first.name, labels), *others


def axes_of(value: Any) -> tuple[Axis, ...]:
    """The axes of a Series or DataFrame; none of anything else."""
    if not hasattr(value, "iloc"):  # neither
        return ()
    return tuple(_axis(index) for index in value.axes)


def _axis(index: Any) -> Axis:
    name = index.name if isinstance(index.name, str) and index.name else None
    counts = len(index) and index.dtype.kind in "iu" and bool((np.asarray(index) == np.arange(len(index))).all())
    if counts or not index.is_unique or (index.nlevels == 1 and index.hasnans):
        return Axis(name, None)
    values = index.to_numpy()
    if index.nlevels > 1:
        values = np.array([", ".join(map(str, entry)) for entry in index])
    elif values.dtype.kind not in "iufM":  # netCDF holds numbers, dates and text
        values = np.array([str(entry) for entry in values])
    return Axis(name, values)


def agreed(pairs: Iterable[tuple[str, npt.NDArray[Any]]]) -> dict[str, npt.NDArray[Any]]:
    """Dimension -> labels, where all that are found for it are the same."""
    labels: dict[str, npt.NDArray[Any]] = {}
    contested = set()
    for dim, values in pairs:
        if dim in labels and not np.array_equal(labels[dim], values):
            contested.add(dim)
        labels.setdefault(dim, values)
    return {dim: values for dim, values in labels.items() if dim not in contested}


def rename(groups: Groups, dims: Mapping[str, Sequence[str | None]] | None) -> Groups:
    """The same groups with dimensions named as `dims` says, variable by variable.

    A variable's names are those of all its dimensions, without chain and draw, or of those that no plate names; None
    leaves one as it is.

    Raises:
        UsageError: no such variable, or it has another number of dimensions.
    """
    if dims is None:
        return groups
    if not isinstance(dims, Mapping):
        raise UsageError(f"dims: expected a dict of variable -> names of its dimensions, found {type(dims).__name__}.")
    renamed = {group: dict(variables) for group, variables in groups.items()}
    known = list(dict.fromkeys(name for variables in groups.values() for name in variables))
    for name, wanted in dims.items():
        names = _names(name, wanted)
        if name not in known:
            raise UsageError(f"dims: there is no variable {name!r}; there are {', '.join(map(repr, known))}.")
        own = {group: variables[name] for group, variables in groups.items() if name in variables}
        most = max(own.values(), key=lambda variable: len(variable.dims))
        if not any(len(_axes_named(name, variable, names)) == len(names) for variable in own.values()):
            unnamed = len(_unnamed(name, most))
            each = f", of which no plate names {unnamed}" if 0 < unnamed < len(most.dims) else ""
            raise UsageError(
                f"dims[{name!r}]: {len(names)} names {names}, but {name!r} has {len(most.dims)} dimensions "
                f"{list(most.dims)}{each}; give a name for each, or None to leave one as it is."
            )
        for group, variable in own.items():
            axes = _axes_named(name, variable, names)
            new = {variable.dims[axis]: wish for axis, wish in zip(axes, names, strict=False) if wish is not None}
            renamed[group][name] = variable.renamed(new)
    return renamed


def _names(variable: str, wanted: object) -> list[str | None]:
    names = list(wanted) if isinstance(wanted, Iterable) and not isinstance(wanted, str) else None
    if names is None or not all(name is None or isinstance(name, str) for name in names):
        raise UsageError(f"dims[{variable!r}]: expected a list of names, found {wanted!r}.")
    given = [name for name in names if name is not None]
    if len(set(given)) < len(given) or set(given) & set(SAMPLE_DIMS):
        raise UsageError(f"dims[{variable!r}]: found {names}; names must differ, and be neither 'chain' nor 'draw'.")
    return names


def _unnamed(name: str, variable: Variable) -> list[int]:
    return [axis for axis, dim in enumerate(variable.dims) if dim.startswith(f"{name}_dim_")]


def _axes_named(name: str, variable: Variable, names: Sequence[str | None]) -> list[int]:
    """Which of a variable's dimensions these names are for; of fewer than names, the first ones are meant."""
    if len(names) == len(variable.dims):
        return list(range(len(variable.dims)))
    if variable.subset is not None and variable.subset.dim is None:
        return []
    if len(names) > len(variable.dims):  # a log likelihood has no event dimensions
        return list(range(len(variable.dims)))
    unnamed = _unnamed(name, variable)
    return unnamed if len(unnamed) == len(names) else []


def label(groups: Groups, coords: Mapping[str, Any] | None, own: Mapping[str, Labels]) -> Groups:
    """The same groups with labels along their dimensions.

    Args:
        coords: dimension -> labels, by the user; they are for every group in which the dimension has their length.
        own: group -> dimension -> labels that the data bring, which `coords` goes before.

    Raises:
        UsageError: no such dimension, or it has another length in every group.
    """
    given = _checked(groups, coords)
    return {
        group: {name: _labelled(variable, given, own.get(group, {})) for name, variable in variables.items()}
        for group, variables in groups.items()
    }


def _labelled(variable: Variable, given: Labels, own: Labels) -> Variable:
    labels = {dim: _fitting(dim, size, given, own) for dim, size in variable.sizes.items()}
    subset = variable.subset
    if subset is not None and labels[variable.dims[0]] is None:
        wholes = [_fitting(dim, subset.size, given, own) for dim in (variable.dims[0], subset.dim)]
        labels[variable.dims[0]] = next((whole[subset.indices] for whole in wholes if whole is not None), None)
    return replace(variable, labels={**variable.labels, **{dim: new for dim, new in labels.items() if new is not None}})


def _fitting(dim: str | None, size: int, *sources: Labels) -> npt.NDArray[Any] | None:
    return next(
        (labels[dim] for labels in sources if dim is not None and dim in labels and len(labels[dim]) == size), None
    )


def _checked(groups: Groups, coords: Mapping[str, Any] | None) -> dict[str, npt.NDArray[Any]]:
    if coords is None:
        return {}
    if not isinstance(coords, Mapping):
        raise UsageError(f"coords: expected a dict of dimension -> labels, found {type(coords).__name__}.")
    sizes: dict[str, set[int]] = {}
    for dim, size in _all_sizes(groups):
        sizes.setdefault(dim, set()).add(size)
    checked = {}
    for dim, labels in coords.items():
        if dim not in sizes:
            listed = ", ".join(map(repr, sizes)) or "none"
            raise UsageError(f"coords: there is no dimension {dim!r}; there are {listed}. Name one with dims=.")
        array = np.asarray(labels.detach().cpu() if hasattr(labels, "detach") else labels)
        if array.ndim != 1 or len(array) not in sizes[dim]:
            lengths = " or ".join(map(str, sorted(sizes[dim])))
            raise UsageError(f"coords[{dim!r}]: found labels of shape {array.shape}, expected {lengths} of them.")
        checked[dim] = array if array.dtype.kind in "iufM" else np.array([str(entry) for entry in array])
    return checked


def _all_sizes(groups: Groups) -> Iterator[tuple[str, int]]:
    for variables in groups.values():
        for variable in variables.values():
            yield from variable.sizes.items()
            if variable.subset is not None:
                yield variable.dims[0], variable.subset.size
                yield variable.subset.dim or variable.dims[0], variable.subset.size
