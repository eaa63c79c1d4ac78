"""What diagnostics read: a posterior, or a fit that has one."""

from __future__ import annotations

from typing import Any, Protocol

from vipack.errors import UsageError
from vipack.posterior import Posterior

__all__ = ["HasPosterior", "positive", "posterior_of"]


class HasPosterior(Protocol):
    """A fit, as far as diagnostics of its draws need to know."""

    @property
    def posterior(self) -> Posterior:
        """The fitted guide on the fit's data."""


def posterior_of(source: Posterior | HasPosterior) -> Posterior:
    """The posterior that `source` is or has.

    Raises:
        UsageError: neither.
    """
    posterior: Any = getattr(source, "posterior", source)
    if not isinstance(posterior, Posterior):
        raise UsageError(f"expected a Posterior or a Fit, found {type(source).__name__}; pass fit or fit.posterior.")
    return posterior


def positive(name: str, value: object, least: int = 1) -> int:
    """
    Raises:
        UsageError: no integer of at least `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        wanted = "a positive integer" if least == 1 else f"an integer of at least {least}"
        raise UsageError(f"{name}: expected {wanted}, found {value!r}.")
    return value
