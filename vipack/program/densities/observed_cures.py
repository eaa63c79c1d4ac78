"""What to do about observed values that their distribution cannot give: pixels as bytes or grey levels, labels from 1, shares of counts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

__all__ = ["cure_of", "elementwise"]

_BYTE, _SHADES = 255, 16  # of the brightest pixel of common images, and of scikit-learn's digits
_FEW = 5  # distinct whole numbers from which data are no labels
_ELSE = "correct the data or choose a distribution that allows them"


def elementwise(support: Any) -> Any:
    """A support as a condition on single elements, where it is one."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


def cure_of(support: Any, value: Tensor) -> str:
    """What to do about all the observed values of a site, some of which are outside its elementwise support."""
    values = value[torch.isfinite(value)] if value.is_floating_point() else value
    lowest, highest = (float(values.min()), float(values.max())) if values.numel() else (0.0, 0.0)
    whole = not value.is_floating_point() or bool((values == values.round()).all())
    levels = _levels(values) if whole else 0
    if support is constraints.boolean:
        return _cure_of_bits(lowest, highest, whole, levels)
    if isinstance(support, constraints.interval):
        if levels and bool(torch.as_tensor(support.upper_bound == 1).all()):
            return f"these look like pixels from 0 to {levels}: pass x / {levels}"
    elif isinstance(support, constraints.integer_interval):
        lower, upper = (float(torch.as_tensor(b).max()) for b in (support.lower_bound, support.upper_bound))
        if whole and lower == 0 and lowest >= 1 and highest == upper + 1:
            return f"classes are numbered from 0: subtract 1 if these begin at 1, or else {_ELSE}"
        if whole:
            return f"they must be whole numbers from {lower:g} to {upper:g}: map others to these, or widen the distribution's range"
    if getattr(support, "is_discrete", False) and not whole:
        return (
            "it takes whole numbers alone: pass the raw counts, not shares or logarithms of them, or choose a continuous "
            "distribution"
        )
    return _ELSE


def _levels(values: Tensor) -> int:
    """The number of the brightest pixel, where whole numbers look like pixels; 0 where they do not."""
    some = values.reshape(-1)[:100_000]
    if len(some.unique()) < _FEW or float(values.min()) < 0 or float(values.max()) > _BYTE:
        return 0
    return _BYTE if float(values.max()) > _SHADES else _SHADES


def _cure_of_bits(lowest: float, highest: float, whole: bool, levels: int) -> str:
    """Of a Bernoulli, which takes zeros and ones."""
    grey = "binarise them, as in x.bernoulli() or (x > 0.5).float(), or use ContinuousBernoulli"
    if levels:
        return f"these look like pixels from 0 to {levels}: divide them by {levels}, as in x = x / {levels}, and {grey}"
    if not whole and lowest >= 0 and highest <= 1:
        unscored = "Bernoulli(..., validate_args=False) scores them as they are, which is no density"
        return f"these look like grey levels from 0 to 1: {grey}; {unscored}"
    if not whole and lowest >= -1 and highest <= 1:
        return f"these look like pixels scaled to -1 to 1: undo that, as in x = (x + 1) / 2, and {grey}"
    if whole and (lowest, highest) == (-1.0, 1.0):
        return "pass zeros and ones, as in (y > 0).float()"
    if whole and (lowest, highest) == (1.0, 2.0):
        return f"pass zeros and ones: subtract 1 if these are labels from 1, or else {_ELSE}"
    return f"it takes zeros and ones alone, and these run from {lowest:g} to {highest:g}; {_ELSE}"
