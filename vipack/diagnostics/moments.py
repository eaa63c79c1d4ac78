"""How far the draws' means and sds are from better ones, element by element of every latent, in posterior sds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vipack.diagnostics.rounding import COMPUTED, DRAWN, constant, rounding
from vipack.display import Readable, element_name, listed
from vipack.posterior import Draws
from vipack.program import SiteTable

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Columns",
    "Shift",
    "columns_of",
    "columns_of_sets",
    "comparable",
    "few_enough",
    "shift_by_weights",
    "weighted_moments",
]

Array = npt.NDArray[np.float64]

_MOST_ELEMENTS = 2_000  # of latent and deterministic sites, whose draws are kept at once
_MOST_NUMBERS = 20_000_000  # in all these draws: 160 MB, of which a few copies are made


@dataclass(frozen=True, repr=False)
class Columns(Readable):
    """Draws of continuous sites, one column an element, as ``theta[0]``.

    Attributes:
        values: ``(S, P)``, constrained.
        rounding: of the type that each column was drawn or computed in, relative to its size, ``(P,)``.
        computed: which columns are of deterministic sites, ``(P,)``.
    """

    names: tuple[str, ...]
    values: Array
    rounding: Array
    computed: npt.NDArray[np.bool_]

    def __str__(self) -> str:
        return f"{len(self.values)} draws of {len(self.names)} elements: {listed(self.names)}"

    def subset(self, *, draws: npt.NDArray[Any] | slice = slice(None), columns: Any = slice(None)) -> Columns:
        """Some of the draws, by index or mask, or of the columns, by a mask."""
        chosen = np.arange(len(self.names))[columns]
        names = tuple(self.names[i] for i in chosen)
        return Columns(names, self.values[draws][:, chosen], self.rounding[chosen], self.computed[chosen])


@dataclass(frozen=True, repr=False)
class Shift(Readable):
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
            index = int(over_mean.argmax())
            return f"the mean of {self.names[index]} by {self.mean[index]:+.2f} sd"
        index = int(over_sd.argmax())
        return f"the sd of {self.names[index]} by a factor of {np.exp(self.log_sd[index]):.2f}"

    def sharp(self, bound: float) -> bool:
        """Whether every standard error is a number below `bound`."""
        return bool(np.all(self.mean_se < bound) and np.all(self.log_sd_se < bound))

    def within(self, bound: float, num_se: float) -> bool:
        """Whether every shift is inside `bound` even `num_se` standard errors further out: a test of equivalence."""
        furthest = [np.abs(self.mean) + num_se * self.mean_se, np.abs(self.log_sd) + num_se * self.log_sd_se]
        return bool(np.all(np.stack(furthest) < bound))

    def to_frame(self) -> pd.DataFrame:
        """One row an element, with the columns that the attributes are."""
        import pandas as pd

        table = {"mean": self.mean, "mean_se": self.mean_se, "log_sd": self.log_sd, "log_sd_se": self.log_sd_se}
        return pd.DataFrame(table, index=pd.Index(self.names, name="element"))

    def __str__(self) -> str:
        return f"means by up to {self.worst_mean:.2f} posterior sds, log sds by up to {self.worst_log_sd:.2f}"

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


def columns_of(latents: Mapping[str, Tensor], computed: Mapping[str, Tensor] | None = None) -> Columns:
    """The floating-point ones of named draws ``(S, *site shape)``, sites in the order of their names.

    Args:
        computed: draws of deterministic sites.
    """
    computed = {} if computed is None else computed
    names: list[str] = []
    arrays: list[Array] = []
    relative: list[float] = []
    own: list[bool] = []
    for name, value in sorted({**latents, **computed}.items()):
        if not value.is_floating_point():
            continue
        flat = value.detach().cpu().double().reshape(len(value), -1).numpy()
        names += [element_name(name, index) for index in np.ndindex(*value.shape[1:])]
        arrays.append(flat)
        relative += [(COMPUTED if name in computed else DRAWN) * torch.finfo(value.dtype).eps] * flat.shape[1]
        own += [name in computed] * flat.shape[1]
    values = np.concatenate(arrays, axis=1) if arrays else np.empty((0, 0))
    return Columns(tuple(names), values, np.array(relative), np.array(own, dtype=bool))


def columns_of_sets(sets: Sequence[Draws]) -> Columns:
    """Of several sets of draws, one after the other, without the elements of latents that a mask leaves out."""
    latents = {name: torch.cat([draws.latents[name] for draws in sets]) for name in sets[0].latents}
    computed = {name: torch.cat([draws.deterministic[name] for draws in sets]) for name in sets[0].deterministic}
    columns = columns_of(latents, computed)
    idle: set[str] = set()
    for name, mask in sets[0].counted.items():
        shape = latents[name].shape[1:]
        counts = mask.cpu().expand(shape).numpy()
        idle.update(element_name(name, index) for index in np.ndindex(*shape) if not counts[index])
    return columns.subset(columns=np.array([name not in idle for name in columns.names], dtype=bool))


def comparable(columns: Columns) -> tuple[Columns, tuple[str, ...]]:
    """Those whose means and sds can be compared, and the names of those that have none: computed, but infinite or NaN
    at some draws and not at others. What is constant is neither."""
    still = constant(columns.values, columns.rounding)
    without = ~np.isfinite(columns.values).all(0) & columns.computed & ~still
    names = tuple(name for name, out in zip(columns.names, without, strict=True) if out)
    return columns.subset(columns=~still & ~without), names


def weighted_moments(x: Array, weights: Array) -> tuple[Array, Array, Array, Array]:
    """The columns' means ``(P,)``, deviations from these ``(S, P)`` and variances ``(P,)``, and the variances of the means.

    Args:
        x: ``(S, P)``.
        weights: ``(S,)``, which add up to one.
    """
    mean = weights @ x
    centred = x - mean
    return mean, centred, weights @ centred**2, (weights[:, None] ** 2 * centred**2).sum(0)


def shift_by_weights(columns: Columns, weights: Array) -> Shift:
    """From equally weighted draws to those weighted by `weights` ``(S,)``, which add up to one.

    Standard errors are those of self-normalised importance sampling by the delta method, of the difference between the
    two estimates from the same draws. Elements that are constant are left out.
    """
    columns, _ = comparable(columns)
    even = 1 / len(columns.values)
    with np.errstate(invalid="ignore", over="ignore"):  # a latent that is no number makes none here either
        x = columns.values - columns.values[:1]  # sums of large numbers would lose what is between them
        plain_mean, mean = x.mean(0), weights @ x
        plain_var = ((x - plain_mean) ** 2).mean(0)
        centred = x - mean
        # All weight may lie on draws that are equal.
        var = np.maximum(weights @ centred**2, rounding(np.abs(columns.values).max(0), columns.rounding) ** 2)
        sd = np.sqrt(var)
        mean_se = np.sqrt(((weights - even)[:, None] ** 2 * centred**2).sum(0)) / sd
        relative = weights[:, None] * (centred**2 / var - 1) - even * ((x - plain_mean) ** 2 / plain_var - 1)
        log_sd_se = 0.5 * np.sqrt((relative**2).sum(0))
        log_sd = 0.5 * np.log(var / plain_var)
    return Shift(columns.names, (mean - plain_mean) / sd, mean_se, log_sd, log_sd_se)
