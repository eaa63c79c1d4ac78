"""Effects of covariates on topics, as a table with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from vipack.display import listed
from vipack.errors import UsageError

__all__ = ["COLUMNS", "Effect", "effects_of"]

COLUMNS = ("topic", "term", "mean", "lower", "upper")


@dataclass(frozen=True)
class Effect:
    """The effect of a term on the share of a topic, with an interval."""

    topic: int
    term: str
    mean: float
    lower: float
    upper: float


def effects_of(table: Any, count: int | None = None, names: Sequence[str] | None = None) -> list[Effect]:
    """The rows of `table`, in their order.

    Args:
        table: DataFrame with the columns topic, term, mean, lower and upper; topics by number or by name.
        count: K; as many as `table` names by default.
        names: of the topics.

    Raises:
        UsageError: a column is missing, a topic is unknown, or an interval does not hold its mean.
    """
    if not isinstance(table, pd.DataFrame):
        raise UsageError(
            f"effects: expected a DataFrame with columns {', '.join(COLUMNS)}, found {type(table).__name__}."
        )
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing or not len(table):
        problem = f"no column {listed(map(repr, missing))}" if missing else "no row"
        raise UsageError(f"effects: found {problem}; expected the columns {', '.join(COLUMNS)}, a row for each effect.")
    numbers = table[["mean", "lower", "upper"]].to_numpy(np.float64)
    for row, (mean, lower, upper) in enumerate(numbers):
        if not lower <= mean <= upper or not np.isfinite([lower, upper]).all():
            raise UsageError(
                f"effects: row {row} has mean {mean:g} and interval {lower:g} to {upper:g}; expected finite numbers, the "
                "mean within the interval."
            )
    topics = [_number(value, count, names) for value in table["topic"]]
    return [
        Effect(topic, str(term), *map(float, values))
        for topic, term, values in zip(topics, table["term"], numbers, strict=True)
    ]


def _number(topic: Any, count: int | None, names: Sequence[str] | None) -> int:
    if names is not None and not isinstance(topic, (int, np.integer)) and str(topic) in names:
        return list(names).index(str(topic))
    whole = isinstance(topic, (int, np.integer)) or (isinstance(topic, (float, np.floating)) and topic % 1 == 0)
    if not whole or topic < 0 or (count is not None and topic >= count):
        known = f"a number from 0 to {count - 1}" if count is not None else "a number from 0 on"
        raise UsageError(
            f"effects: topic {topic!r} is unknown; expected {known}{' or a name of a topic' if names else ''}."
        )
    return int(topic)
