"""Whether draws and their images under a symmetry lie in one region, in two, or in parts of both."""

from __future__ import annotations

import enum

import torch
from torch import Tensor

__all__ = ["Overlap", "overlap", "thinned"]

_MOST_DRAWS = 2_000
_APART = 0.002  # share of draws that may lie nearer to the other set, where two regions are apart
_MIXED = 0.35  # share that must, where they are one
_SHIFT, _STRETCH = 0.15, 0.10  # by which means (in sds) and log sds of one region may differ, as for a verdict


class Overlap(enum.Enum):
    """How two sets of draws lie."""

    APART = "apart"
    SAME = "the same"
    PARTIAL = "partly the same"


def overlap(draws: Tensor, images: Tensor) -> Overlap:
    """Compare `draws` ``(S, P)`` with their images, by nearest neighbours and by a linear discriminant.

    One half of each set is held against the other half of both. Numbers that the map does not change are left out.

    Source: Schilling (1986), multivariate two-sample tests based on nearest neighbors; Fisher's discriminant.
    """
    moved = (draws != images).any(0)
    if not bool(moved.any()):
        return Overlap.SAME
    step = max(1, len(draws) // _MOST_DRAWS)
    x, y = draws[::step, moved], images[::step, moved]
    scale = (0.5 * (x.var(0) + y.var(0))).sqrt().clamp(min=1e-300)
    centre = 0.5 * (x.mean(0) + y.mean(0))
    x, y = (x - centre) / scale, (y - centre) / scale
    half = len(x) // 2
    errors = min(_by_neighbours(x[:half], y[:half], x[half:]), _by_discriminant(x[:half], y[:half], x[half:]))
    if errors <= _APART:
        return Overlap.APART
    pooled = torch.cat([x, y]).std(0)
    se = 3 / len(x) ** 0.5
    shift = ((x.mean(0) - y.mean(0)).abs() / 2 / pooled).max()
    stretch = (x.std(0) / y.std(0)).log().abs().max()
    same = float(shift) < _SHIFT + se and float(stretch) < 2 * _STRETCH + se and errors > _MIXED
    return Overlap.SAME if same else Overlap.PARTIAL


def thinned(weights: Tensor, seed: int) -> Tensor:
    """Indices of different draws, each kept with a probability in proportion to its weight, which nearest neighbours need.

    Args:
        weights: ``(S,)``, which add up to one.
    """
    count = min(_MOST_DRAWS, 0.5 / float((weights**2).sum()))
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(len(weights), dtype=weights.dtype, generator=generator)
    return (uniform < count * weights).nonzero()[:, 0]


def _by_neighbours(x: Tensor, y: Tensor, tested: Tensor) -> float:
    """The share of `tested`, which are of x's kind, whose nearest neighbour is one of y."""
    nearer = torch.cdist(tested, y).amin(1) < torch.cdist(tested, x).amin(1)
    return float(nearer.double().mean())


def _by_discriminant(x: Tensor, y: Tensor, tested: Tensor) -> float:
    """The same share on the wrong side of the plane that separates the means best."""
    covariance = 0.5 * (x.T.cov() + y.T.cov()).reshape(x.shape[1], x.shape[1])
    covariance = covariance + 1e-3 * torch.eye(len(covariance), dtype=x.dtype, device=x.device)
    difference = x.mean(0) - y.mean(0)
    direction = torch.linalg.solve(covariance, difference)
    side = (tested - 0.5 * (x.mean(0) + y.mean(0))) @ direction
    return float((side < 0).double().mean())
