"""Paths of quasi-Newton ascent on the log joint from several starts at once, with the curvature met on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["Path", "climb", "inverse_hessian_times"]

Gradients = Callable[[Tensor], tuple[Tensor, Tensor]]

_ARMIJO = 1e-4
_CURVATURE = 1e-12  # of |s| |y|, the least s.y that an update may have
# Tried side by side, since a batch of points costs little more than one. Their widest range spans wrong scales by 10^8.
_LENGTHS = (1.0, 0.5, 0.25, 0.1, 0.03, 0.01, 1e-3, 1e-4, 2.0, 4.0)
_FIRST = [0, 9]  # a full step and a long one, which suffice on most steps
_PATIENCE = 4  # steps in a row without gain, each from a steepest-ascent direction and at a smaller scale


@dataclass
class Path:
    """The points of one ascent, and the pairs by which each one's inverse Hessian is estimated.

    Attributes:
        points: ``(D,)`` each, from the start on.
        values: log p there, nats.
        gradients: ``(D,)`` each.
        num_pairs: how many of `pairs` had been met at each point.
        pairs: steps s and changes y of the gradient of -log p, with the diagonal that they are added to.
    """

    points: list[Tensor] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)
    num_pairs: list[int] = field(default_factory=list)
    pairs: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    diagonals: list[Tensor] = field(default_factory=list)


def climb(
    gradients_of: Gradients,
    starts: Tensor,
    *,
    memory: int = 30,
    num_steps: int = 300,
    go_on: Callable[[], bool] = lambda: True,
    side_by_side: bool = True,
) -> list[Path]:
    """Maximise log p from every row of `starts` ``(R, D)`` by L-BFGS, all starts in step.

    The initial inverse Hessian is a diagonal that is learned on the way, as in Pathfinder, so that coordinates of very
    different scales are no trouble. Each line search tries ten lengths in one batch.

    Args:
        gradients_of: log p ``(B,)``, minus infinity where it is no number, and its gradient ``(B, D)``, zero there, at points ``(B, D)``.
        memory: pairs of each path that count.
        go_on: asked before every step.
        side_by_side: False tries two lengths first, and the others where neither rises enough: a third of the evaluations, in
            somewhat more batches.

    Source: Zhang, Carpenter, Gelman, Vehtari (2022), JMLR 23(306), algorithm 3, for the diagonal.
    """
    count, dim = starts.shape
    lengths = torch.tensor(_LENGTHS, dtype=starts.dtype)
    x = starts.clone()
    value, gradient = gradients_of(x)
    paths = [Path() for _ in range(count)]
    for r, path in enumerate(paths):
        path.diagonals.append(torch.ones(dim, dtype=starts.dtype))
        _note(path, x[r], value[r], gradient[r])
    curvature = _Curvature(count, dim, memory, starts.dtype)
    step_scale = torch.ones(count, dtype=starts.dtype)
    patience = torch.full((count,), _PATIENCE)
    patience[~torch.isfinite(value)] = 0
    fresh = torch.ones(count, dtype=torch.bool)  # no pair yet, or forgotten
    for _ in range(num_steps):
        active = patience.gt(0).nonzero()[:, 0]
        if not len(active) or not go_on():
            break
        directions = curvature.directions(active, gradient[active], fresh[active])
        slopes = (directions * gradient[active]).sum(-1)
        scaled = step_scale[active, None] * lengths
        least = value[active, None] + _ARMIJO * scaled * slopes[:, None]
        trial = x[active, None] + scaled[:, :, None] * directions[:, None]
        values, gradients = _tried(gradients_of, trial, least, side_by_side)
        best = values.argmax(1)
        each = torch.arange(len(active))
        gains = values[each, best] - value[active]
        rises = gains > 0.0
        halted = active[~rises]
        patience[halted] = torch.where(slopes[~rises] < 1e-7, 0, patience[halted] - 1)
        step_scale[halted] = torch.where(fresh[halted], 1e-4 * step_scale[halted], step_scale[halted])
        fresh[halted] = True
        moved, which = active[rises], (each[rises], best[rises])
        s, y = trial[which] - x[moved], gradient[moved] - gradients[which]
        learned = curvature.learn(moved, s, y)
        x[moved], value[moved], gradient[moved] = trial[which], values[which], gradients[which]
        step_scale[moved] = 1.0
        fresh[moved] &= ~learned
        settled = (gains[rises] < 1e-9 * (1 + value[moved].abs())) & (slopes[rises] < 1e-6)
        patience[moved] = torch.where(settled, patience[moved] - 1, _PATIENCE)
        for i, r in enumerate(moved.tolist()):
            if learned[i]:
                paths[r].pairs.append((s[i], y[i]))
                paths[r].diagonals.append(curvature.diagonal[r].clone())
            _note(paths[r], x[r], value[r], gradient[r])
    return paths


class _Curvature:
    """The pairs that count of several paths, by which directions are found for all of them at once.

    Attributes:
        diagonal: ``(R, D)``, the initial inverse Hessians.
    """

    def __init__(self, count: int, dim: int, memory: int, dtype: torch.dtype) -> None:
        # The latest pair comes last; those that are not there yet have the weight 0.
        self._steps = torch.zeros(count, memory, dim, dtype=dtype)
        self._changes = torch.zeros(count, memory, dim, dtype=dtype)
        self._weights = torch.zeros(count, memory, dtype=dtype)
        self._number = torch.zeros(count, dtype=torch.long)
        self.diagonal = torch.ones(count, dim, dtype=dtype)

    def directions(self, rows: Tensor, gradients: Tensor, fresh: Tensor) -> Tensor:
        """``(A, D)``, of steepest ascent for paths that are `fresh`, and where the estimate does not rise."""
        steepest: Tensor = gradients / gradients.norm(dim=1, keepdim=True).clamp(min=1e-12)
        number = int(self._number[rows].max())
        if bool(fresh.all()) or not number:
            return steepest
        first = self._steps.shape[1] - number
        steps, changes = self._steps[rows, first:], self._changes[rows, first:]
        weights = self._weights[rows, first:]
        q, coefficients = gradients.clone(), torch.zeros_like(weights)
        for j in reversed(range(number)):
            a = weights[:, j] * (steps[:, j] * q).sum(-1)
            q -= changes[:, j] * a[:, None]
            coefficients[:, j] = a
        q *= self.diagonal[rows]
        for j in range(number):
            b = weights[:, j] * (changes[:, j] * q).sum(-1)
            q += steps[:, j] * (coefficients[:, j] - b)[:, None]
        useful = torch.isfinite(q).all(1) & ((q * gradients).sum(-1) > 0) & ~fresh
        return torch.where(useful[:, None], q, steepest)

    def learn(self, rows: Tensor, s: Tensor, y: Tensor) -> Tensor:
        """Take up a pair of each path ``(A, D)``, unless the surface bends the wrong way there; whether it was taken ``(A,)``."""
        b = (s * y).sum(-1)
        bent: Tensor = b > _CURVATURE * s.norm(dim=1) * y.norm(dim=1)
        rows, s, y, b = rows[bent], s[bent], y[bent], b[bent][:, None]
        alpha = self.diagonal[rows]
        a, c = (y * alpha * y).sum(-1, keepdim=True), (s * s / alpha).sum(-1, keepdim=True)
        new = 1.0 / (a / (b * alpha) + y * y / b - a * s * s / (b * c * alpha * alpha))
        self.diagonal[rows] = torch.where(torch.isfinite(new) & (new > 0), new, alpha)
        for kept, latest in ((self._steps, s), (self._changes, y), (self._weights, 1.0 / b[:, 0])):
            kept[rows] = torch.cat([kept[rows, 1:], latest[:, None]], 1)
        self._number[rows] = (self._number[rows] + 1).clamp(max=self._steps.shape[1])
        return bent


def _tried(gradients_of: Gradients, trial: Tensor, least: Tensor, side_by_side: bool) -> tuple[Tensor, Tensor]:
    """log p at the points ``(R, L, D)``, minus infinity where it does not reach `least` ``(R, L)``, and its gradients."""
    values, gradients = torch.full_like(least, -torch.inf), torch.zeros_like(trial)
    rest = torch.ones_like(least, dtype=torch.bool)
    if not side_by_side:
        first = trial[:, _FIRST]
        first_values, first_gradients = gradients_of(first.reshape(-1, first.shape[-1]))
        values[:, _FIRST], gradients[:, _FIRST] = first_values.view(len(first), -1), first_gradients.view(first.shape)
        rest[:, _FIRST] = False
        rest[(values >= least)[:, _FIRST].any(1)] = False
    if bool(rest.any()):
        values[rest], gradients[rest] = gradients_of(trial[rest])
    return torch.where((values >= least) & torch.isfinite(values), values, -torch.inf), gradients


def inverse_hessian_times(path: Path, at: int, v: Tensor, memory: int) -> Tensor:
    """The estimate at point `at`, applied to the columns of ``v`` ``(D,)`` or ``(D, K)``; of -log p, so positive."""
    pairs = path.pairs[: path.num_pairs[at]][-memory:]
    diagonal = path.diagonals[path.num_pairs[at]]
    q = v if v.dim() == 2 else v[:, None]
    q = q.clone()
    coefficients = []
    for s, y in reversed(pairs):
        rho = 1.0 / (s @ y)
        a = rho * (s @ q)
        q = q - y[:, None] * a
        coefficients.append((rho, a))
    q = diagonal[:, None] * q
    for (s, y), (rho, a) in zip(pairs, reversed(coefficients), strict=True):
        b = rho * (y @ q)
        q = q + s[:, None] * (a - b)
    return q if v.dim() == 2 else q[:, 0]


def _note(path: Path, x: Tensor, value: Tensor, gradient: Tensor) -> None:
    path.points.append(x.clone())
    path.values.append(float(value))
    path.gradients.append(gradient.clone())
    path.num_pairs.append(len(path.pairs))
