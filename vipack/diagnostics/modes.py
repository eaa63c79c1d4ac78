"""A search for posterior mass that a fit's draws miss: modes found from many starts, and weighed."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vipack.diagnostics.chains import Whitening
from vipack.diagnostics.density import ManyPoints
from vipack.display import Readable
from vipack.progress import Progress

__all__ = ["MissedMode", "ModeSearch", "search_modes"]

MOST_LATENTS = 100
_STARTS = 32
_MOST_STEPS, _FEWEST_STEPS = 150, 40
_WORK = 300_000  # operations of the whole climb
_NUMBERS = 1_500_000_000  # that it may produce: a few seconds' worth
_PATH_LENGTH = 75.0  # sds of the fit that a climb's steps add up to, twice over
_OVERDISPERSED = 6.0  # sds of the fit, from which half of the starts climb
_APART = 0.5  # sds of the fit, by which different modes differ
_MOST_MODES = 6
_LEFT = 1e-3  # nats to be climbed yet, below which a point is a mode
_PROPOSALS = 1_000
_SHARE = 0.02  # of the mass, that a missed region must hold to matter
_COVERED = 0.2  # of the draws that a region ought to hold, below which it counts as missed


@dataclass(frozen=True, repr=False)
class MissedMode(Readable):
    """A region around a mode that the draws hardly visit.

    Attributes:
        at: the mode's constrained latents, by site.
        share: of the posterior's mass, that the region is estimated to hold at least.
        drawn: of the draws, that lie in it.
        log_joint: at the mode, in nats.
    """

    at: dict[str, Tensor]
    share: float
    drawn: float
    log_joint: float

    def __str__(self) -> str:
        where = ", ".join(f"{name} = {_short(value)}" for name, value in list(self.at.items())[:4])
        where += ", ..." if len(self.at) > 4 else ""
        return f"another mode at {where}, whose surroundings hold about {self.share:.0%} of the mass and {self.drawn:.1%} of the draws"


@dataclass(frozen=True, repr=False)
class ModeSearch(Readable):
    """What climbing from many starts found.

    Attributes:
        num_modes: distinct modes.
        missed: those that the draws hardly visit, the heaviest first.
    """

    num_modes: int
    missed: tuple[MissedMode, ...]
    num_starts: int
    seconds: float

    def __str__(self) -> str:
        modes = f"{self.num_modes} mode" + "s" * (self.num_modes != 1)
        missed = "".join(f"\n  {mode}" for mode in self.missed)
        return f"{self.num_starts} climbs came to {modes}, of which the draws miss {len(self.missed) or 'none'}{missed}"


def search_modes(
    density: ManyPoints,
    u: Tensor,
    weights: Tensor,
    log_evidence: float,
    white: Whitening,
    *,
    seed: int,
    progress: Progress | None = None,
) -> tuple[ModeSearch | None, str]:
    """Climb to modes, and hold the mass around each against the draws there.

    Starts are the model's usual ones, uniform in (-2, 2) on R^D, and points spread around the fit several times as
    wide as its draws. The mass of a mode's surroundings, the ellipsoid that holds half of its Laplace approximation, is
    estimated by importance sampling from that approximation.

    Args:
        u: draws ``(S, D)`` with `weights` ``(S,)`` that add up to one.
        log_evidence: that the weights estimate, in nats.

    Returns:
        The search, or None with the reason for which there was none.
    """
    started = time.perf_counter()
    steps = min(_MOST_STEPS, _WORK // max(1, density.operations))
    # A model of many rows is dear in numbers: it gets fewer steps, but none so few that modes stay out of reach.
    steps = min(steps, max(_FEWEST_STEPS, _NUMBERS // max(1, _STARTS * density.numbers)))
    if density.dim > MOST_LATENTS:
        return None, f"{density.dim:,} latent numbers are too many to search for other modes"
    if steps < _FEWEST_STEPS:
        return None, f"one evaluation of the model takes {density.operations:,} operations, too many for a search"
    generator = torch.Generator().manual_seed(seed)
    half = (_STARTS // 2, density.dim)
    usual = (torch.rand(half, dtype=u.dtype, generator=generator) * 4 - 2).to(u.device)
    radii = _OVERDISPERSED * torch.rand(half[0], 1, dtype=u.dtype, generator=generator)
    away = (radii * torch.randn(half, dtype=u.dtype, generator=generator)).to(u.device)
    wide = white.u_of(away)
    progress = Progress() if progress is None else progress
    progress.begin("other modes", steps + _MOST_MODES)
    ends = _climb(density, torch.cat([usual, wide]), white, steps, progress)
    num_modes, missed = 0, []
    for mode in _distinct(density, ends, white):
        progress()
        polished = _polish(density, mode, white)
        if polished is None:
            continue
        num_modes += 1
        at, tril = polished
        judged = _weigh(density, at, tril, u, weights, log_evidence, generator)
        if judged is not None:
            missed.append(judged)
    missed.sort(key=lambda each: -each.share)
    return ModeSearch(num_modes, tuple(missed), _STARTS, time.perf_counter() - started), ""


def _climb(density: ManyPoints, start: Tensor, white: Whitening, steps: int, progress: Progress) -> Tensor:
    """Adam in whitened coordinates, where modes like the fit's are about one sd wide."""
    z = white.z_of(start)
    first, second = torch.zeros_like(z), torch.zeros_like(z)
    for t in range(steps):
        progress()
        _, gradient = density(white.u_of(z))
        gradient = gradient @ white.scale_tril
        first = 0.8 * first + 0.2 * gradient
        second = 0.95 * second + 0.05 * gradient**2
        rate = _PATH_LENGTH / steps * 0.5 * (1 + math.cos(math.pi * t / steps)) + 1e-3
        scale = (second / (1 - 0.95 ** (t + 1))).sqrt() + 1e-8
        z = z + rate * first / (1 - 0.8 ** (t + 1)) / scale
    return white.u_of(z)


