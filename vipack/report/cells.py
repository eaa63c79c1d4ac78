"""Tables as cells of text, with as many digits as say something."""

from __future__ import annotations

import math
import numbers

import pandas as pd

__all__ = ["cells", "is_text"]

_DIGITS = {"ess": 0, "seconds": 1}  # of columns that two decimals do not suit


def cells(table: pd.DataFrame) -> list[list[str]]:
    """The head and the rows of a table, the index first."""
    head = [str(table.index.name or ""), *map(str, table.columns)]
    return [
        head,
        *(
            [_cell(value, name) for name, value in zip(head, row, strict=True)]
            for row in table.itertuples(index=True, name=None)
        ),
    ]


def is_text(table: pd.DataFrame) -> list[bool]:
    """Of the index and each column: whether it holds words."""
    return [True, *(not pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes)]


def _cell(value: object, column: str) -> str:
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, numbers.Integral):
        return f"{int(value):,}"
    if not isinstance(value, numbers.Real) or not math.isfinite(value):
        return str(value)
    shown = float(value)
    digits = 4 if 0 < abs(shown) < 0.01 else 2
    return f"{shown:,.{_DIGITS.get(column, digits)}f}"
