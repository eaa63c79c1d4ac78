"""Peaks of a density on R^D: those near which climbs ended, and those that account for a slope which no known peak explains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vipack.program.evaluation.ascent import Path, climb

__all__ = ["Peak", "PeakSearch", "ends_of"]

Gradients = Callable[[Tensor], tuple[Tensor, Tensor]]

_MEMORY = 10  # pairs of L-BFGS
_SLACK = 2.0  # nats, by which an end may lie below the hill that it belongs to
_NEWTON_STEPS = 4
_LEFT = 1e-3  # nats to be climbed yet, below which a point is a peak
_ROUNDS = 2  # of climbs from points that no peak explains
_CLIMBS = 16
_FLAT = 1e-4  # of the steepest direction's inverse width, below which a direction is level but for rounding
_EXPLAINED = 0.3  # of the distance to a peak, that Newton's step may leave
_FAR = 30.0


class Peak(NamedTuple):
    """A local maximum `at` ``(D,)``, the lower Cholesky factor `tril` ``(D, D)`` of the precision there, and log p in nats."""

    at: Tensor
    tril: Tensor
    log_p: float

    def explains_end(self, point: Tensor, log_p: float) -> bool:
        """Whether a point lies as far from the peak as its height below it says."""
        squared = float((((point - self.at) @ self.tril) ** 2).sum())
        return squared <= 4 * max(0.0, self.log_p - log_p) + _SLACK

    def unexplained(self, points: Tensor, gradients: Tensor) -> Tensor:
        """How far Newton's step from points ``(N, D)`` ends from the peak, in their own distances from it ``(N,)``.

        It is 0 wherever the density is a normal's around the peak, however far away, and near 1 or more where another peak's slope rules.
        """
        away = (points - self.at) @ self.tril
        left = away + torch.linalg.solve_triangular(self.tril, gradients.T, upper=False).T
        ratio: Tensor = left.norm(dim=1) / away.norm(dim=1).clamp(min=1e-9)
        return ratio


class PeakSearch:
    """The distinct peaks met so far, and what finds more of them.

    Attributes:
        peaks: the distinct ones.
        without: ends of climbs near which there is none, each with the widths there.

    Args:
        gradients_of: log p ``(N,)``, minus infinity where it is no number, and its gradient ``(N, D)``, zero there.
        most: ends of climbs that are looked at more closely, a Hessian each.
        step: of second derivatives, in the widths that a climb has learned.
    """

    def __init__(
        self, gradients_of: Gradients, most: int, step: float, progress: Callable[[], object] = lambda: None
    ) -> None:
        self.peaks: list[Peak] = []
        self.without: list[tuple[Tensor, Tensor]] = []
        self._gradients_of, self._step, self._progress = gradients_of, step, progress
        self._left = most

    def add(self, ends: Tensor, scales: Tensor) -> int:
        """Take up the peaks near the ends ``(R, D)`` of climbs that learned widths `scales` ``(R, D)``, the highest first; how many are new."""
        before = len(self.peaks)
        values = self._gradients_of(ends)[0]
        for index in values.argsort(descending=True):
            if not values[index].isfinite() or self._left == 0:
                break
            if any(peak.explains_end(ends[index], float(values[index])) for peak in self.peaks):
                continue
            self._left -= 1
            self._progress()
            peak = self._polished(ends[index], scales[index])
            if peak is None:
                self.without.append((ends[index], scales[index]))
            elif not any(known.explains_end(peak.at, peak.log_p) for known in self.peaks):
                self.peaks.append(peak)
        return len(self.peaks) - before

    def climb_unexplained(
        self,
        starts: Tensor,
        count: int,
        generator: torch.Generator,
        *,
        num_steps: int,
        nearest: Callable[[Tensor], Tensor] | None = None,
        go_on: Callable[[], bool] = lambda: True,
    ) -> None:
        """Climb from those of `count` points, spread as widely as the starts ``(R, D)`` and wider, whose slopes the known peaks explain least.

        A narrow peak beside a wide one is seldom climbed from random starts, which all lie on the wide one's flanks; one evaluation
        tells which do not. Ends when a round brings no new peak.

        Args:
            nearest: of points ``(N, D)`` the images under the posterior's symmetries that are nearest to the draws.
        """
        for _ in range(_ROUNDS):
            if not self.peaks or self._left == 0:
                return
            points = _spread_as(starts, count, generator)
            points = points if nearest is None else nearest(points)
            values, gradients = self._gradients_of(points)
            least = torch.stack([peak.unexplained(points, gradients) for peak in self.peaks]).amin(0)
            least = torch.where(values.isfinite() & least.isfinite(), least, -1.0)
            chosen = points[_chosen(least, generator)]
            paths = climb(
                self._gradients_of, chosen, memory=_MEMORY, num_steps=num_steps, go_on=go_on, side_by_side=False
            )
            ends, scales = ends_of(paths)
            if not self.add(ends if nearest is None else nearest(ends), scales):
                return

    def _polished(self, u: Tensor, scale: Tensor) -> Peak | None:
        """The peak near `u` by Newton's method; None where there is none.

        Second derivatives are differences of gradients, over a step of the widths `scale` ``(D,)``.
        """
        for _ in range(_NEWTON_STEPS):
            away = torch.diag(self._step * scale)
            value, gradient = self._gradients_of(torch.cat([u + away, u - away, u[None]]))
            second = (gradient[: len(u)] - gradient[len(u) : -1]) * scale / (2 * self._step)
            tril, failed = torch.linalg.cholesky_ex(-0.5 * (second + second.T))
            if int(failed) or not tril.isfinite().all() or float(tril.diagonal().min() / tril.diagonal().max()) < _FLAT:
                return None
            slope = gradient[-1] * scale
            move = torch.cholesky_solve(slope[:, None], tril)[:, 0]
            if float(slope @ move) < _LEFT:
                return Peak(u, tril / scale[:, None], float(value[-1]))
            moved = u + scale * move
            if not self._gradients_of(moved[None])[0] >= value[-1] - _LEFT:
                return None
            u = moved
        return None


def ends_of(paths: Sequence[Path]) -> tuple[Tensor, Tensor]:
    """Where climbs ended ``(R, D)``, and the widths of the coordinates there ``(R, D)``, as L-BFGS has learned them."""
    widths = torch.stack([path.diagonals[-1].clamp(min=1e-24).sqrt() for path in paths])
    return torch.stack([path.points[-1] for path in paths]), widths


def _chosen(unexplained: Tensor, generator: torch.Generator) -> Tensor:
    """Indices of points to climb from: the least explained, and as many at random of those that are not explained well."""
    order = unexplained.argsort(descending=True)
    first, rest = order[: _CLIMBS // 2], order[_CLIMBS // 2 :]
    rest = rest[unexplained[rest] > _EXPLAINED]
    some = torch.randperm(len(rest), generator=generator)[: _CLIMBS - len(first)]
    return torch.cat([first, rest[some.to(rest.device)]])


def _spread_as(starts: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Points ``(count, D)`` from a normal as wide as the starts, from around each of these, and, an eighth, from normals up to `_FAR` times as wide."""
    starts = starts.double()
    spread, dim = starts.std(0), starts.shape[1]

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator).to(starts)

    num_far, num_around = count // 8, count // 2
    factor = (_FAR ** torch.rand(num_far, 1, dtype=torch.float64, generator=generator)).to(starts)
    around = starts[torch.randint(len(starts), (num_around,), generator=generator).to(starts.device)]
    return torch.cat(
        [
            starts.mean(0) + spread * noise(count - num_far - num_around, dim),
            starts.mean(0) + factor * spread * noise(num_far, dim),
            around + 0.3 * spread * noise(num_around, dim),
        ]
    )