def _distinct(density: ManyPoints, ends: Tensor, white: Whitening) -> Iterator[Tensor]:
    """The highest end points that are apart from each other."""
    values = density(ends)[0]
    z = white.z_of(ends)
    kept: list[Tensor] = []
    for index in values.argsort(descending=True):
        if not values[index].isfinite() or len(kept) == _MOST_MODES:
            return
        if all(float((z[index] - other).norm()) > _APART for other in kept):
            kept.append(z[index])
            yield ends[index]


def _polish(density: ManyPoints, u: Tensor, white: Whitening) -> tuple[Tensor, Tensor] | None:
    """The mode near `u` by Newton's method, and the Cholesky factor of its precision; None where there is no peak."""
    for _ in range(8):
        gradient, hessian = density.hessian(u, white.scale_tril)
        tril, failed = torch.linalg.cholesky_ex(-hessian)
        if int(failed) or not tril.isfinite().all():
            return None
        move = torch.cholesky_solve(gradient[:, None], tril)[:, 0]
        if float(gradient @ move) < _LEFT:
            return u, torch.linalg.solve_triangular(white.scale_tril.T, tril, upper=True)
        u = u + white.scale_tril @ move * min(1.0, 1.0 / float(move.norm()))
    return None


def _weigh(
    density: ManyPoints,
    at: Tensor,
    tril: Tensor,
    u: Tensor,
    weights: Tensor,
    log_evidence: float,
    generator: torch.Generator,
) -> MissedMode | None:
    """The mode as a missed one, or None; `tril` times its transpose is the precision there, but need not be triangular."""
    dim, tril = density.dim, tril.double()
    drawn_z = torch.randn(_PROPOSALS, dim, dtype=torch.float64, generator=generator).to(u.device)
    squared = (drawn_z**2).sum(-1)
    radius = squared.median()
    inside = squared <= radius
    proposals = at.double() + torch.linalg.solve(tril.T, drawn_z[inside].T).T
    log_p = density.values(proposals.to(u.dtype)).double()
    log_p = torch.where(log_p.isfinite(), log_p, -math.inf)
    log_q = torch.linalg.slogdet(tril)[1] - 0.5 * squared[inside] - 0.5 * dim * math.log(2 * math.pi)
    log_mass = float(torch.logsumexp(log_p - log_q, 0)) - math.log(_PROPOSALS)
    share = 1 / (1 + math.exp(min(700.0, log_evidence - log_mass)))
    distance = (((u.double() - at.double()) @ tril) ** 2).sum(-1)
    drawn = float(weights[distance <= radius].sum())
    if share < _SHARE or drawn >= _COVERED * share:
        return None
    named = {name: value for name, value in density.joint.constrain(at).items() if name in density.joint.shapes}
    return MissedMode(named, share, drawn, float(density.joint(at)))


def _short(value: Tensor) -> str:
    flat = value.detach().reshape(-1)
    shown = ", ".join(f"{float(v):.3g}" for v in flat[:4])
    return shown if value.dim() == 0 else f"[{shown}{', ...' if len(flat) > 4 else ''}]"
