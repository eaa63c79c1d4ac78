"""Whether the posterior falls off in every direction, as one that can be normalised must."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vipack.errors import ModelError
from vipack.training.ladder.candidates import Gaussian
from vipack.training.ladder.surface import Surface

__all__ = ["check_proper"]

_DISTANCES = (30.0, 100.0, 300.0, 1000.0)  # sd
_FALL = 1.0  # nats: a Cauchy falls by 7 within 30 sd
_DIRECTIONS = 400  # at most


def check_proper(surface: Surface, gaussian: Gaussian) -> None:
    """
    Args:
        gaussian: near the posterior; its principal axes are the directions looked along.

    Raises:
        ModelError: along a line log p(x, z) has not fallen hundreds of standard deviations away. The latent is named.
    """
    axes = _axes(gaussian)
    for distance in _DISTANCES[::-1]:
        points = torch.cat([gaussian.loc + distance * axes, gaussian.loc - distance * axes])
        values = surface.values(points)
        level = float(surface.values(gaussian.loc[None])[0])
        flat = values > level - _FALL
        if bool(flat.any()):
            index = int(flat.nonzero()[0])
            axis, sign = axes[index % len(axes)], "+" if index < len(axes) else "-"
            raise ModelError(_message(surface, axis, sign, distance, float(values[index]) - level))


def _axes(gaussian: Gaussian) -> Tensor:
    """Directions ``(K, D)`` of one standard deviation: principal axes after scaling, widest first, and columns of the factor."""
    factor = gaussian.factor
    if factor.dim() == 1:
        return torch.diag(factor)[:_DIRECTIONS]
    scale = factor.norm(dim=1)
    values, vectors = torch.linalg.eigh(factor @ factor.T / scale[:, None] / scale)
    principal = (scale[:, None] * vectors * values.clamp(min=0).sqrt()).T
    return torch.cat([principal.flip(0), factor.T])[:_DIRECTIONS]


def _message(surface: Surface, axis: Tensor, sign: str, distance: float, change: float) -> str:
    names = [name for name, shape in surface.joint.shapes.items() for _ in range(math.prod(shape))]
    sites = [name for name, share in zip(names, (axis.abs() / axis.abs().max()).tolist(), strict=True) if share > 0.3]
    moved = ", ".join(map(repr, dict.fromkeys(sites)))
    return (
        f"the posterior seems improper: going {distance:.0f} standard deviations along a line that moves site(s) {moved} "
        f"({sign}), log p(x, z) changes by {change:+.2g} nats, where it has to fall; give them a proper prior, or remove a "
        "parameter that the data cannot tell from another."
    )
