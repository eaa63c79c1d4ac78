"""The table of a comparison, and what it was made of."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import pandas as pd

from vipack.diagnostics.report import Diagnosis
from vipack.posterior import Posterior
from vipack.types import Stopped

__all__ = ["Comparison", "Fitted"]


class Fitted(Protocol):
    """What comparing fits reads of each of them."""

    @property
    def posterior(self) -> Posterior:
        """The fitted guide on the fit's data."""

    @property
    def seconds(self) -> float:
        """Time spent in training."""

    @property
    def stopped(self) -> Stopped:
        """Why training ended."""

    @property
    def several_starts(self) -> bool:
        """Whether this is the best of several starts."""

    @property
    def data_fingerprint(self) -> str:
        """Equal for fits of the same data."""

    def write_comparison(self, comparison: Comparison, path: str | os.PathLike[str], **options: Any) -> Path:
        """Write the page of a comparison that this fit is the best of."""


class Comparison(pd.DataFrame):  # type: ignore[misc]
    """The table of :func:`vipack.compare`, one row a fit, the best first; columns, rows and copies of it are plain DataFrames.

    Attributes:
        fits: name -> the fit.
        diagnoses: name -> its diagnosis, for the fits that were judged.
    """

    _metadata: ClassVar[list[str]] = ["fits", "diagnoses"]
    fits: Mapping[str, Fitted]
    diagnoses: Mapping[str, Diagnosis]

    @classmethod
    def of(cls, table: pd.DataFrame, fits: Mapping[str, Fitted], diagnoses: Mapping[str, Diagnosis]) -> Self:
        """`table` with what it was made of."""
        comparison = cls(table)
        comparison.fits, comparison.diagnoses = dict(fits), dict(diagnoses)
        return comparison

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        plain: type[pd.DataFrame] = pd.DataFrame
        return plain

    def __reduce__(self) -> tuple[Any, ...]:
        """As the plain table, without the fits."""
        plain: tuple[Any, ...] = pd.DataFrame(self).__reduce__()
        return plain

    def report(self, path: str | os.PathLike[str], *, title: str | None = None) -> Path:
        """Write one HTML page that stands alone: the table, its picture, each fit's verdict with reasons, losses and code.

        Nothing is fitted or judged anew.

        Args:
            title: of the page.

        Returns:
            Where the page is.

        Raises:
            UsageError: the folder does not exist.
        """
        return self.fits[str(self.index[0])].write_comparison(self, path, title=title)
