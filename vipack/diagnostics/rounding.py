"""What does not vary beyond rounding of its own size is constant: there is no spread there to divide by.

A Cholesky factor of a correlation matrix begins with a one, and its upper half is zero; an observed value stays what it is
in a site that interleaves it with drawn ones; probabilities add up to one. Computed twice, such numbers differ in their
last bits, and averaged they leave a residue. NumPy alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["COMPUTED", "DRAWN", "constant", "precision", "rounding", "same"]

Array = npt.NDArray[np.float64]

# Standard deviations, in units in the last place. What is drawn is rounded once or twice, and a spread of less than a unit
# is no more than two values side by side. Each operation loses half a unit, and the errors of sums mostly cancel: those of
# 2,000 probabilities were one unit apart, of a product of matrices two, of a matrix and its inverse three.
DRAWN, COMPUTED = 1, 4


def precision(values: npt.NDArray[Any]) -> float:
    """The relative rounding of an array of numbers that were drawn; 0 for whole numbers."""
    return DRAWN * float(np.finfo(values.dtype).eps) if values.dtype.kind == "f" else 0.0


def rounding(size: npt.ArrayLike, relative: npt.ArrayLike) -> Array:
    """The standard deviation, and the distance, that rounding alone may give to numbers of this size.

    Args:
        size: largest magnitudes.
        relative: rounding of the type that the numbers had when they were made; see :func:`precision`.
    """
    return np.asarray(relative, dtype=np.float64) * np.abs(np.asarray(size, dtype=np.float64))


def constant(values: Array, relative: npt.ArrayLike | None = None) -> npt.NDArray[np.bool_]:
    """Which columns of ``(S, ...)`` do not vary beyond rounding, infinite or undefined throughout as they may be.

    Args:
        relative: rounding of the type that each column had when it was made; by default that of drawn numbers of the
            array's own.
    """
    if not values.size:
        return np.ones(values.shape[1:], dtype=bool)
    relative = precision(values) if relative is None else relative
    first = values[0]
    equal = ((values == first) | (np.isnan(values) & np.isnan(first))).all(0)
    with np.errstate(invalid="ignore", over="ignore"):
        # From the first draw, so that no sum of large numbers hides what is between them.
        sd = (values - first).astype(np.float64, copy=False).std(0)
        within = sd <= rounding(np.abs(values).max(0), relative)
    return np.asarray(equal | within, dtype=bool)


def same(one: npt.ArrayLike, other: npt.ArrayLike, relative: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Where two numbers differ by no more than rounding, element by element."""
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        close = np.abs(a - b) <= rounding(np.maximum(np.abs(a), np.abs(b)), relative)
    return np.asarray((a == b) | (close & np.isfinite(a) & np.isfinite(b)), dtype=bool)
