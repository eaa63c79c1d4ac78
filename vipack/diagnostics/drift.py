"""Short chains started from a fit's own draws: where those are right, the chains do not drift."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vipack.diagnostics.chains import Chains, run_chains, whitening
from vipack.diagnostics.density import ManyPoints
from vipack.diagnostics.moments import Array, Columns, Shift, columns_of, comparable, weighted_moments
from vipack.diagnostics.rounding import rounding
from vipack.diagnostics.tails import Tails, strata, tails_by_chains
from vipack.display import Readable
from vipack.progress import Progress

__all__ = ["Drift", "find_drift"]

MOST_LATENTS = 1_000
_CHAINS = 1_600
_FEWEST_CHAINS = 50
_MOST_NUMBERS = 300_000_000  # produced by a whole check: some seconds' worth, as are
_MOST_OPERATIONS = 200_000
_EVALUATIONS = 3  # of log p(x, z), of a transition
_MOST_TRANSITIONS, _TRANSITIONS, _FEWEST_TRANSITIONS = 40, 20, 6


@dataclass(frozen=True, repr=False)
class Drift(Readable):
    """Where short chains that leave the posterior as it is went from the fit's draws.

    Attributes:
        draws: what the guide's draws must move by to have the chains' moments.
        weighted: the same of the weighted draws; None where the weights are of no use.
        num_chains, num_transitions: after warm-up.
        acceptance, step_size: of the chains; the step is in sds of the fit.
        tails, weighted_tails: of the draws and of the weighted draws, by the chains; None without.
        stuck: the chains hardly moved, so that they say nothing.
    """

    draws: Shift
    weighted: Shift | None
    num_chains: int
    num_transitions: int
    acceptance: float
    step_size: float
    seconds: float
    tails: Tails | None = None
    weighted_tails: Tails | None = None

    def __str__(self) -> str:
        told = f"{self.num_chains} short chains of {self.num_transitions} transitions, acceptance {self.acceptance:.0%}"
        if self.stuck:
            return f"{told}: they hardly moved, so that they say nothing"
        weighted = "" if self.weighted is None else f"; from the weighted draws, {self.weighted}"
        return f"{told}: from the fit's draws they move {self.draws}{weighted}"

    @property
    def stuck(self) -> bool:
        """Whether the chains hardly moved, so that their staying means nothing."""
        return self.acceptance < 0.4 or self.step_size < 0.05


def find_drift(
    density: ManyPoints,
    u: Tensor,
    columns: Columns,
    weights: Array | None,
    *,
    seed: int,
    progress: Progress | None = None,
) -> tuple[Drift | None, str]:
    """Run the chains from some of the draws `u` ``(S, D)``, and compare their moments with those of the draws.

    Args:
        columns: the draws' constrained values, ``(S, P)``.
        weights: importance weights ``(S,)`` that add up to one, where they are of use: then the chains start from
            weighted draws, and are compared with them too.

    Returns:
        The drift, or None, with what was not looked at, and why.

    Source: Wang, Kasprzak, Huggins (2023), A targeted accuracy diagnostic for variational approximations, AISTATS;
    here the chains are HMC preconditioned by the fit, and the estimates averages over their second half.
    """
    started = time.perf_counter()
    num_chains, transitions = _affordable(density)
    if num_chains < _FEWEST_CHAINS or transitions < _FEWEST_TRANSITIONS:
        return None, (
            f"one evaluation of the model takes {density.operations:,} operations on {density.numbers:,} numbers, "
            "too many for chains of seconds"
        )
    generator = torch.Generator().manual_seed(seed)
    share = None if weights is None else torch.from_numpy(weights).to(u.device)
    warm_up = max(3, transitions // 3)
    progress = Progress() if progress is None else progress
    progress.begin("short chains", transitions)
    white = whitening(u, share)

    def run(starts: Tensor, step_size: float | None = None) -> Chains:
        return run_chains(
            density,
            u[starts],
            white,
            warm_up=warm_up,
            transitions=transitions - warm_up,
            generator=generator,
            progress=progress,
            step_size=step_size,
        )

    starts = _starts(share, len(u), num_chains, generator)
    chains = run(starts)
    states = _constrained(density, chains, columns.names)
    lag = len(states) // 2
    values = states[lag:]
    reached = np.isfinite(values).all(axis=0).all(axis=0)
    drawn = np.isfinite(columns.values).all(axis=0)
    without = columns.computed & ~(reached & drawn)
    lost = [columns.names[i] for i in np.flatnonzero(without & drawn)]
    columns = columns.subset(columns=~without)
    even = np.full(len(columns.values), 1 / len(columns.values))
    varying, _ = comparable(columns)
    same = [columns.names.index(name) for name in varying.names]
    moving = states[:, :, ~without][:, :, same]
    judged = even if weights is None else weights
    tails = tails_by_chains(varying, judged, moving, lag)
    counts = np.full(num_chains, 1 / num_chains)
    slow = tails.slowest
    spent = _EVALUATIONS * density.numbers * num_chains * transitions
    stratum = strata(varying.values[:, slow[0]], judged, slow[1]) if slow is not None else np.zeros(0, dtype=np.int64)
    if slow is not None and chains.acceptance > 0.4 and spent <= _MOST_NUMBERS / 2 and len(set(stratum)) == 3:
        again = _stratified(stratum, judged, num_chains, generator)
        progress.begin(f"short chains in a tail of {varying.names[slow[0]]}", transitions)
        more = run(again, chains.step_size)
        more_states = _constrained(density, more, columns.names)[:, :, ~without][:, :, same]
        moving = np.concatenate([moving, more_states], axis=1)
        both = stratum[torch.cat([starts, again]).numpy()]
        shares = np.bincount(stratum, judged, 3)
        counts = (shares / np.bincount(both, minlength=3))[both]
        tails = tails_by_chains(varying, judged, moving, lag, counts)
    weighted_tails = None if weights is None else tails
    if weights is not None:
        tails = tails_by_chains(varying, even, moving, lag, counts)
    chained = _Chained.of(values[:, :, ~without], columns.values[0])
    drift = Drift(
        _shift(columns, even, chained),
        None if weights is None else _shift(columns, weights, chained),
        num_chains,
        transitions - warm_up,
        chains.acceptance,
        chains.step_size,
        time.perf_counter() - started,
        tails,
        weighted_tails,
    )
    return drift, f"{', '.join(lost[:3])} infinite or NaN at some states, and left out" if lost else ""


def _affordable(density: ManyPoints) -> tuple[int, int]:
    """How many chains of how many transitions can be had in some seconds."""
    total = _MOST_NUMBERS // max(1, _EVALUATIONS * density.numbers)  # transitions of all chains together
    num_chains = min(_CHAINS, total // _TRANSITIONS)
    per_chain = total // max(1, num_chains)
    return num_chains, min(_MOST_TRANSITIONS, per_chain, _MOST_OPERATIONS // max(1, _EVALUATIONS * density.operations))


def _starts(share: Tensor | None, count: int, num_chains: int, generator: torch.Generator) -> Tensor:
    if share is None:
        return torch.randperm(count, generator=generator)[:num_chains]
    # Systematic resampling: fewer copies of one draw than independent ones would make.
    share = share.cpu()
    ladder = (torch.arange(num_chains, dtype=torch.float64) + torch.rand((), generator=generator)) / num_chains
    order = torch.randperm(count, generator=generator)
    indices = torch.searchsorted(share[order].cumsum(0), ladder.double()).clamp(max=count - 1)
    return order[indices]


def _stratified(stratum: npt.NDArray[np.int64], weights: Array, num_chains: int, generator: torch.Generator) -> Tensor:
    """Indices of draws in a tail and beside it, half of the chains each, by their weights."""
    starts = []
    for chosen in (0, 1):
        inside = torch.from_numpy(np.flatnonzero(stratum == chosen))
        share = torch.from_numpy(weights)[inside]
        starts.append(inside[_starts(share / share.sum(), len(inside), num_chains // 2, generator)])
    return torch.cat(starts)


def _constrained(density: ManyPoints, chains: Chains, names: tuple[str, ...]) -> Array:
    """Values ``(T, N, P)`` of the states, for the P elements of these names."""
    kept = chains.states
    flat = kept.reshape(-1, kept.shape[-1])
    with torch.no_grad():
        elements = columns_of(torch.vmap(density.joint.constrain, randomness="different")(flat))
    column = {name: i for i, name in enumerate(elements.names)}
    return elements.values[:, [column[name] for name in names]].reshape(*kept.shape[:2], -1)


@dataclass(frozen=True)
class _Chained:
    """Moments of the chains' values less a reference, each ``(P,)``, with the variances of their estimates.

    Chains are independent of each other, so that the scatter of their averages gives the standard errors.
    """

    mean: Array
    mean_var: Array
    var: Array
    var_var: Array
    size: Array

    @staticmethod
    def of(values: Array, reference: Array) -> _Chained:
        """Of ``(T, N, P)``, which is overwritten."""
        num_chains = values.shape[1]
        size = np.abs(values).max((0, 1))
        with np.errstate(invalid="ignore", over="ignore"):  # a latent that is no number makes none here either
            values -= reference  # sums of large numbers would lose what is between them
            mean = values.mean((0, 1))
            mean_var = values.mean(0).var(0, ddof=1) / num_chains
            values -= mean
            np.square(values, out=values)
            return _Chained(mean, mean_var, values.mean((0, 1)), values.mean(0).var(0, ddof=1) / num_chains, size)


def _shift(columns: Columns, weights: Array, chained: _Chained) -> Shift:
    """From draws with `weights` to what the chains found; what is constant and the same in both is left out."""
    with np.errstate(invalid="ignore", over="ignore"):
        mean, centred, var, mean_var = weighted_moments(columns.values - columns.values[0], weights)
        var_var = (weights[:, None] ** 2 * (centred**2 - var) ** 2).sum(0)
        least = rounding(np.maximum(np.abs(columns.values).max(0), chained.size), columns.rounding)
        still = (np.sqrt(var) <= least) & (np.sqrt(chained.var) <= least) & (np.abs(mean - chained.mean) <= least)
        # One of the two may be constant where the other is not: a guide that has collapsed there.
        var, reached = (np.maximum(each, least**2)[~still] for each in (var, chained.var))
        sd = np.sqrt(reached)
        return Shift(
            tuple(name for name, out in zip(columns.names, still, strict=True) if not out),
            (chained.mean - mean)[~still] / sd,
            np.sqrt(chained.mean_var + mean_var)[~still] / sd,
            0.5 * np.log(reached / var),
            0.5 * np.sqrt(chained.var_var[~still] / reached**2 + var_var[~still] / var**2),
        )
