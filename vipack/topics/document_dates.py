"""Dates of documents, put together in periods."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from vipack.errors import ShapeError, UsageError
from vipack.plots.inputs import array_of

__all__ = ["moments_of", "periods_of", "stamped"]

_PERIODS = ("Y", "Q", "M", "W", "D")  # of pandas; the longest that tells four periods apart
_MOST, _BINS = 40, 16


def moments_of(dates: Any, count: int, every: str | None) -> tuple[np.ndarray, Any]:
    """For each document the number of its period, -1 without a date; and the mean date of each period.

    Up to forty different dates or numbers are periods of their own. Others lie in periods as of :func:`periods_of`, numbers
    in sixteen equal intervals.

    Raises:
        ShapeError: other than `count` dates.
        UsageError: no dates or numbers, or periods of numbers.
    """
    column = _column(dates, count)
    dated = pd.api.types.is_datetime64_any_dtype(column)
    if every is not None and not dated:
        raise UsageError(f"every: periods {every!r} are for dates, found numbers; leave it out, or pass dates.")
    if not column.notna().any():
        raise UsageError("dates: all are missing.")
    if every is None and column.nunique() <= _MOST:
        codes = column.rank(method="dense")
    elif dated:
        codes = pd.Series(periods_of(column, every)[0]).where(column.notna())
    else:
        codes = pd.Series(pd.cut(column, _BINS, labels=False))
    numbers = codes.rank(method="dense").fillna(0).to_numpy().astype(np.int64) - 1
    moments = column[numbers >= 0].groupby(numbers[numbers >= 0]).mean()
    return numbers, pd.DatetimeIndex(moments) if dated else moments.to_numpy()


def periods_of(column: pd.Series, every: str | None = None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Numbers and names of the years, quarters, months, weeks or days that dates lie in; -1 for missing dates.

    Args:
        every: a period of pandas, such as ``"M"``; the longest with four periods by default.
    """
    stamps = column.dt.tz_localize(None) if column.dt.tz is not None else column
    for frequency in _PERIODS if every is None else (every,):
        periods = stamps.dt.to_period(frequency)
        if periods.nunique() >= 4:
            break
    ordered = sorted(periods.dropna().unique())
    number = {period: i for i, period in enumerate(ordered)}
    return np.array([number.get(period, -1) for period in periods]), tuple(_name(period) for period in ordered)


def _name(period: pd.Period) -> str:
    return f"week of {period.start_time.date()}" if period.freqstr.startswith("W") else str(period)


def stamped(column: pd.Series) -> pd.Series:
    """Periods by their beginning and Python's dates as timestamps; other columns as they are."""
    if isinstance(column.dtype, pd.PeriodDtype):
        return column.dt.to_timestamp()
    if pd.api.types.infer_dtype(column, skipna=True) in ("date", "datetime"):
        return pd.to_datetime(column)
    return column


def _column(dates: Any, count: int) -> pd.Series:
    values = array_of(dates, "dates") if hasattr(dates, "detach") else dates
    column = pd.Series(values).reset_index(drop=True)
    if len(column) != count:
        raise ShapeError(f"dates: expected {count}, one for each row of theta, found {len(column)}.")
    column = stamped(column)
    if not pd.api.types.is_numeric_dtype(column):
        try:
            return pd.to_datetime(column, format="ISO8601").dt.tz_localize(None)
        except (ValueError, TypeError) as error:
            raise UsageError(
                f"dates: expected numbers or dates as in 2001-12-31, {error}; read others by pandas.to_datetime(..., format=...)."
            ) from None
    column = column.astype(np.float64)
    return column.where(np.isfinite(column))
