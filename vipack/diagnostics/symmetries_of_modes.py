"""Symmetries that the modes themselves suggest: two of one height, whose numbers are the same but for order and sign."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from vipack.diagnostics.symmetry_candidates import Candidate, Coordinates
from vipack.program.sites.signed_permutations import SignedPermutation

__all__ = ["suggested_by"]

_NEAR = 0.15  # sds of the draws, by which numbers of a mode and of its image may differ
_MOST_UNCLEAR = 4  # numbers near zero, up to which both signs are tried


def suggested_by(coordinates: Coordinates, modes: Sequence[Mapping[str, Tensor]], draws: Tensor) -> Iterator[Candidate]:
    """Maps that carry the mode that is nearest to the draws ``(S, P)`` to another one.

    They find what no regular set of exchanges and flips holds, such as the sign of one factor in a vector of free loadings.

    Args:
        modes: constrained latents of each, ``site -> shape``.
    """
    if len(modes) < 2:
        return
    points = coordinates.flat({name: torch.stack([mode[name] for mode in modes]) for name in coordinates.shapes})
    points, sd = points.cpu().double(), draws.std(0).cpu().double().clamp(min=1e-300)
    own = int((((points - draws.mean(0).cpu()) / sd) ** 2).sum(1).argmin())
    kinds = torch.stack([coordinates.sign, coordinates.offset], 1)
    comparable = (kinds[:, None] == kinds).all(-1)
    for other in range(len(points)):
        if other != own:
            yield from _between(coordinates, points[own], points[other], sd, comparable)


def _between(
    coordinates: Coordinates, one: Tensor, other: Tensor, sd: Tensor, comparable: Tensor
) -> Iterator[Candidate]:
    """Maps of `one` to `other` ``(P,)``, of which numbers near the centre of a reflection leave several."""
    scale = 0.5 * (sd + sd[:, None])
    reflects = coordinates.sign < 0
    straight = (other[:, None] - one).abs() / scale
    reflected = (other[:, None] - (coordinates.offset - one)).abs() / scale
    cost = torch.where(reflects, torch.minimum(straight, reflected), straight)
    cost = torch.where(comparable, cost, 1e9) + 1e-6 * (
        1 - torch.eye(len(one), dtype=cost.dtype)
    )  # in place where it can be
    index = torch.as_tensor(linear_sum_assignment(cost.numpy())[1])
    rows = torch.arange(len(one))
    if float(cost[rows, index].max()) > _NEAR:
        return
    turned = reflects & (reflected[rows, index] < straight[rows, index])
    unclear = (reflects & ((reflected - straight)[rows, index].abs() < 2 * _NEAR)).nonzero()[:, 0].tolist()
    if len(unclear) > _MOST_UNCLEAR:
        unclear = []
    for choice in itertools.product((False, True), repeat=len(unclear)):
        chosen = turned.clone()
        chosen[unclear] = torch.tensor(choice, dtype=torch.bool)
        move = SignedPermutation(
            index, torch.where(chosen, -1.0, 1.0).double(), torch.where(chosen, coordinates.offset, 0.0)
        )
        moved = move.moved
        if not bool(moved.any()):
            continue
        sites = tuple(name for name, where in coordinates.positions.items() if bool(moved[where].any()))
        if bool((index == rows).all()):
            flipped = moved.nonzero()[:, 0]
            yield Candidate(move, "sign" if coordinates.on_reals(flipped) else "reflection", sites)
        else:
            yield Candidate(move, "relabelling", sites, (f"modes {move.key.hex()[:16]}",), (0, 1))
