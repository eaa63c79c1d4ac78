"""Structural topics as files: what effects, outcomes and new documents need, and nothing that is code."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
import torch

from vipack.errors import UsageError
from vipack.topics.estimator_files import write_estimator
from vipack.topics.outcomes import OutcomeScale
from vipack.topics.prevalence import Prevalence

__all__ = ["read_data", "read_prevalence", "write_structural"]


def write_structural(
    path: str | os.PathLike[str],
    estimator: Any,
    *,
    params: Mapping[str, Any],
    data: Mapping[str, Any],
    prevalence: Prevalence | None,
    levels: Sequence[Any],
    scale: OutcomeScale | None,
) -> None:
    """Write an estimator with the parameters of its guide, its data, covariates, the levels of groups and the scale of outcomes.

    Raises:
        UsageError: covariates or groups are neither numbers nor text.
    """
    counts = data["counts"].tocsr()
    matrix = {name: torch.from_numpy(np.array(getattr(counts, name))) for name in ("indptr", "indices", "data")}
    table = (
        None if prevalence is None else {str(name): _column(name, prevalence.table[name]) for name in prevalence.table}
    )
    more = {
        "params": {name: value.clone() for name, value in params.items()},
        "counts": matrix | {"shape": list(counts.shape)},
        "others": {name: value for name, value in data.items() if name != "counts"},
        "table": table,
        "levels": _values("groups", levels),
        "scale": None if scale is None else [scale.mean, scale.sd],
    }
    write_estimator(path, estimator, ("components_", "topics_", "shares_", "_word_totals", "_lengths"), more)


def read_data(more: Mapping[str, Any]) -> dict[str, Any]:
    """The data that a model was fitted to, as the fit had them."""
    counts = more["counts"]
    arrays = tuple(counts[name].numpy() for name in ("data", "indices", "indptr"))
    return {"counts": scipy.sparse.csr_array(arrays, shape=tuple(counts["shape"])), **more["others"]}


def read_prevalence(more: Mapping[str, Any], formula: str | None) -> Prevalence | None:
    """The linear model of shares, made anew from the covariates."""
    if more["table"] is None:
        return None
    columns = {
        name: pd.Categorical(own["values"], own["categories"]) if own["categories"] is not None else own["values"]
        for name, own in more["table"].items()
    }
    return Prevalence(pd.DataFrame(columns), formula)


def _column(name: Any, column: pd.Series[Any]) -> dict[str, Any]:
    categories = column.cat.categories.tolist() if isinstance(column.dtype, pd.CategoricalDtype) else None
    return {
        "values": _values(f"the covariate {name!r}", column.tolist()),
        "categories": None if categories is None else _values(f"the covariate {name!r}", categories),
    }


def _values(what: str, values: Sequence[Any]) -> list[Any]:
    plain = [value.item() if isinstance(value, np.generic) else value for value in values]
    other = next((value for value in plain if not isinstance(value, bool | int | float | str)), None)
    if other is not None:
        raise UsageError(
            f"save: {what} has values of type {type(other).__name__}; a file holds numbers and text, so fit with those, as with "
            "column.astype(str) or a number of days."
        )
    return plain
