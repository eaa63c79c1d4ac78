"""A search for posterior mass that a fit's draws miss: modes found from many starts, and weighed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vipack.diagnostics.chains import Whitening
from vipack.diagnostics.density import ManyPoints
from vipack.display import Readable
from vipack.program.evaluation.ascent import Path, climb
from vipack.progress import Progress

__all__ = ["MissedMode", "ModeSearch", "distinct_modes", "ends_of", "search_modes"]

MOST_LATENTS = 1_000
_CUBES, _WIDE = 8, 8  # starts from the model's usual cube and from around the fit; the others come from the prior
_STARTS = 32
_MOST_STEPS, _FEWEST_STEPS = 100, 25
_WORK = 300_000  # operations of the whole climb
_NUMBERS = 1_500_000_000  # that it may produce: a few seconds' worth
_EVALUATIONS = 4  # of log p(x, z), of a step of a climb
_OVERDISPERSED = 6.0  # sds of the fit, from which some climb
_SLACK = 2.0  # nats, by which an end may lie below the hill that it belongs to
_MOST_MODES = 12
_MEMORY = 10  # pairs of L-BFGS
_NEWTON_STEPS = 4
_STEPS = {
    torch.float64: 1e-3,
    torch.float32: 2e-2,
}  # of differences of gradients, in the widths that a climb has learned
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
    prior: Tensor | None = None,
    known: tuple[Tensor, Tensor] | None = None,
    nearest: Callable[[Tensor], Tensor] | None = None,
    progress: Progress | None = None,
) -> tuple[ModeSearch | None, str]:
    """Climb to modes, and hold the mass around each against the draws there.

    Climbs are L-BFGS in the program's own unconstrained coordinates, so that neither the scale of the fit nor how far a mode
    is from it matters. They start in the cube (-2, 2), at draws of the prior, and around the fit several times as wide as
    its draws. The mass of a mode's surroundings, the ellipsoid that holds half of its Laplace approximation, is
    estimated by importance sampling from that approximation.

    Args:
        u: draws ``(S, D)`` with `weights` ``(S,)`` that add up to one.
        log_evidence: that the weights estimate, in nats.
        prior: draws of the prior ``(N, D)``, to climb from.
        known: points ``(N, D)`` at which other climbs have ended, and the widths ``(N, D)`` that they had learned.
        nearest: of points ``(N, D)`` the images under the posterior's symmetries that are nearest to the draws.

    Returns:
        The search, or None with the reason for which there was none.
    """
    started = time.perf_counter()
    steps = min(_MOST_STEPS, _WORK // max(1, density.operations))
    # A model of many rows is dear in numbers: it gets fewer steps, but none so few that modes stay out of reach.
    steps = min(steps, max(_FEWEST_STEPS, _NUMBERS // max(1, _EVALUATIONS * _STARTS * density.numbers)))
    if density.dim > MOST_LATENTS:
        return None, f"{density.dim:,} latent numbers are too many to search for other modes"
    if steps < _FEWEST_STEPS:
        return None, f"one evaluation of the model takes {density.operations:,} operations, too many for a search"
    generator = torch.Generator().manual_seed(seed)
    starts = _starts(u, white, prior, generator)
    progress = Progress() if progress is None else progress
    progress.begin("other modes", steps + _MOST_MODES)

    def gradients_of(points: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = density(points.to(u))
        return value.double(), gradient.double()

    def go_on() -> bool:
        progress()
        return True

    paths = climb(gradients_of, starts.double(), memory=_MEMORY, num_steps=steps, go_on=go_on, side_by_side=False)
    ends, scales = ends_of(paths)
    if known is not None:
        ends, scales = torch.cat([ends, known[0].to(ends)]), torch.cat([scales, known[1].to(ends)])
    if nearest is not None:
        ends = nearest(ends)
    most = max(2, min(_MOST_MODES, _NUMBERS // (6 * density.dim * max(1, density.numbers))))
    num_modes, missed = 0, []
    for at, tril in distinct_modes(gradients_of, ends, scales, most, _STEPS[u.dtype], progress):
        num_modes += 1
        judged = _weigh(density, at.to(u), tril, u, weights, log_evidence, generator)
        if judged is not None:
            missed.append(judged)
    missed.sort(key=lambda each: -each.share)
    return ModeSearch(num_modes, tuple(missed), len(starts), time.perf_counter() - started), ""


def _starts(u: Tensor, white: Whitening, prior: Tensor | None, generator: torch.Generator) -> Tensor:
    dim = u.shape[1]
    prior = u[:0] if prior is None else prior[: _STARTS - _CUBES - _WIDE]
    shares = (_CUBES, _WIDE) if len(prior) else (_STARTS // 2, _STARTS // 2)
    usual = torch.rand(shares[0], dim, dtype=u.dtype, generator=generator) * 4 - 2
    radii = _OVERDISPERSED * torch.rand(shares[1], 1, dtype=u.dtype, generator=generator)
    away = radii * torch.randn(shares[1], dim, dtype=u.dtype, generator=generator)
    return torch.cat([usual.to(u), prior.to(u), white.u_of(away.to(u))])


def ends_of(paths: Sequence[Path]) -> tuple[Tensor, Tensor]:
    """Where climbs ended ``(R, D)``, and the widths of the coordinates there ``(R, D)``, as L-BFGS has learned them."""
    widths = torch.stack([path.diagonals[-1].clamp(min=1e-24).sqrt() for path in paths])
    return torch.stack([path.points[-1] for path in paths]), widths


def distinct_modes(
    gradients_of: Callable[[Tensor], tuple[Tensor, Tensor]],
    ends: Tensor,
    scales: Tensor,
    most: int,
    step: float,
    progress: Callable[[], object] = lambda: None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Modes near the ends, the highest first, each once, with the Cholesky factor of its precision."""
    values = gradients_of(ends)[0]
    modes: list[tuple[Tensor, Tensor, float]] = []
    tried = 0
    for index in values.argsort(descending=True):
        if not values[index].isfinite() or tried == most:
            return
        if any(_on_hill(ends[index], float(values[index]), *mode) for mode in modes):
            continue
        tried += 1
        progress()
        polished = _polish(gradients_of, ends[index], scales[index], step)
        if polished is None or any(_on_hill(polished[0], polished[2], *mode) for mode in modes):
            continue
        modes.append(polished)
        yield polished[:2]


