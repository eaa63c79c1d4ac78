"""Arrays with named dimensions, and the rules that keep their names apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

__all__ = ["SAMPLE_DIMS", "Subset", "Variable", "axis_names", "renamed", "without_clashes"]

SAMPLE_DIMS = ("chain", "draw")


@dataclass(frozen=True)
class Subset:
    """Which entries of a larger dimension a variable's first one keeps.

    Attributes:
        dim: the dimension; None for several, flattened.
        size: of it, or of all of them together.
        indices: of the entries kept, along it.
    """

    dim: str | None
    size: int
    indices: np.ndarray


@dataclass(frozen=True)
class Variable:
    """An array whose axes have names.

    Attributes:
        dims: a name for each axis, without the leading (chain, draw) where `sampled`.
        sampled: whether the array leads with (chain, draw).
        labels: coordinate of a dimension, where it is not 0, 1, 2, ...
        subset: which entries the first dimension keeps, where a mask leaves some out.
    """

    values: np.ndarray
    dims: tuple[str, ...] = ()
    sampled: bool = False
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    subset: Subset | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """The length of each of `dims`."""
        return dict(zip(self.dims, self.values.shape[self.values.ndim - len(self.dims) :], strict=True))

    def renamed(self, names: Mapping[str, str]) -> Variable:
        """With dimensions under their new names; those not in `names` keep theirs."""
        labels = {names.get(dim, dim): label for dim, label in self.labels.items()}
        return replace(self, dims=tuple(names.get(dim, dim) for dim in self.dims), labels=labels)


def axis_names(
    name: str, shape: Sequence[int], plate_dims: Mapping[int, str], plates: Mapping[str, int], event_dim: int
) -> list[str | None]:
    """A dimension name for each axis of a site's value: its plate, its own ``site_dim_i``, or None to drop the axis.

    Dropped are batch axes of size one that no plate of that size owns: they stand for a plate further left.

    Args:
        shape: of the value, draws left out; the last `event_dim` axes are one draw's.
        plate_dims: dim, counted from the right end of the batch shape as Pyro does, -> plate.
        plates: plate -> size.
    """
    batch = len(shape) - event_dim
    names: list[str | None] = []
    own = 0
    for axis, size in enumerate(shape):
        plate = plate_dims.get(axis - batch) if axis < batch else None
        if plate is not None and plates[plate] == size:
            names.append(plate)
        elif axis < batch and size == 1:
            names.append(None)
        else:
            names.append(f"{name}_dim_{own}")
            own += 1
    return names


def without_clashes(groups: Mapping[str, Mapping[str, Variable]]) -> dict[str, dict[str, Variable]]:
    """The same groups with names that xarray, netCDF and ArviZ can tell apart.

    - A variable called ``chain`` or ``draw`` becomes ``chain_site`` or ``draw_site``; a slash, as in ``scope/z``, a dot.
    - A dimension that has the name of a variable, or is a plate called ``chain`` or ``draw``, gets ``_dim`` appended in
      every group: xarray would take the variable for the dimension's coordinate.
    - Where one group has two sizes for a dimension, the later variable's becomes ``variable_dimension``.
    """
    names = _variable_names(groups)
    used = {*names.values(), *SAMPLE_DIMS}
    dims: dict[str, str] = {}
    for dim in _all_dims(groups):
        dims[dim] = _free(dim.replace("/", "."), "_dim", {*used, *dims.values()})
    return {
        group: _of_one_size({names[name]: variable.renamed(dims) for name, variable in variables.items()}, used)
        for group, variables in groups.items()
    }


def _variable_names(groups: Mapping[str, Mapping[str, Variable]]) -> dict[str, str]:
    names: dict[str, str] = {}
    for name in dict.fromkeys(name for variables in groups.values() for name in variables):
        names[name] = _free(name.replace("/", "."), "_site", {*SAMPLE_DIMS, *names.values()})
    return names


def _all_dims(groups: Mapping[str, Mapping[str, Variable]]) -> Iterator[str]:
    variables = [variable for group in groups.values() for variable in group.values()]
    return iter(dict.fromkeys(dim for variable in variables for dim in variable.dims))


def _of_one_size(variables: Mapping[str, Variable], used: set[str]) -> dict[str, Variable]:
    sizes: dict[str, int] = {}
    settled = {}
    for name, variable in variables.items():
        used_here = {*used, *sizes}
        other = {
            dim: _free(f"{name}_{dim}", "_dim", used_here)
            for dim, size in variable.sizes.items()
            if sizes.get(dim, size) != size
        }
        settled[name] = variable.renamed(other)
        sizes.update(settled[name].sizes)
    return settled


def _free(name: str, suffix: str, used: set[str]) -> str:
    while name in used:
        name += suffix
    return name


def renamed(
    groups: Mapping[str, Mapping[str, Variable]], distinct: Mapping[str, Mapping[str, Variable]]
) -> dict[str, str]:
    """What :func:`without_clashes` gave another name: whoever asks for the old one finds it missing.

    Slashes are dots everywhere.
    """
    changes: dict[str, str] = {}
    for group, variables in groups.items():
        for (name, variable), (new_name, new) in zip(variables.items(), distinct[group].items(), strict=True):
            if new_name != name.replace("/", "."):
                changes.setdefault(f"variable {name!r}", new_name)
            for dim, new_dim in zip(variable.dims, new.dims, strict=True):
                if new_dim != dim.replace("/", "."):
                    changes.setdefault(f"dimension {dim!r}", new_dim)
    return changes
