"""Short chains started from a fit's own draws: where those are right, the chains do not drift."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vipack.diagnostics.chains import Chains, run_chains
from vipack.diagnostics.density import ManyPoints
from vipack.diagnostics.moments import Array, Columns, Shift, columns_of

__all__ = ["Drift", "Whitening", "find_drift", "whitening"]

MOST_LATENTS = 1_000
_CHAINS = 1_600
_FEWEST_CHAINS = 50
_MOST_NUMBERS = 300_000_000  # produced by a whole check: some seconds' worth, as are
_MOST_OPERATIONS = 200_000
_EVALUATIONS = 3  # of log p(x, z), of a transition
_MOST_TRANSITIONS, _TRANSITIONS, _FEWEST_TRANSITIONS = 40, 20, 6


@dataclass(frozen=True)
class Drift:
    """Where short chains that leave the posterior as it is went from the fit's draws.

    Attributes:
        draws: what the guide's draws must move by to have the chains' moments.
        weighted: the same of the weighted draws; None where the weights are of no use.
        num_chains, num_transitions: after warm-up.
        acceptance, step_size: of the chains; the step is in sds of the fit.
        stuck: the chains hardly moved, so that they say nothing.
    """

    draws: Shift
    weighted: Shift | None
    num_chains: int
    num_transitions: int
    acceptance: float
    step_size: float
    seconds: float

    @property
    def stuck(self) -> bool:
        """Whether the chains hardly moved, so that their staying means nothing."""
        return self.acceptance < 0.4 or self.step_size < 0.05


@dataclass(frozen=True)
class Whitening:
    """Mean and Cholesky factor of the covariance of draws on R^D."""

    loc: Tensor
    scale_tril: Tensor


def whitening(u: Tensor, weights: Tensor | None = None) -> Whitening:
    """Of draws ``(S, D)``, weighted if `weights` ``(S,)`` add up to one; shrunk towards the diagonal where S is small."""
    share = torch.full((len(u),), 1 / len(u), dtype=torch.float64, device=u.device) if weights is None else weights
    x = u.double()
    loc = share @ x
    centred = x - loc
    cov = (centred * share[:, None]).T @ centred
    effective = float(1 / (share**2).sum())
    keep = effective / (effective + 2 * u.shape[1])
    diagonal = cov.diagonal().clamp(min=1e-20)
    cov = keep * cov + (1 - keep) * torch.diag(diagonal)
    scale = diagonal.sqrt()
    correlation = cov / scale[:, None] / scale + 1e-6 * torch.eye(len(cov), dtype=cov.dtype, device=cov.device)
    tril = scale[:, None] * torch.linalg.cholesky(correlation)
    return Whitening(loc.to(u.dtype), tril.to(u.dtype))


def find_drift(
    density: ManyPoints, u: Tensor, columns: Columns, weights: Array | None, *, seed: int
) -> tuple[Drift | None, str]:
    """Run the chains from some of the draws `u` ``(S, D)``, and compare their moments with those of the draws.

    Args:
        columns: the draws' constrained values, ``(S, P)``.
        weights: importance weights ``(S,)`` that add up to one, where they are of use: then the chains start from
            weighted draws, and are held against them too.

    Returns:
        The drift, or None with the reason for which it was not looked for.

    Source: Wang, Kasprzak, Huggins (2023), A targeted accuracy diagnostic for variational approximations, AISTATS;
    here the chains are HMC preconditioned by the fit, and the estimates averages over their second half.
    """
    started = time.perf_counter()
    affordable = _MOST_NUMBERS // max(1, _EVALUATIONS * density.numbers)  # transitions of all chains together
    num_chains = min(_CHAINS, affordable // _TRANSITIONS)
    transitions = min(
        _MOST_TRANSITIONS,
        affordable // max(1, num_chains),
        _MOST_OPERATIONS // max(1, _EVALUATIONS * density.operations),
    )
    if num_chains < _FEWEST_CHAINS or transitions < _FEWEST_TRANSITIONS:
        return None, (
            f"one evaluation of the model takes {density.operations:,} operations on {density.numbers:,} numbers, "
            "too many for chains of seconds"
        )
    generator = torch.Generator().manual_seed(seed)
    share = None if weights is None else torch.from_numpy(weights).to(u.device)
    chosen = _starts(share, len(u), num_chains, generator)
    white = whitening(u, share)
    warm_up = max(3, transitions // 3)
    chains = run_chains(
        density,
        u[chosen],
        white.loc,
        white.scale_tril,
        warm_up=warm_up,
        transitions=transitions - warm_up,
        generator=generator,
    )
    values = _constrained(density, chains)
    even = np.full(len(columns.values), 1 / len(columns.values))
    names, found = columns.names, values
    drift = Drift(
        _shift(names, columns.values, even, found),
        None if weights is None else _shift(names, columns.values, weights, found),
        num_chains,
        transitions - warm_up,
        chains.acceptance,
        chains.step_size,
        time.perf_counter() - started,
    )
    return drift, ""


def _starts(share: Tensor | None, count: int, num_chains: int, generator: torch.Generator) -> Tensor:
    if share is None:
        return torch.randperm(count, generator=generator)[:num_chains]
    # Systematic resampling: fewer copies of one draw than independent ones would make.
    share = share.cpu()
    ladder = (torch.arange(num_chains, dtype=torch.float64) + torch.rand((), generator=generator)) / num_chains
    order = torch.randperm(count, generator=generator)
    places = torch.searchsorted(share[order].cumsum(0), ladder.double()).clamp(max=count - 1)
    return order[places]


def _constrained(density: ManyPoints, chains: Chains) -> Array:
    """Values ``(T, N, P)`` of the second half of the states."""
    kept = chains.states[len(chains.states) // 2 :]
    flat = kept.reshape(-1, kept.shape[-1])
    with torch.no_grad():
        named = torch.vmap(density.joint.constrain, randomness="different")(flat)
    return columns_of(named).values.reshape(*kept.shape[:2], -1)


def _shift(names: tuple[str, ...], draws: Array, weights: Array, found: Array) -> Shift:
    """From draws ``(S, P)`` with `weights` to the chains' values ``(T, N, P)``.

    Chains are independent of each other, so that the scatter of their averages gives the standard errors.
    """
    num_chains = found.shape[1]
    mean = found.mean((0, 1))
    squares = (found - mean) ** 2
    var = squares.mean((0, 1))
    chain_mean_var = found.mean(0).var(0, ddof=1) / num_chains
    chain_var_var = squares.mean(0).var(0, ddof=1) / num_chains
    draws_mean = weights @ draws
    centred = draws - draws_mean
    draws_var = weights @ centred**2
    draws_mean_var = (weights[:, None] ** 2 * centred**2).sum(0)
    draws_var_var = (weights[:, None] ** 2 * (centred**2 - draws_var) ** 2).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        sd = np.sqrt(var)
        shift = (mean - draws_mean) / sd
        shift_se = np.sqrt(chain_mean_var + draws_mean_var) / sd
        log_sd = 0.5 * np.log(var / draws_var)
        log_sd_se = 0.5 * np.sqrt(chain_var_var / var**2 + draws_var_var / draws_var**2)
    # Of what is constant, such as the observed part of a partly observed site, rounding makes a tiny variance; of what a
    # mask leaves out (NaN) there is none.
    vary = (np.ptp(found, axis=(0, 1)) > 0) | (np.ptp(draws, axis=0) > 0)
    kept = tuple(name for name, v in zip(names, vary, strict=True) if v)
    return Shift(kept, shift[vary], shift_se[vary], log_sd[vary], log_sd_se[vary])
