"""A search for posterior mass that a fit's draws miss: modes found from many starts, and weighed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vipack.diagnostics.chains import Whitening
from vipack.diagnostics.density import ManyPoints
from vipack.diagnostics.peaks import Peak, PeakSearch, ends_of
from vipack.diagnostics.proper import improper
from vipack.display import Readable
from vipack.program.evaluation.ascent import climb
from vipack.progress import Progress

__all__ = ["MissedMode", "ModeSearch", "search_modes"]

MOST_LATENTS = 1_000
_CUBES, _WIDE = 8, 8  # starts from the model's usual cube and from around the fit; the others come from the prior
_STARTS = 32
_MOST_STEPS, _FEWEST_STEPS = 100, 25
_WORK = 300_000  # operations of the whole climb
_NUMBERS = 1_500_000_000  # that it may produce: a few seconds' worth
_EVALUATIONS = 4  # of log p(x, z), of a step of a climb
_OVERDISPERSED = 6.0  # sds of the fit, from which some climb
_MOST_MODES = 12
_MEMORY = 10  # pairs of L-BFGS
_STEPS = {
    torch.float64: 1e-3,
    torch.float32: 2e-2,
}  # of differences of gradients, in the widths that a climb has learned
_UNEXPLAINED = 4_096  # points whose slopes are compared with what the modes explain
_UNEXPLAINED_NUMBERS = 400_000  # that these may be, in all their coordinates
_AT_ONCE = 256  # of them, since a graph for so many is there already
_PROPOSALS = 1_000
_SHARE = 0.01  # of the mass, that the inner half of a missed mode must hold to matter
_NEGLIGIBLE = 30.0  # nats below the highest mode, from which an end without a mode is looked at
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
        modes: the latents of each distinct mode, constrained, by site.
        missed: those that the draws hardly visit, the heaviest first.
        improper: why the posterior cannot be normalised, by what climbs that came to no mode ended in; empty of one that can.
    """

    modes: tuple[dict[str, Tensor], ...]
    missed: tuple[MissedMode, ...]
    num_starts: int
    seconds: float
    improper: str = ""

    @property
    def num_modes(self) -> int:
        """Distinct modes."""
        return len(self.modes)

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
    its draws; then at those of many points whose slopes the modes met so far do not explain. The mass of a mode's surroundings,
    the ellipsoid that holds half of its Laplace approximation, is estimated by importance sampling from that approximation.

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
    progress.begin("other modes", 2 * steps + _MOST_MODES)

    def gradients_of(points: Tensor) -> tuple[Tensor, Tensor]:
        blocks = [density(block.to(u)) for block in points.split(_AT_ONCE)]
        value, gradient = (torch.cat(column) for column in zip(*blocks, strict=True))
        return value.double(), gradient.double()

    def go_on() -> bool:
        progress()
        return True

    most = max(2, min(_MOST_MODES, _NUMBERS // (6 * density.dim * max(1, density.numbers))))
    search = PeakSearch(gradients_of, most, _STEPS[u.dtype], progress)
    paths = climb(gradients_of, starts.double(), memory=_MEMORY, num_steps=steps, go_on=go_on, side_by_side=False)
    ends, scales = ends_of(paths)
    if known is not None:
        ends, scales = torch.cat([ends, known[0].to(ends)]), torch.cat([scales, known[1].to(ends)])
    search.add(ends if nearest is None else nearest(ends), scales)
    count = min(_UNEXPLAINED, _UNEXPLAINED_NUMBERS // density.dim, _NUMBERS // 8 // max(1, density.numbers))
    search.climb_unexplained(starts, count, generator, num_steps=steps, nearest=nearest, go_on=go_on)
    modes = tuple(_named(density, peak.at.to(u)) for peak in search.peaks)
    weighed = [_weigh(density, peak, u, weights, log_evidence, generator) for peak in search.peaks]
    missed = sorted((each for each in weighed if each is not None), key=lambda each: -each.share)
    highest = max((peak.log_p for peak in search.peaks), default=math.inf)
    why = _improper(density, search, highest)
    return ModeSearch(modes, tuple(missed), len(starts), time.perf_counter() - started, why), ""


def _improper(density: ManyPoints, search: PeakSearch, highest: float) -> str:
    """Why a climb without end shows that the posterior cannot be normalised; empty where none does."""

    def values_of(points: Tensor) -> Tensor:
        return density.values(points).double()

    eps = torch.finfo(density.joint.dtype).eps
    for at, widths in search.without:
        level = float(values_of(at[None])[0])
        widths = torch.maximum(widths, 8 * eps * at.abs())  # below which points are the same number
        why = improper(values_of, at, widths, density.joint.shapes) if level > highest - _NEGLIGIBLE else ""
        if why:
            return why
    return ""


def _starts(u: Tensor, white: Whitening, prior: Tensor | None, generator: torch.Generator) -> Tensor:
    dim = u.shape[1]
    prior = u[:0] if prior is None else prior[: _STARTS - _CUBES - _WIDE]
    shares = (_CUBES, _WIDE) if len(prior) else (_STARTS // 2, _STARTS // 2)
    usual = torch.rand(shares[0], dim, dtype=u.dtype, generator=generator) * 4 - 2
    radii = _OVERDISPERSED * torch.rand(shares[1], 1, dtype=u.dtype, generator=generator)
    away = radii * torch.randn(shares[1], dim, dtype=u.dtype, generator=generator)
    return torch.cat([usual.to(u), prior.to(u), white.u_of(away.to(u))])


def _weigh(
    density: ManyPoints,
    peak: Peak,
    u: Tensor,
    weights: Tensor,
    log_evidence: float,
    generator: torch.Generator,
) -> MissedMode | None:
    """The mode as a missed one, or None."""
    dim, at, tril = density.dim, peak.at.to(u), peak.tril.double()
    drawn_z = torch.randn(_PROPOSALS, dim, dtype=torch.float64, generator=generator).to(u.device)
    squared = (drawn_z**2).sum(-1)
    radius = squared.median()
    inside = squared <= radius
    proposals = at.double() + torch.linalg.solve_triangular(tril.T, drawn_z[inside].T, upper=True).T
    log_p = density.values(proposals.to(u.dtype)).double()
    log_p = torch.where(log_p.isfinite(), log_p, -math.inf)
    log_q = tril.diagonal().log().sum() - 0.5 * squared[inside] - 0.5 * dim * math.log(2 * math.pi)
    log_mass = float(torch.logsumexp(log_p - log_q, 0)) - math.log(_PROPOSALS)
    share = 1 / (1 + math.exp(min(700.0, log_evidence - log_mass)))
    distance = (((u.double() - at.double()) @ tril) ** 2).sum(-1)
    drawn = float(weights[distance <= radius].sum())
    if share < _SHARE or drawn >= _COVERED * share:
        return None
    return MissedMode(_named(density, at), share, drawn, float(density.joint(at)))


def _named(density: ManyPoints, at: Tensor) -> dict[str, Tensor]:
    return {name: value for name, value in density.joint.constrain(at).items() if name in density.joint.shapes}


def _short(value: Tensor) -> str:
    flat = value.detach().reshape(-1)
    shown = ", ".join(f"{float(v):.3g}" for v in flat[:4])
    return shown if value.dim() == 0 else f"[{shown}{', ...' if len(flat) > 4 else ''}]"
