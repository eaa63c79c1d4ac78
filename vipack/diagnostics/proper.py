"""Whether a density falls off in every direction, as one that can be normalised must."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

__all__ = ["improper"]

_DISTANCES = (30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 1e5)  # sd
_FALL = 1.0  # nats: a Cauchy falls by 7 within 30 sd, and what can be normalised by more than 1.1 from one distance to the next
_LEVEL = 3  # distances, beyond which there is no number, over which a low tail is level
_SMALL = 30.0  # nats below the middle, beyond which a level tail may be the least number that a program's log makes
_DIRECTIONS = 400  # at most


def improper(
    values_of: Callable[[Tensor], Tensor], loc: Tensor, factor: Tensor, shapes: Mapping[str, tuple[int, ...]]
) -> str:
    """Why log p, as `values_of` gives it at points ``(N, D)``, is that of no posterior that can be normalised; empty where nothing was found.

    A line along which it has not fallen hundreds of standard deviations away, or has ceased to fall there, decides.

    Args:
        loc: a point ``(D,)``, in the middle of the mass around it.
        factor: of a covariance there, ``(D, D)`` or ``(D,)`` for independent coordinates; its principal axes are looked along.
        shapes: sites and the shapes of their numbers, in the order of the coordinates.
    """
    axes = _axes(factor)
    level = float(values_of(loc[None])[0])
    lines = torch.cat([axes, -axes])
    values = torch.stack([values_of(loc + distance * lines) for distance in _DISTANCES])
    # At one distance alone another mode may lie.
    high = values > level - _FALL
    high = high[1:] & high[:-1]
    if bool(high.any()):
        k, index = high.nonzero()[-1].tolist()
        return _message(shapes, lines[index], index < len(axes), _DISTANCES[k + 1], float(values[k + 1, index]) - level)
    for index in range(len(lines)):
        far = int(values[:, index].isfinite().sum())
        tail = values[:far, index][-_LEVEL:]
        level_tail = (
            len(tail) == _LEVEL and float(tail.max() - tail.min()) < _FALL and float(tail.min()) > level - _SMALL
        )
        if level_tail and bool(values[:far, index].isfinite().all()):
            return _message(shapes, lines[index], index < len(axes), _DISTANCES[far - 1], float(tail[-1]) - level)
    return ""


def _axes(factor: Tensor) -> Tensor:
    """Directions ``(K, D)`` of one standard deviation: principal axes after scaling, widest first, and columns of the factor."""
    if factor.dim() == 1:
        return torch.diag(factor)[:_DIRECTIONS]
    scale = factor.norm(dim=1)
    values, vectors = torch.linalg.eigh(factor @ factor.T / scale[:, None] / scale)
    principal = (scale[:, None] * vectors * values.clamp(min=0).sqrt()).T
    return torch.cat([principal.flip(0), factor.T])[:_DIRECTIONS]


def _message(shapes: Mapping[str, tuple[int, ...]], line: Tensor, forward: bool, distance: float, change: float) -> str:
    names = [name for name, shape in shapes.items() for _ in range(math.prod(shape))]
    sites = [name for name, share in zip(names, (line.abs() / line.abs().max()).tolist(), strict=True) if share > 0.3]
    moved = ", ".join(map(repr, dict.fromkeys(sites)))
    fall = "where it has to fall" if change > -_FALL else "and falls no further, as it has to"
    return (
        f"the posterior seems improper: going {distance:.0f} standard deviations along a line that moves site(s) {moved} "
        f"({'+' if forward else '-'}), log p(x, z) changes by {change:+.2g} nats, {fall}; give them a proper prior, or remove a "
        "parameter that the data cannot tell from another."
    )
