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
    step_scale = torch.ones(count, dtype=starts.dtype)
    patience = torch.full((count,), _PATIENCE)
    patience[~torch.isfinite(value)] = 0
    fresh = [True] * count  # no pair yet, or forgotten
    for _ in range(num_steps):
        active = [r for r in range(count) if patience[r] > 0]
        if not active or not go_on():
            break
        directions = torch.stack([_direction(paths[r], gradient[r], memory, fresh[r]) for r in active])
        slopes = (directions * gradient[active]).sum(-1)
        scaled = step_scale[active, None] * lengths
        least = value[active, None] + _ARMIJO * scaled * slopes[:, None]
        trial = x[active, None] + scaled[:, :, None] * directions[:, None]
        values, gradients = _tried(gradients_of, trial, least, side_by_side)
        best = values.argmax(1)
        for i, r in enumerate(active):
            k = int(best[i])
            gain = float(values[i, k] - value[r])
            decrement = float(slopes[i])
            if not gain > 0.0:
                patience[r] -= 1
                if fresh[r]:
                    step_scale[r] *= 1e-4
                fresh[r] = True
                if decrement < 1e-7:
                    patience[r] = 0
                continue
            step_scale[r] = 1.0
            s, y = trial[i, k] - x[r], gradient[r] - gradients[i, k]
            fresh[r] = not _learn(paths[r], s, y) and fresh[r]
            x[r], value[r], gradient[r] = trial[i, k], values[i, k], gradients[i, k]
            _note(paths[r], x[r], value[r], gradient[r])
            settled = gain < 1e-9 * (1 + abs(float(value[r]))) and decrement < 1e-6
            patience[r] = patience[r] - 1 if settled else _PATIENCE
    return paths


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


def _direction(path: Path, gradient: Tensor, memory: int, fresh: bool) -> Tensor:
    if not fresh:
        direction = inverse_hessian_times(path, len(path.points) - 1, gradient, memory)
        if torch.isfinite(direction).all() and direction @ gradient > 0:
            return direction
    steepest: Tensor = gradient / gradient.norm().clamp(min=1e-12)
    return steepest


def _learn(path: Path, s: Tensor, y: Tensor) -> bool:
    """Take up a pair, unless the surface bends the wrong way there."""
    b = s @ y
    if not b > _CURVATURE * s.norm() * y.norm():
        return False
    alpha = path.diagonals[-1]
    a, c = (y * alpha * y).sum(), (s * s / alpha).sum()
    new = 1.0 / (a / (b * alpha) + y * y / b - a * s * s / (b * c * alpha * alpha))
    path.diagonals.append(torch.where(torch.isfinite(new) & (new > 0), new, alpha))
    path.pairs.append((s, y))
    return True


def _note(path: Path, x: Tensor, value: Tensor, gradient: Tensor) -> None:
    path.points.append(x.clone())
    path.values.append(float(value))
    path.gradients.append(gradient.clone())
    path.num_pairs.append(len(path.pairs))
