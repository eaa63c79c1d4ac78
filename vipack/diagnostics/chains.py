"""Many short Hamiltonian Monte Carlo chains side by side, in coordinates whitened by a fit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vipack.diagnostics.density import ManyPoints
from vipack.progress import Progress

__all__ = ["Chains", "Whitening", "run_chains", "whitening"]

_TARGET = 0.8  # acceptance
_LENGTH = 1.6  # of a trajectory: a quarter of the period of a standard normal, after which a draw is a new one
_MOST_LEAPS = 10
_SMALL_STEPS, _SMALLEST = 0.33, 0.05  # share of transitions with smaller steps, down to this factor


@dataclass(frozen=True)
class Chains:
    """What N chains did after warm-up.

    Attributes:
        states: ``(T, N, D)``.
        acceptance: mean probability of accepting a trajectory.
        step_size: in sds of the fit.
    """

    states: Tensor
    acceptance: float
    step_size: float


@dataclass(frozen=True)
class Whitening:
    """Mean and Cholesky factor of the covariance of draws on R^D, and the coordinates ``z`` in which both are standard."""

    loc: Tensor
    scale_tril: Tensor

    def z_of(self, u: Tensor) -> Tensor:
        """Of points ``(N, D)``."""
        z: Tensor = torch.linalg.solve_triangular(self.scale_tril, (u - self.loc).T, upper=False).T
        return z

    def u_of(self, z: Tensor) -> Tensor:
        """The inverse of :meth:`z_of`."""
        return self.loc + z @ self.scale_tril.T


def whitening(u: Tensor, weights: Tensor | None = None) -> Whitening:
    """Of draws ``(S, D)``, weighted if `weights` ``(S,)`` add up to one; shrunk towards the diagonal where S is small."""
    share = torch.full((len(u),), 1 / len(u), dtype=torch.float64, device=u.device) if weights is None else weights
    x = u.double()
    loc = share @ x
    centred = x - loc
    cov = (centred * share[:, None]).T @ centred
    effective = float(1 / (share**2).sum())
    keep = effective / (effective + 2 * u.shape[1])
    number = torch.finfo(u.dtype)
    # Below, a spread is none; a coordinate without any must still have a scale that can be divided by.
    least = (number.eps * loc.abs()).clamp(min=number.tiny**0.5)
    diagonal = torch.maximum(cov.diagonal(), least**2)
    cov = keep * cov + (1 - keep) * torch.diag(diagonal)
    scale = diagonal.sqrt()
    correlation = cov / scale[:, None] / scale + 1e-6 * torch.eye(len(cov), dtype=cov.dtype, device=cov.device)
    tril = scale[:, None] * torch.linalg.cholesky(correlation)
    return Whitening(loc.to(u.dtype), tril.to(u.dtype))


def run_chains(
    density: ManyPoints,
    start: Tensor,
    white: Whitening,
    *,
    warm_up: int,
    transitions: int,
    generator: torch.Generator,
    progress: Progress,
    step_size: float | None = None,
) -> Chains:
    """Move N chains from `start` ``(N, D)``, with momenta that suit the normal that `white` describes.

    The step size is adapted during warm-up to the acceptance over all chains, unless it is given, and jittered, so that no
    trajectory comes back to where it began. Source: Neal (2011), MCMC using Hamiltonian dynamics, section 3.2.
    """

    def evaluate(z: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = density(white.u_of(z))
        return value, gradient @ white.scale_tril

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, dtype=start.dtype, generator=generator).to(start.device)

    z = white.z_of(start)
    log_p, gradient = evaluate(z)
    log_step = torch.tensor(0.2).log() if density.dim > 200 else torch.tensor(density.dim**-0.25).log()
    if step_size is not None:
        log_step = torch.tensor(step_size).log()
    states, accepted = [], []
    for t in range(warm_up + transitions):
        size = float(log_step.exp()) * float(0.8 + 0.4 * uniform())
        leaps = max(1, min(_MOST_LEAPS, round(_LENGTH / size)))
        # Some chains take smaller steps, which carry them into necks where the others reject.
        small = uniform(len(z), 1) < _SMALL_STEPS
        step = size * torch.where(small, _SMALLEST ** uniform(len(z), 1), 1.0)
        momentum = torch.randn(z.shape, dtype=z.dtype, generator=generator).to(z.device)
        new, new_log_p, new_gradient, p = z, log_p, gradient, momentum
        for _ in range(leaps):
            progress(0)
            p = p + 0.5 * step * new_gradient
            new = new + step * p
            new_log_p, new_gradient = evaluate(new)
            p = p + 0.5 * step * new_gradient
        log_ratio = new_log_p - log_p - 0.5 * (p**2).sum(-1) + 0.5 * (momentum**2).sum(-1)
        log_ratio = torch.where(log_ratio.isnan(), -torch.inf, log_ratio)
        take = uniform(len(z)).log() < log_ratio
        z = torch.where(take[:, None], new, z)
        log_p = torch.where(take, new_log_p, log_p)
        gradient = torch.where(take[:, None], new_gradient, gradient)
        progress()
        rate = float(log_ratio[~small[:, 0]].clamp(max=0).exp().mean())
        if t < warm_up and step_size is None:
            log_step = log_step + 2 * (rate - _TARGET) / (t + 1) ** 0.5
            log_step = log_step.clamp(max=0.6)
        if t >= warm_up:
            states.append(white.u_of(z))
            accepted.append(rate)
    return Chains(torch.stack(states), sum(accepted) / len(accepted), float(log_step.exp()))