def _on_hill(point: Tensor, value: float, at: Tensor, tril: Tensor, top: float) -> bool:
    """Whether a point lies as far from a mode as its height below it says."""
    squared = float((((point - at) @ tril) ** 2).sum())
    return squared <= 4 * max(0.0, top - value) + _SLACK


def _polish(
    gradients_of: Callable[[Tensor], tuple[Tensor, Tensor]], u: Tensor, scale: Tensor, step: float
) -> tuple[Tensor, Tensor, float] | None:
    """The mode near `u` by Newton's method, the Cholesky factor of its precision, and its log p; None where there is no peak.

    Second derivatives are differences of gradients, over `step` of the widths `scale` ``(D,)``.
    """
    for _ in range(_NEWTON_STEPS):
        away = torch.diag(step * scale)
        value, gradient = gradients_of(torch.cat([u + away, u - away, u[None]]))
        second = (gradient[: len(u)] - gradient[len(u) : -1]) * scale / (2 * step)
        tril, failed = torch.linalg.cholesky_ex(-0.5 * (second + second.T))
        if int(failed) or not tril.isfinite().all():
            return None
        slope = gradient[-1] * scale
        move = torch.cholesky_solve(slope[:, None], tril)[:, 0]
        if float(slope @ move) < _LEFT:
            return u, tril / scale[:, None], float(value[-1])
        moved = u + scale * move
        if not gradients_of(moved[None])[0] >= value[-1] - _LEFT:
            return None
        u = moved
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
