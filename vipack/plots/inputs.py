"""What plots read beside a posterior: the losses of a fit, or plain arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from vipack.errors import UsageError
from vipack.export.groups import dense
from vipack.types import Stopped

if TYPE_CHECKING:
    from torch import Tensor
__all__ = ["ArrayLike", "Trained", "array_of", "chosen", "draws_of"]

ArrayLike: TypeAlias = "npt.ArrayLike | Tensor"


class Trained(Protocol):
    """What :func:`vipack.plots.losses` reads of a fit."""

    @property
    def losses(self) -> npt.NDArray[np.float64]:
        """The loss of every step."""

    @property
    def stopped(self) -> Stopped:
        """Why training ended."""


def array_of(values: ArrayLike, what: str) -> np.ndarray:
    """Numbers as a NumPy array: torch tensors on any device, sequences; booleans become integers.

    Raises:
        UsageError: no numbers.
    """
    array = dense(values)
    if array.dtype.kind == "b":
        array = array.astype(np.int64)
    if array.dtype.kind not in "iuf":
        raise UsageError(f"{what}: expected an array of numbers, found {type(values).__name__} of {array.dtype}.")
    return array


def chosen(names: str | Iterable[str] | None, present: Iterable[str], default: Iterable[str], what: str) -> list[str]:
    """`names` as a list, `default` where there are none.

    Args:
        what: what `present` are, such as "sites of the posterior".

    Raises:
        UsageError: a name that is not `present`, or nothing to draw.
    """
    have = list(present)
    wanted = list(default) if names is None else [names] if isinstance(names, str) else list(names)
    for name in wanted:
        if name not in have:
            raise UsageError(f"names: no {name!r} among the {what}: {', '.join(map(repr, have)) or 'there are none'}.")
    if not wanted:
        raise UsageError(f"names: nothing to draw; the {what} are {', '.join(map(repr, have)) or 'none'}.")
    return wanted


def draws_of(values: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
    """Named arrays of draws ``(S, ...)``.

    Raises:
        UsageError: an array without draws, or not finite.
    """
    arrays = {name: array_of(value, f"draws of {name!r}") for name, value in values.items()}
    for name, array in arrays.items():
        if array.ndim == 0 or array.shape[0] == 0:
            raise UsageError(
                f"draws of {name!r}: expected shape (S, ...) with S draws first, found {array.shape}; "
                "give at least one draw."
            )
        bad = int(array.size - np.isfinite(array).sum())
        if bad:
            raise UsageError(
                f"draws of {name!r}: NaN or infinity in {bad:,} of {array.size:,} numbers; leave them out."
            )
    return arrays
