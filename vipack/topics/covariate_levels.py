"""Covariates of documents cut into levels: the categories of one, bins of a number, periods of dates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from vipack.errors import ShapeError, UsageError
from vipack.plots.inputs import array_of
from vipack.topics.document_dates import periods_of, stamped
from vipack.topics.effect_table import COLUMNS

__all__ = ["Levels", "columns_of", "level_means", "levels_of"]

_FEW, _MOST, _BINS = 12, 20, 8


@dataclass(frozen=True, eq=False)
class Levels:
    """A covariate's value in each of D documents, as one of L levels.

    Attributes:
        codes: ``(D,)`` numbers of levels; -1 where the value is missing or its level is left out.
        names: of the L levels.
        ordered: whether they have an order.
        missing: documents without a value.
        left_out: levels beyond the twenty most frequent.
    """

    codes: np.ndarray
    names: tuple[str, ...]
    ordered: bool
    missing: int
    left_out: int = 0


def columns_of(covariates: Any, num_documents: int) -> dict[str, pd.Series]:
    """Named columns with a value for each document, by position.

    Args:
        covariates: DataFrame, Series, or a mapping of names to arrays; None for none.

    Raises:
        UsageError: none of these.
        ShapeError: another number of documents.
    """
    if covariates is None:
        return {}
    if isinstance(covariates, pd.Series):
        covariates = {"covariate" if covariates.name is None else str(covariates.name): covariates}
    if isinstance(covariates, pd.DataFrame) and set(COLUMNS) <= set(covariates.columns):
        raise UsageError(
            "covariates: expected a value for each document, found a table of effects; pass effects=table."
        )
    if not isinstance(covariates, (pd.DataFrame, Mapping)):
        raise UsageError(
            f"covariates: expected a DataFrame, a Series or a dict of columns, found {type(covariates).__name__}."
        )
    columns = {}
    for name, values in covariates.items():
        values = array_of(values, f"covariates[{name!r}]") if hasattr(values, "detach") else values
        column = pd.Series(values).reset_index(drop=True)
        if len(column) != num_documents or np.ndim(values) != 1:
            raise ShapeError(
                f"covariates: {name!r} has shape {np.shape(values)}, expected ({num_documents},), one for each document."
            )
        if pd.api.types.is_complex_dtype(column):
            raise UsageError(f"covariates: {name!r} has complex numbers; expected categories, real numbers or dates.")
        columns[str(name)] = column
    return columns


def levels_of(column: pd.Series) -> Levels:
    """Categories as they are; numbers of more than twelve values in bins with as many documents; dates in periods.

    Differences of times count as days.
    """
    column = stamped(column)
    if pd.api.types.is_timedelta64_dtype(column):
        column = column / pd.Timedelta(days=1)
    if pd.api.types.is_float_dtype(column):
        column = column.where(np.isfinite(column))
    missing = int(column.isna().sum())
    if missing == len(column):
        return Levels(np.full(len(column), -1), (), False, missing)
    if pd.api.types.is_datetime64_any_dtype(column):
        codes, names = periods_of(column)
        return Levels(codes, names, True, missing)
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        if column.nunique() > _FEW:
            return _bins(column.astype(float), missing)
        column = column.astype(pd.CategoricalDtype(sorted(column.dropna().unique()), ordered=True))
        column = column.cat.rename_categories([f"{value:g}" for value in column.cat.categories])
    if not isinstance(column.dtype, pd.CategoricalDtype):
        column = column.map(str, na_action="ignore").astype("category")
    column = column.cat.remove_unused_categories()
    codes, ordered = column.cat.codes.to_numpy().astype(np.int64), bool(column.cat.ordered)
    names = tuple(map(str, column.cat.categories))
    kept = np.sort(np.argsort(-np.bincount(codes[codes >= 0], minlength=len(names)), kind="stable")[:_MOST])
    position = np.full(len(names) + 1, -1)  # the last one is that of the code -1
    position[kept] = np.arange(len(kept))
    return Levels(position[codes], tuple(names[i] for i in kept), ordered, missing, len(names) - len(kept))


def _bins(column: pd.Series, missing: int) -> Levels:
    codes = pd.qcut(column, _BINS, labels=False, duplicates="drop").fillna(-1).to_numpy().astype(np.int64)
    present = np.unique(codes[codes >= 0])
    codes = np.where(codes >= 0, np.searchsorted(present, codes), -1)
    spans = [(column[codes == i].min(), column[codes == i].max()) for i in range(len(present))]
    names = tuple(f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}" for low, high in spans)
    return Levels(codes, names, True, missing)


def level_means(codes: np.ndarray, count: int, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean shares of topics over the documents of each level.

    Returns:
        ``(L,)`` documents, ``(L, K)`` means, and their ``(L, K)`` standard errors; NaN for the error of one document.
    """
    chosen = codes >= 0
    sizes = np.bincount(codes[chosen], minlength=count)
    means, errors = np.full((count, theta.shape[1]), np.nan), np.full((count, theta.shape[1]), np.nan)
    for level in range(count):
        rows = theta[codes == level]
        if len(rows):
            means[level] = rows.mean(0)
        if len(rows) > 1:
            errors[level] = rows.std(0, ddof=1) / np.sqrt(len(rows))
    return sizes, means, errors
