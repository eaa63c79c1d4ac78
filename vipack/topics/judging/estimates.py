"""Ratios of sums over documents with their jackknife standard errors, and how numbers with errors are written."""

from __future__ import annotations

import math

import numpy as np

from vipack.topics.judging.topic_words import Array
from vipack.types import Estimate

__all__ = ["rate", "with_error"]


def rate(values: Array, sizes: Array) -> Estimate:
    """``sum(values) / sum(sizes)`` and its jackknife standard error over documents, NaN for a single one.

    A few very long documents may hold much of a corpus, so that documents, and not tokens, are what is left out in turn.

    Args:
        values, sizes: of each document, ``(D,)``.
    """
    count, total, size = len(values), float(values.sum()), float(sizes.sum())
    if count < 2:
        return Estimate(total / size, math.nan)
    without = (total - values) / (size - sizes)
    spread = float(np.square(without - without.mean()).sum())
    return Estimate(total / size, math.sqrt((count - 1) / count * spread))


def with_error(value: float, se: float) -> str:
    """``0.0140 ± 0.0040``: as many decimals as two digits of the error need; four digits where there is no error."""
    if not math.isfinite(value):
        return f"{value}"
    if not math.isfinite(se) or se <= 0:
        return f"{value:.4g}"
    decimals = max(0, 1 - math.floor(math.log10(se)))
    return f"{value:,.{decimals}f} ± {se:,.{decimals}f}"
