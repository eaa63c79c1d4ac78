"""How far the draws' means and sds are from better ones, element by element of every latent, in posterior sds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vipack.program import SiteTable

__all__ = ["Columns", "Shift", "columns_of", "few_enough", "shift_by_weights"]

Array = npt.NDArray[np.float64]

_MOST_ELEMENTS = 2_000  # of latent and deterministic sites, whose draws are kept at once
_MOST_NUMBERS = 20_000_000  # in all these draws: 160 MB, of which a few copies are made


@dataclass(frozen=True)
class Columns:
    """Draws of continuous sites, one column an element, as ``theta[0]``.

    Attributes:
        values: ``(S, P)``, constrained.
    """

    names: tuple[str, ...]
    values: Array


@dataclass(frozen=True)
class Shift:
    """What the draws must still move by, element by element, to have the moments of a better estimate.

    Attributes:
        names: of the P elements, as ``theta[0]``.
        mean, mean_se: ``(better mean - draws' mean) / better sd``, ``(P,)``, and its standard error.
        log_sd, log_sd_se: ``log(better sd / draws' sd)``, ``(P,)``, and its standard error.
    """

    names: tuple[str, ...]
    mean: Array
    mean_se: Array
    log_sd: Array
    log_sd_se: Array

    def beyond(self, bound: float, num_se: float, most: float = np.inf, *, sd_bound: float | None = None) -> str | None:
        """The element that is furthest beyond `bound` plus `num_se` standard errors (or beyond `most`), in words.

        Args:
            sd_bound: in place of `bound` for log sds.
        """
        over_mean = np.abs(self.mean) - np.minimum(bound + num_se * self.mean_se, most)
        over_sd = np.abs(self.log_sd) - np.minimum(
            (bound if sd_bound is None else sd_bound) + num_se * self.log_sd_se, most
        )
        # What is no number is no evidence of anything good.
        over_mean, over_sd = (np.where(np.isnan(over), np.inf, over) for over in (over_mean, over_sd))
        if not len(self.names) or max(over_mean.max(), over_sd.max()) <= 0:
            return None
        if over_mean.max() >= over_sd.max():
            place = int(over_mean.argmax())
            return f"the mean of {self.names[place]} by {self.mean[place]:+.2f} sd"
        place = int(over_sd.argmax())
        return f"the sd of {self.names[place]} by a factor of {np.exp(self.log_sd[place]):.2f}"

    def sharp(self, bound: float) -> bool:
        """Whether every standard error is a number below `bound`."""
        return bool(np.all(self.mean_se < bound) and np.all(self.log_sd_se < bound))

    def within(self, bound: float, num_se: float) -> bool:
        """Whether every shift is inside `bound` even `num_se` standard errors further out: a test of equivalence."""
        furthest = [np.abs(self.mean) + num_se * self.mean_se, np.abs(self.log_sd) + num_se * self.log_sd_se]
        return bool(np.all(np.stack(furthest) < bound))

    @property
    def worst_mean(self) -> float:
        """Largest ``|mean|``, in posterior sds; 0 without elements."""
        return float(np.abs(self.mean).max(initial=0.0))

    @property
    def worst_log_sd(self) -> float:
        """Largest ``|log_sd|``; 0 without elements."""
        return float(np.abs(self.log_sd).max(initial=0.0))


def few_enough(table: SiteTable, num_draws: int) -> bool:
    """Whether so many draws of all latent and deterministic elements can be kept and compared."""
    sites = table.of_kind("latent", "deterministic")
    elements = sum(int(np.prod(site.batch_shape + site.event_shape)) for site in sites)
    return elements <= _MOST_ELEMENTS and elements * num_draws <= _MOST_NUMBERS


def columns_of(values: Mapping[str, Tensor]) -> Columns:
    """The floating-point ones of named draws ``(S, *site shape)``, sites in the order of their names."""
    names: list[str] = []
    parts: list[Array] = []
    for name, value in sorted(values.items()):
        if not value.is_floating_point():
            continue
        flat = value.detach().cpu().double().reshape(len(value), -1).numpy()
        names += [name + (f"[{', '.join(map(str, i))}]" if i else "") for i in np.ndindex(*value.shape[1:])]
        parts.append(flat)
    return Columns(tuple(names), np.concatenate(parts, axis=1) if parts else np.empty((0, 0)))


def shift_by_weights(columns: Columns, weights: Array) -> Shift:
    """From equally weighted draws to those weighted by `weights` ``(S,)``, which add up to one.

    Standard errors are those of self-normalised importance sampling by the delta method, of the difference between the
    two estimates from the same draws.
    """
    names, x = _varying(columns)
    even = 1 / len(x)
    plain_mean, mean = x.mean(0), weights @ x
    plain_var = ((x - plain_mean) ** 2).mean(0)
    centred = x - mean
    var = weights @ centred**2
    sd = np.sqrt(var)
    mean_se = np.sqrt(((weights - even)[:, None] ** 2 * centred**2).sum(0)) / sd
    relative = weights[:, None] * (centred**2 / var - 1) - even * ((x - plain_mean) ** 2 / plain_var - 1)
    log_sd_se = 0.5 * np.sqrt((relative**2).sum(0))
    return Shift(names, (mean - plain_mean) / sd, mean_se, 0.5 * np.log(var / plain_var), log_sd_se)


def _varying(columns: Columns) -> tuple[tuple[str, ...], Array]:
    vary = np.ptp(columns.values, axis=0) > 0 if columns.values.size else np.zeros(len(columns.names), dtype=bool)
    return tuple(name for name, v in zip(columns.names, vary, strict=True) if v), columns.values[:, vary]
