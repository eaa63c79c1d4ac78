"""Annealed importance sampling from a guide: log p(x) of observations where its own weights are too uneven."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vipack.display import Readable
from vipack.errors import UsageError
from vipack.importance import mean_and_se
from vipack.posterior.by_rows import RowEvidence, blocks, evidence_of
from vipack.posterior.observations import Observations
from vipack.posterior.posterior import Posterior
from vipack.posterior.row_densities import RowDensities
from vipack.program import Program, seeded
from vipack.program.running.randomness import check_seed
from vipack.program.running.replay import captured
from vipack.progress import Progress
from vipack.types import Estimate

__all__ = ["Annealing", "Sandwich", "annealed_evidence", "annealed_rows", "sandwich"]

Array = npt.NDArray[np.float64]

_ACCEPTED = 0.75  # share of proposals that step sizes are adapted to
_FIRST_STEP, _LEARNING = 0.2, 0.2
_PILOTS, _SETTLING = 4, 20  # chains that find step sizes, and their transitions at the first temperature
_ROWS_AND_CHAINS = 4_000  # at a time


@dataclass(frozen=True)
class Annealing:
    """How chains go from q(z | x) to p(x, z): along the geometric path ``q^(1-b) p^b``, by Hamiltonian Monte Carlo.

    Attributes:
        num_chains: of each observation.
        num_temperatures: steps of b from 0 to 1.
        num_leapfrog: of each transition; one transition a temperature.

    Source: Neal (2001), Annealed importance sampling; Wu, Burda, Salakhutdinov, Grosse (2017), arXiv:1611.04273.
    """

    num_chains: int = 16
    num_temperatures: int = 100
    num_leapfrog: int = 3

    def __post_init__(self) -> None:
        for name in ("num_chains", "num_temperatures", "num_leapfrog"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"annealing: {name} must be a positive integer, found {value!r}.")


@dataclass(frozen=True, repr=False)
class Sandwich(Readable):
    """Bounds of log p(x) from both sides, of observations that the model simulated, whose exact latents are known.

    Attributes:
        lower: by chains from q to the posterior, ``(N,)`` in nats.
        upper: by chains from an exact draw of the posterior back to q, ``(N,)`` in nats.

    Source: Grosse, Ghahramani, Adams (2015), arXiv:1511.02543 (bidirectional Monte Carlo).
    """

    lower: Array
    upper: Array

    @property
    def gap(self) -> Estimate:
        """Mean of upper less lower, in nats an observation: what the lower bound may lack, at most, in expectation."""
        return mean_and_se(self.upper - self.lower)

    def __str__(self) -> str:
        lower, upper = float(self.lower.mean()), float(self.upper.mean())
        return (
            f"{lower:.3f} <= log p(x) <= {upper:.3f} nats an observation, gap {self.gap} ({len(self.lower)} simulated)"
        )


def annealed_evidence(
    program: Program, observations: Observations, how: Annealing, *, seed: int, progress: Progress
) -> RowEvidence:
    """log p(x) of each observation by annealed importance sampling from its q(z | x): a lower bound in expectation.

    Raises:
        UsageError: a latent does not belong to an observation, or is not on all of R^d.
        GuideError: the guide cannot be called with some of the observations.
    """
    check_seed(seed)
    progress.begin("annealed importance sampling", observations.num_rows)
    figures: list[tuple[Array, ...]] = []
    most = max(1, _ROWS_AND_CHAINS // how.num_chains)
    for start, stop, posterior in blocks(program, observations, "log_evidence", most=most):
        with seeded((seed + start) % 2**32):
            path = _Path(posterior, how)
            weights = path.forward(posterior.guide_draws(how.num_chains, seed=(seed + start) % 2**32))
        figures.append(evidence_of(weights))
        progress(stop - start)
    progress.close()
    rows, row_se, gains, ess = (np.concatenate(column, -1) for column in zip(*figures, strict=True))
    se = float(np.sqrt((row_se**2).sum()))
    return RowEvidence(float(rows.sum()), se, rows, row_se, gains, ess, np.array([]), how.num_chains, annealed=True)


def annealed_rows(posterior: Posterior, how: Annealing, *, seed: int) -> Array:
    """log p(x) of each observation of `posterior` ``(N,)``, all at once; see :func:`annealed_evidence`."""
    with seeded(seed):
        return evidence_of(_Path(posterior, how).forward(posterior.guide_draws(how.num_chains, seed=seed)))[0]


def sandwich(
    program: Program, simulated: list[tuple[Any, dict[str, Tensor]]], how: Annealing, *, seed: int, progress: Progress
) -> Sandwich:
    """Bounds of log p(x) of simulated observations.

    Args:
        simulated: pairs of a call on observations and the latents ``(N, *event shape)`` that they were simulated from.

    Raises:
        UsageError: as of :func:`annealed_evidence`.
    """
    lower, upper = [], []
    progress.begin("annealed importance sampling, there and back", len(simulated))
    for index, (call, latents) in enumerate(simulated):
        own = (seed + index) % 2**32
        posterior = Posterior(program, call, scaled=False)
        with seeded(own):
            path = _Path(posterior, how)
            forth = path.forward(posterior.guide_draws(how.num_chains, seed=own))
            back = path.backward({n: v.expand(how.num_chains, *v.shape) for n, v in latents.items()})
        lower.append(evidence_of(forth)[0])
        upper.append(-evidence_of(-back)[0])
        progress(1)
    progress.close()
    return Sandwich(np.concatenate(lower), np.concatenate(upper))


class _Path:
    """Chains of the observations of one posterior, side by side."""

    def __init__(self, posterior: Posterior, how: Annealing) -> None:
        self._densities_of, self._posterior, self._how = RowDensities(posterior), posterior, how
        self._flat = self._densities_of.flat
        self._betas = torch.linspace(0.0, 1.0, how.num_temperatures + 1, dtype=torch.float64).tolist()
        self._steps: list[Tensor] | None = None
        self._graphs: dict[int, Callable[..., Any]] = {}

    def forward(self, latents: dict[str, Tensor]) -> Array:
        """Log weights ``(C, N)`` in nats of chains from q to the posterior, from draws ``(C, *site shape)`` of q."""
        z = self._flat(latents)
        if self._steps is None:
            pilots = self._flat(self._posterior.guide_draws(_PILOTS, seed=int(torch.randint(2**31, ()))))
            self._steps = self._adapted(pilots)
        state = (z, *self._densities(z))
        weights = torch.zeros(state[1].shape, dtype=torch.float64)
        for (before, beta), step in zip(itertools.pairwise(self._betas), self._steps, strict=True):
            weights += (beta - before) * (state[2] - state[1]).double()
            if beta < 1.0:
                state, _ = self._transition(state, beta, step)
        return weights.numpy()

    def backward(self, latents: dict[str, Tensor]) -> Array:
        """Log weights ``(C, N)`` in nats of chains from exact draws of the posterior back to q; after :meth:`forward`."""
        z = self._flat(latents)
        assert self._steps is not None
        state = (z, *self._densities(z))
        weights = torch.zeros(state[1].shape, dtype=torch.float64)
        for (before, beta), step in reversed(list(zip(itertools.pairwise(self._betas), self._steps, strict=True))):
            if beta < 1.0:
                state, _ = self._transition(state, beta, step)
            weights += (beta - before) * (state[2] - state[1]).double()
        return weights.numpy()

    def _adapted(self, z: Tensor) -> list[Tensor]:
        """Step sizes ``(N,)`` of each temperature, found by chains whose weights are not used.

        A step size that follows the chains it moves depends on where they are, which takes their weights off by .04 nats.
        """
        state = (z, *self._densities(z))
        step = torch.full((z.shape[1],), _FIRST_STEP)
        steps: list[Tensor] = []
        for beta in self._betas[1:]:
            for _ in range(_SETTLING if not steps else 1):
                state, accepted = self._transition(state, beta, step)
                step = step * torch.exp(_LEARNING * (accepted - _ACCEPTED))
            steps.append(step)
        return steps

    def _transition(self, state: Any, beta: float, step: Tensor) -> tuple[Any, Tensor]:
        """One of Hamiltonian Monte Carlo at `beta` with steps ``(N,)``, and the share of proposals accepted ``(N,)``."""
        z, log_q, log_p, slopes_q, slopes_p = state
        momentum = torch.randn_like(z)
        new, size = z, step[:, None]
        energy = (1 - beta) * log_q + beta * log_p - 0.5 * momentum.pow(2).sum(-1)
        slope = (1 - beta) * slopes_q + beta * slopes_p
        for _ in range(self._how.num_leapfrog):
            momentum = momentum + 0.5 * size * slope
            new = new + size * momentum
            new_q, new_p, new_slopes_q, new_slopes_p = self._densities(new)
            slope = (1 - beta) * new_slopes_q + beta * new_slopes_p
            momentum = momentum + 0.5 * size * slope
        change = (1 - beta) * new_q + beta * new_p - 0.5 * momentum.pow(2).sum(-1) - energy
        accepted = change.nan_to_num(nan=-torch.inf).exp().clamp(max=1.0)
        moved = torch.rand_like(accepted) < accepted
        proposal = (new, new_q, new_p, new_slopes_q, new_slopes_p)
        kept = tuple(
            torch.where(moved if a.dim() == 2 else moved[..., None], a, b) for a, b in zip(proposal, state, strict=True)
        )
        return kept, accepted.mean(0)

    def _densities(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """log q and log p(x, z) ``(C, N)`` in nats, and their slopes ``(C, N, D)``."""
        with self._posterior.running():
            if len(z) not in self._graphs:
                self._graphs[len(z)] = self._captured(z)
            log_q, log_p, slopes_q, slopes_p = self._graphs[len(z)](z)
        return log_q, log_p, slopes_q, slopes_p

    def _captured(self, z: Tensor) -> Callable[..., Any]:
        def one(chain: Tensor) -> tuple[Tensor, ...]:
            results = []
            for density in (self._densities_of.log_q, self._densities_of.log_p):
                slope, rows = torch.func.grad(lambda each, f=density: _with_rows(f(each)), has_aux=True)(chain)
                results.append((rows, slope))
            (log_q, slopes_q), (log_p, slopes_p) = results
            return log_q, log_p, slopes_q, slopes_p

        def many(chains: Tensor) -> tuple[Tensor, ...]:
            results: tuple[Tensor, ...] = torch.vmap(one, randomness="different")(chains)
            return results

        def in_turn(chains: Tensor) -> tuple[Tensor, ...]:
            return tuple(torch.stack(values) for values in zip(*(one(chain) for chain in chains), strict=True))

        for prepare in (functools.partial(captured, vectorized=True), _tried):
            try:
                return prepare(many, z)
            except Exception:  # programs are refused with errors of many kinds; one chain after another works
                continue
        return in_turn


def _with_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    return rows.sum(), rows


def _tried(function: Callable[..., Any], z: Tensor) -> Callable[..., Any]:
    function(z)
    return function
