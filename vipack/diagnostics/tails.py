"""Tails: what lies beyond the 5% and 95% quantiles of a fit's draws, and what ought to lie there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from vipack.diagnostics.bounds import CONFIDENT, EVIDENCE_BAD, FRESH, TAIL_BAD, TAIL_SES, TAIL_SHARP
from vipack.diagnostics.moments import Array, Columns, comparable
from vipack.diagnostics.rounding import rounding
from vipack.display import Readable, listed

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

__all__ = [
    "LEVELS",
    "NOT_CHECKED",
    "Tails",
    "doubt_of_evidence",
    "doubt_of_tails",
    "tails_by_chains",
    "tails_by_weights",
]

LEVELS = (0.05, 0.95)
BESIDE = (LEVELS[0], 4 * LEVELS[0])  # up to where chains begin beside a tail
FAR = (0.005, 0.995)  # where mass further out comes in
NOT_CHECKED = "not checked"
_SIDES = ("lower", "upper")
_AT_ONCE = 2_000_000  # comparisons of values with thresholds


@dataclass(frozen=True, repr=False)
class Tails(Readable):
    """Probabilities of each element's lower and upper tail, in the draws and by a better estimate.

    A tail begins at a 5% quantile: of the draws, or of the better estimate where that shows the larger difference.

    Attributes:
        names: of the P elements, as ``theta[0]``.
        at: where the lower and the upper tail begin, ``(P, 2)``, constrained.
        drawn: the share of the draws in the lower tail (at most ``at[:, 0]``) and in the upper (above ``at[:, 1]``), ``(P, 2)``.
        estimate: the posterior's, by the witness.
        se: standard error of the difference, that of fresh draws included.
        witness: what the estimate comes from.
    """

    names: tuple[str, ...]
    at: Array
    drawn: Array
    estimate: Array
    se: Array
    witness: str

    @property
    def worst(self) -> float:
        """Largest ``|estimate - drawn|``; 0 without elements."""
        return float(np.abs(self.estimate - self.drawn).max(initial=0.0))

    @property
    def off(self) -> str:
        """The tail that is shown to be furthest off by more than 0.02, in words; empty without one."""
        difference = np.abs(self.estimate - self.drawn)
        shown = np.where((difference > TAIL_BAD) & (difference > TAIL_SES * self.se), difference, 0.0)
        if not shown.size or shown.max() == 0:
            return ""
        index, side = _largest(shown)
        wrong = "thin" if self.estimate[index, side] > self.drawn[index, side] else "heavy"
        return (
            f"the {_SIDES[side]} tail of {self.names[index]} is too {wrong}: {self.event(index, side)} is "
            f"{self.drawn[index, side]:.3f} in the draws, {self.estimate[index, side]:.3f} by {self.witness}"
        )

    def unsure(self, num_se: float = CONFIDENT) -> str:
        """The tail that is least surely right to within 0.02 even `num_se` standard errors further out; empty where all are."""
        furthest = np.abs(self.estimate - self.drawn) + num_se * self.se
        furthest = np.where(np.isnan(furthest), np.inf, furthest)
        if not furthest.size or furthest.max() <= TAIL_BAD:
            return ""
        return self.open_at(*_largest(furthest))

    def open_at(self, index: int, side: int) -> str:
        """That a tail is not known closely enough, in words."""
        return f"{self.witness} do not show the {_SIDES[side]} tail of {self.names[index]} closely enough"

    @property
    def slowest(self) -> tuple[int, int] | None:
        """Index of the element and side of the tail that is known least; None where all are known well enough."""
        return None if not self.se.size or self.se.max() <= TAIL_SHARP else _largest(self.se)

    def to_frame(self) -> pd.DataFrame:
        """Two rows an element, with the columns that the attributes are."""
        import pandas as pd

        rows = pd.MultiIndex.from_product([self.names, ["lower", "upper"]], names=["element", "tail"])
        columns = {"at": self.at, "drawn": self.drawn, "estimate": self.estimate, "se": self.se}
        return pd.DataFrame({name: values.reshape(-1) for name, values in columns.items()}, index=rows)

    def __str__(self) -> str:
        return f"tails of 5% of {listed(self.names)} by up to {self.worst:.3f}, by {self.witness}"

    def event(self, index: int, side: int) -> str:
        """A tail in words, as ``P(tau < 0.6)``."""
        return f"P({self.names[index]} {'<>'[side]} {self.at[index, side]:.3g})"


def doubt_of_tails(by_weights: Tails | None, by_chains: Tails | None) -> str:
    """Why the draws' tails are not certified; empty where they are.

    Weights see nothing where no draw is, so that they alone certify no tail. Where they show all tails to be right, chains
    have only to show that no mass flows in from elsewhere: they test at 16% then, by themselves at 1%.

    Args:
        by_weights: of equally weighted draws by their weights; None where these are of no use, or the draws are weighted.
        by_chains: None without chains that moved.
    """
    wrong = [each.off for each in (by_weights, by_chains) if each is not None and each.off]
    if wrong or by_chains is None:
        return wrong[0] if wrong else NOT_CHECKED
    doubt = "" if by_weights is None else by_weights.unsure()
    return doubt or by_chains.unsure(CONFIDENT if by_weights is None else 1.0)


def doubt_of_evidence(se: float, weighted: Tails | None) -> str:
    """Why the evidence is not certified to 0.05 nats; empty where it is.

    Mass that no draw comes near is missing from the weights' mean, and from the weighted draws' tails: where chains find a
    share p of the posterior in a tail that has q of the weighted draws, the evidence is log((1 - q) / (1 - p)) nats off.

    Args:
        se: standard error of the importance estimate, in nats.
        weighted: the weighted draws' tails by short chains.
    """
    if not CONFIDENT * se <= EVIDENCE_BAD:
        return f"its standard error is {se:.2f} nats"
    if weighted is None or weighted.off:
        return NOT_CHECKED if weighted is None else f"the weighted draws miss mass: {weighted.off}"
    # What flows in within some transitions is the least that is missing.
    surely = float(stats.norm.isf(0.01 / max(1, 3 * weighted.se.size)))
    inflow = weighted.estimate - weighted.drawn - surely * weighted.se
    if inflow.size and np.nanmax(inflow) > 0:
        return f"mass flows in where {weighted.event(*_largest(inflow))}"
    with np.errstate(divide="ignore", invalid="ignore"):
        missing = np.log1p(-weighted.drawn) - np.log1p(-weighted.estimate)
        furthest = np.abs(missing) + CONFIDENT * np.hypot(weighted.se / (1 - weighted.estimate), se)
    furthest = np.where(np.isnan(furthest), np.inf, furthest)
    if not furthest.size or furthest.max() <= EVIDENCE_BAD:
        return ""
    return weighted.open_at(*_largest(furthest))


def tails_by_weights(columns: Columns, weights: Array) -> Tails:
    """Of equally weighted draws ``(S, P)``, by their importance weights ``(S,)``, which add up to one."""
    even = 1 / len(weights)

    def estimate(chosen: slice, at: Array, below: Array, drawn: Array) -> tuple[Array, Array]:
        share = np.tensordot(weights, below, 1)
        # The draws judged are those that were weighted; a user's are others, whose error comes on top.
        variance = _variance(weights - even, below, share) + even * drawn * (1 - drawn)
        return share, np.sqrt(variance)

    columns, _ = comparable(columns)
    others = _quantiles(columns.values, weights)
    return _compared(columns, np.full(len(weights), even), others, estimate, "the weights")


def tails_by_chains(columns: Columns, weights: Array, states: Array, lag: int, starts: Array | None = None) -> Tails:
    """Of draws ``(S, P)`` with `weights` ``(S,)``, which add up to one, by the states ``(T, N, P)`` of N short chains.

    Chains that begin at the draws have for a while the draws' share of a tail, whatever the posterior's is. Rates of
    entering and leaving show where they are going: of a chain between two states the long-run share of one is
    ``a / (a + b)``, where a of the chains outside enter it and b of those inside leave. Where few do either, the standard
    error is large. Chains are independent of each other, which gives standard errors.

    Args:
        lag: transitions in which a chain may enter or leave.
        starts: how much each chain counts, ``(N,)``: the share of the posterior's draws that its start stands for; all the
            same by default.
    """
    num_chains = states.shape[1]
    counts = np.full(num_chains, 1 / num_chains) if starts is None else starts

    def estimate(chosen: slice, at: Array, below: Array, drawn: Array) -> tuple[Array, Array]:
        inside = states[:, :, chosen, None] <= at
        before, after = inside[:-lag], inside[lag:]
        # (N, P, 2), of each chain as much as it counts
        entered, left, stayed_in = (
            each.sum(0) * counts[:, None, None] for each in (~before & after, before & ~after, before)
        )
        stayed_out = len(before) * counts[:, None, None] - stayed_in
        with np.errstate(divide="ignore", invalid="ignore"):
            a, b = entered.sum(0) / stayed_out.sum(0), left.sum(0) / stayed_in.sum(0)
            share = a / (a + b)
            change = (entered - a * stayed_out) / entered.sum(0) - (left - b * stayed_in) / left.sum(0)
            variance = (share * (1 - share)) ** 2 * (change**2).sum(0) * num_chains / (num_chains - 1)
        # Nobody came or went: nothing is known.
        known = (entered.sum(0) > 0) & (left.sum(0) > 0)
        share = np.where(known, share, drawn)
        return share, np.where(known, np.sqrt(variance + FRESH**2 * _variance(weights, below, drawn)), np.inf)

    late = states[lag:].reshape(-1, states.shape[2])
    others = _quantiles(late, np.tile(counts, len(states) - lag) / (len(states) - lag))
    return _compared(columns, weights, others, estimate, "short chains")


def strata(values: Array, weights: Array, side: int) -> npt.NDArray[np.int64]:
    """Of draws ``(S,)`` of one element: 0 in the lower (side 0) or upper tail, 1 beside it, 2 elsewhere."""
    order = (values if side == 0 else -values).argsort(kind="stable")
    below = np.empty(len(order))
    below[order] = weights[order].cumsum()
    return np.searchsorted(BESIDE, below)


Estimated = Callable[[slice, Array, Array, Array], tuple[Array, Array]]


def _compared(columns: Columns, weights: Array, others: Array, estimate: Estimated, witness: str) -> Tails:
    """Of draws with `weights`, at their own quantiles and at `others` ``(P, 2)``: wherever more may be wrong."""
    count, size = columns.values.shape
    least = rounding(np.abs(columns.values).max(0, initial=0.0), columns.rounding)[:, None]
    own = [_quantiles(columns.values, weights, levels) for levels in (LEVELS, FAR)]
    candidates = [each + least for each in (*own, others)]
    at, drawn_share, share, se = (np.empty((size, 2)) for _ in range(4))
    step = max(1, _AT_ONCE // count)
    for chosen in (slice(start, start + step) for start in range(0, size, step)):
        tried = []
        for thresholds in candidates:
            below = (columns.values[:, chosen, None] <= thresholds[chosen]).astype(np.float64)
            drawn = np.tensordot(weights, below, 1)
            tried.append((thresholds[chosen], drawn, *estimate(chosen, thresholds[chosen], below, drawn)))
        furthest = [np.abs(other - drawn) + CONFIDENT * error for _, drawn, other, error in tried]
        _, drawn, other, error = tried[1]
        # Further out few chains come and go, so that most often nothing is known; but mass that draws miss flows in.
        furthest[1][~(np.abs(other - drawn) > TAIL_SES * error)] = 0.0
        worst = np.argmax(furthest, axis=0)[None]
        for kept, each in zip((at, drawn_share, share, se), zip(*tried, strict=True), strict=True):
            kept[chosen] = np.take_along_axis(np.stack(each), worst, 0)[0]
    drawn_share[:, 1], share[:, 1] = 1 - drawn_share[:, 1], 1 - share[:, 1]
    return Tails(columns.names, at, drawn_share, share, se, witness)


def _largest(values: Array) -> tuple[int, int]:
    index, side = np.unravel_index(int(values.argmax()), values.shape)
    return int(index), int(side)


def _variance(weights: Array, below: Array, share: Array) -> Array:
    """Of a weighted share ``(P, 2)``, from what ``(S, P, 2)`` is below."""
    return np.tensordot(weights**2, (below - share) ** 2, 1)


def _quantiles(values: Array, weights: Array, levels: tuple[float, float] = LEVELS) -> Array:
    """At both levels ``(P, 2)``, of ``(S, P)`` with weights ``(S,)`` that add up to one."""
    quantiles = np.empty((values.shape[1], 2))
    for i, column in enumerate(values.T):
        order = column.argsort()
        cumulated = weights[order].cumsum()
        quantiles[i] = column[order[np.searchsorted(cumulated, levels).clip(max=len(order) - 1)]]
    return quantiles
