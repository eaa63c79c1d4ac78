"""The support of a distribution, also of one that states none."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint, independent, real

__all__ = ["is_discrete", "support_of", "support_or_reals"]


_MIXED: Any = getattr(constraints, "MixtureSameFamilyConstraint", ())


def support_of(fn: Any) -> Constraint | None:
    """What a distribution says of its support; None where it says nothing, as Pyro's wrapper of zuko's flows does not."""
    try:
        support: Constraint | None = getattr(fn, "support", None)
    except NotImplementedError:
        inner = getattr(fn, "base_dist", None) or getattr(fn, "dist", None)
        return None if inner is None else support_of(inner)
    if isinstance(support, _MIXED):
        base: Constraint = support.base_constraint
        inner = base
        while isinstance(inner, independent):
            inner = inner.base_constraint
        # Where components share one support, that of their mixture is it, and can be moved on as theirs can.
        return support if any(isinstance(value, Tensor) for value in vars(inner).values()) else base
    return support


def support_or_reals(fn: Any) -> Constraint:
    """The support of a distribution, or the reals where it states none."""
    support = support_of(fn)
    if support is not None:
        return support
    reals: Constraint = independent(real, fn.event_dim) if fn.event_dim else real
    return reals


def is_discrete(fn: Any) -> bool | None:
    """Whether a distribution gives discrete values; None where it does not say."""
    discrete: bool | None = getattr(support_of(fn), "is_discrete", None)
    return discrete
