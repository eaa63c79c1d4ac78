"""Several fits of one data set side by side, best first."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import pandas as pd

from vipack.diagnostics.verdict import Diagnosis, diagnose_draws
from vipack.errors import DataWarning, UsageError
from vipack.posterior import Posterior
from vipack.types import Stopped

__all__ = ["Fitted", "compare"]


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
    def data_fingerprint(self) -> str:
        """Equal for fits of the same data."""


def compare(fits: Mapping[str, Fitted], *, num_draws: int = 4_000, seed: int = 0) -> pd.DataFrame:
    """One row a fit, the highest ELBO first.

    Columns: ``rank``; ``elbo`` and ``elbo_se``; ``elbo_diff``, how far below the best, with ``diff_se`` from draws paired
    by their random numbers; ``evidence``, the importance estimate of log p(x); ``khat``; ``ess`` of `num_draws`;
    ``verdict``; ``seconds`` of training. All in nats but the last.

    Raises:
        UsageError: `fits` is empty or not a dict.

    Warns:
        DataWarning: the fits saw different data, so that their ELBOs cannot be compared.
    """
    if not isinstance(fits, Mapping) or not fits:
        raise UsageError("fits: expected a dict of at least one name and fit, as in compare({'mean-field': fit}).")
    for name, fit in fits.items():
        if not hasattr(fit, "posterior"):
            raise UsageError(f"fits[{name!r}]: expected a Fit, found {type(fit).__name__}.")
    _same_data(fits)
    draws = {name: fit.posterior.draws(num_draws, seed=seed, keep=False) for name, fit in fits.items()}
    found = {name: diagnose_draws(draws[name], fit.stopped) for name, fit in fits.items()}
    weights = {name: drawn.log_weights.cpu().numpy() for name, drawn in draws.items()}
    order = sorted(fits, key=lambda name: _sortable(found[name].elbo.value), reverse=True)
    best = weights[order[0]]
    rows = [_row(rank, found[name], best - weights[name], fits[name].seconds) for rank, name in enumerate(order)]
    return pd.DataFrame(rows, index=pd.Index(order, name="fit"))


def _row(rank: int, found: Diagnosis, below: np.ndarray, seconds: float) -> dict[str, object]:
    # The draws of two guides share their random numbers one by one, which the standard error of the mean of the
    # differences accounts for, whether or not it makes them agree.
    return {
        "rank": rank,
        "elbo": found.elbo.value,
        "elbo_se": found.elbo.se,
        "elbo_diff": float(below.mean()),
        "diff_se": float(below.std(ddof=1)) / math.sqrt(len(below)) if rank else 0.0,
        "evidence": found.evidence.value,
        "khat": found.khat,
        "ess": found.ess,
        "verdict": found.verdict.value,
        "seconds": seconds,
    }


def _same_data(fits: Mapping[str, Fitted]) -> None:
    seen: dict[str, str] = {}
    for name, fit in fits.items():
        seen.setdefault(fit.data_fingerprint, name)
    if len(seen) > 1:
        listed = " and ".join(repr(name) for name in seen.values())
        warnings.warn(
            DataWarning(
                f"fits {listed} saw different data: their ELBOs are not comparable; fit them on the same data."
            ),
            stacklevel=3,
        )


def _sortable(value: float) -> float:
    return value if math.isfinite(value) else -math.inf
