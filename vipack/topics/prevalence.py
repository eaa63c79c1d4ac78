"""From what is known of documents to the columns of a linear model: by a formula, or column by column."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from vipack.errors import DataError, MissingExtraError, UsageError

__all__ = ["Prevalence", "read_covariates", "read_groups"]

_SPLINE = re.compile(r"\bs\(\s*([^(),]+?)\s*\)")
_NAMES = re.compile(r"`([^`]+)`|\b([^\W\d]\w*)\b(?!\s*[(=.])")  # of columns, not of functions or their options
_MOST_DEGREES = 10  # of freedom of a spline, as in stm
_INTERCEPT = "Intercept"


class Prevalence:
    """A linear model's columns, centred and of unit sd, the intercept first.

    Args:
        table: a row a document.
        formula: such as ``"party + s(year)"``, where ``s(x)`` is a cubic B-spline of up to 10 degrees of freedom; read by
            formulaic. None takes every column as it is, and categories as indicators of all levels but the first.

    Attributes:
        columns: names, the intercept's first.
        variables: columns of the table that matter.

    Raises:
        DataError: missing values, a variable with a single value, or none.
        UsageError: the formula cannot be read.
        MissingExtraError: there is a formula, and formulaic is not installed.
    """

    def __init__(self, table: pd.DataFrame, formula: str | None = None) -> None:
        self._levels: dict[str, list[Any]] = {}
        self._spec: Any = None
        self.formula = formula
        if formula is None:
            self.variables = [str(column) for column in table.columns]
            _check_complete(table)
            for name in self.variables:
                if not pd.api.types.is_numeric_dtype(table[name]) or pd.api.types.is_bool_dtype(table[name]):
                    self._levels[name] = sorted(table[name].unique(), key=str)
            raw = self._plain_columns(table)
        else:
            raw = self._by_formula(table, formula)
        raw = raw.drop(columns=[_INTERCEPT], errors="ignore")
        varies = raw.std(ddof=0) > 0
        constant = [str(name) for name in raw.columns[~varies]]
        if constant:
            raise DataError(
                f"covariates: {', '.join(map(repr, constant))} has the same value in every document, so nothing can depend on it; "
                "leave it out."
            )
        self.columns = [_INTERCEPT, *map(str, raw.columns)]
        self._centre, self._scale = raw.mean().to_numpy(float), raw.std(ddof=0).to_numpy(float)
        self.table = table[self.variables].reset_index(drop=True)

    def rows(self, table: pd.DataFrame) -> Tensor:
        """The columns ``(R, P)`` float64 for documents of which this is known.

        Raises:
            DataError: a variable or a value is missing, or a level is new.
        """
        absent = [name for name in self.variables if name not in table.columns]
        if absent:
            raise DataError(
                f"covariates: {', '.join(map(repr, absent))} is missing; the model has {', '.join(self.variables)}."
            )
        table = table[self.variables]
        _check_complete(table)
        if self._spec is None:
            raw = self._plain_columns(table)
        else:
            try:
                raw = pd.DataFrame(self._spec.get_model_matrix(table, na_action="raise"))
            except Exception as error:
                raise DataError(f"covariates: {type(error).__name__}: {error}.") from error
        raw = raw.drop(columns=[_INTERCEPT], errors="ignore")
        scaled = (raw.to_numpy(float) - self._centre) / self._scale
        return torch.from_numpy(np.column_stack([np.ones(len(table)), scaled]))

    def contrasts(self) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
        """For each variable what to compare: every level with the first, or the upper quartile of numbers with the lower."""
        listed = []
        for name in self.variables:
            values = self.table[name]
            levels = sorted(values.unique(), key=str)
            if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values) and len(levels) > 2:
                low, high = (float(value) for value in np.quantile(values, [0.25, 0.75]))
                if low == high:
                    low, high = float(values.min()), float(values.max())
                listed.append((f"{name}: {low:g} to {high:g}", {name: low}, {name: high}))
                continue
            listed += [(f"{name}: {levels[0]} to {level}", {name: levels[0]}, {name: level}) for level in levels[1:]]
        return listed

    def _plain_columns(self, table: pd.DataFrame) -> pd.DataFrame:
        columns: dict[str, Any] = {}
        for name in self.variables:
            levels = self._levels.get(name)
            if levels is None:
                columns[name] = table[name].to_numpy(float)
                continue
            new = set(table[name]) - set(levels)
            if new:
                raise DataError(f"covariates: {name} has the level {next(iter(new))!r}, which the fit did not see.")
            if len(levels) == 1:
                raise DataError(
                    f"covariates: {name!r} has one level, {levels[0]!r}, so nothing can depend on it; leave it out."
                )
            columns |= {f"{name}[{level}]": (table[name] == level).to_numpy(float) for level in levels[1:]}
        return pd.DataFrame(columns, index=range(len(table)))

    def _by_formula(self, table: pd.DataFrame, formula: str) -> pd.DataFrame:
        try:
            import formulaic
        except ImportError as error:
            raise MissingExtraError(
                "prevalence: formulas are read by formulaic; install it with pip install 'vipack[topics]', or pass covariates "
                "column by column."
            ) from error
        try:
            parsed = formulaic.Formula(_SPLINE.sub(lambda match: _spline(match[1], table), formula))
        except Exception as error:
            raise UsageError(f"prevalence: {formula!r} cannot be read ({type(error).__name__}: {error}).") from error
        named = dict.fromkeys(first or second for first, second in _NAMES.findall(formula))
        self.variables = [name for name in named if name in table.columns]
        absent = [name for name in named if name not in table.columns]
        if absent:
            raise DataError(
                f"prevalence: {', '.join(map(repr, absent))} is no column of the covariates; they are {', '.join(map(str, table.columns))}."
            )
        _check_complete(table[self.variables])
        for name in self.variables:
            if table[name].nunique() < 2:
                raise DataError(f"covariates: {name!r} has one level, so nothing can depend on it; leave it out.")
        try:
            matrix = formulaic.model_matrix(parsed, table, na_action="raise")
        except Exception as error:
            raise UsageError(f"prevalence: {formula!r}: {type(error).__name__}: {error}.") from error
        self._spec = matrix.model_spec
        return pd.DataFrame(matrix)


def read_covariates(covariates: Any, num_documents: int) -> pd.DataFrame:
    """A table with a row a document: a DataFrame, a mapping of columns, or an array ``(D,)`` or ``(D, P)``.

    Raises:
        DataError: another number of rows.
    """
    if isinstance(covariates, pd.DataFrame):
        table = covariates.reset_index(drop=True)
    elif isinstance(covariates, pd.Series):
        table = covariates.reset_index(drop=True).to_frame(covariates.name or "x")
    elif isinstance(covariates, Mapping):
        table = pd.DataFrame({str(name): np.asarray(column) for name, column in covariates.items()})
    else:
        array = np.asarray(covariates)
        array = array[:, None] if array.ndim == 1 else array
        if array.ndim != 2:
            raise DataError(f"covariates: expected a table, found an array of {array.ndim} dimensions.")
        table = pd.DataFrame(array, columns=[f"x{i}" for i in range(array.shape[1])])
    if len(table) != num_documents:
        raise DataError(
            f"covariates: found {len(table)} rows for {num_documents} documents; give one a document, in their order."
        )
    return table


def read_groups(name: str | None, table: pd.DataFrame) -> tuple[list[Any], Any]:
    """The levels of a column, and the number of each row's ``(D,)``; none where there is no name.

    Raises:
        DataError: there is no such column, or a value is missing.
    """
    if name is None:
        return [], None
    if name not in table.columns:
        raise DataError(
            f"groups: {name!r} is no column of the covariates; they are {', '.join(map(str, table.columns))}."
        )
    indices, levels = pd.factorize(table[name], sort=True)
    if (indices < 0).any():
        raise DataError(f"groups: {name!r} is missing in row {int(np.argmax(indices < 0))}.")
    return list(levels), np.asarray(indices, dtype=np.int64)


def _check_complete(table: pd.DataFrame) -> None:
    missing = table.isna()
    if missing.any(axis=None):
        row, column = np.argwhere(missing.to_numpy())[0]
        count = int(missing.any(axis=1).sum())
        raise DataError(
            f"covariates: {table.columns[column]!r} is missing in row {row} ({count} row(s) in all); fill it, or leave these "
            "documents out."
        )
    for name in table.select_dtypes("number"):
        infinite = np.flatnonzero(~np.isfinite(table[name].to_numpy(float)))
        if len(infinite):
            raise DataError(
                f"covariates: {name!r} is infinite in row {infinite[0]}; covariates are finite numbers or categories."
            )


def _spline(name: str, table: pd.DataFrame) -> str:
    if name not in table.columns:
        return f"bs({name}, df=4)"  # which is said to be no column
    values = table[name].nunique()
    return f"bs({name}, df={min(_MOST_DEGREES, max(3, values - 1))})"
