"""Which factors of a program bear the scale N/B of a minibatch in their own numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.poutine.util import site_is_factor
from torch import Tensor

from vipack.errors import VipackError
from vipack.program.checks.batch_traces import batch_size, density, prior_trace
from vipack.program.program import Program
from vipack.program.running.runs import Arguments
from vipack.program.sites.plates import BatchPlate, rows_within
from vipack.program.sites.sites import is_latent, sample_nodes

__all__ = ["Halved", "scaled_factors"]

Nodes = dict[str, dict[str, Any]]
Halved = tuple[Arguments, tuple[Arguments, Arguments]]

_EXACT, _ROUNDING = 1e-3, 1e-5  # tolerances, relative to a factor's change between halves and to its size


def scaled_factors(program: Program, halved: Callable[[], Halved | None], seed: int) -> frozenset[str]:
    """The factors that are N/B times a sum over the rows of a minibatch, at fixed values of the latents.

    Such a factor of B rows is the mean of those of the batch's halves, each weighted by its rows, where an unscaled one is
    their sum. In the batch plate each row has a factor of its own, which is smaller the more rows there are.

    Args:
        halved: makes a minibatch and its two halves; None where rows change from one reading to the next.
    """
    plate = program.batch_plate
    assert plate is not None
    with contextlib.suppress(VipackError):  # a program may refuse other batches for reasons of its own
        batch_and_halves = halved()
        if batch_and_halves is None:
            return frozenset()
        whole, halves = batch_and_halves
        nodes = _nodes(program, whole, {}, seed)
        latents = {name: node["value"] for name, node in nodes.items() if is_latent(node)}
        again = _nodes(program, whole, latents, seed + 1)
        sizes = [batch_size(half) for half in halves]
        given = [
            {name: rows_within(value, nodes[name], plate, start, size, events=True) for name, value in latents.items()}
            for start, size in zip((0, sizes[0]), sizes, strict=True)
        ]
        others = [_nodes(program, half, values, seed) for half, values in zip(halves, given, strict=True)]
        return frozenset(
            name
            for name, node in nodes.items()
            if site_is_factor(node)
            and all(name in other for other in others)
            and torch.equal(density(node), density(again[name]))
            and _bears_the_scale(node, [other[name] for other in others], plate, sizes)
        )
    return frozenset()


def _bears_the_scale(node: dict[str, Any], others: list[dict[str, Any]], plate: BatchPlate, sizes: list[int]) -> bool:
    frame = next((frame for frame in node["cond_indep_stack"] if frame.name == plate.name), None)
    whole, halves, rows = density(node), [density(other) for other in others], sum(sizes)
    if frame is None:
        mean = torch.stack([half.sum() * size for half, size in zip(halves, sizes, strict=True)]).sum() / rows
        return _close(whole.sum(), mean, [half.sum() for half in halves])
    if frame.full_size == plate.num_rows or not frame.vectorized:
        return False  # Pyro scales it by itself
    starts = (0, sizes[0])
    own = [
        rows_within(whole, node, plate, start, size, events=False) for start, size in zip(starts, sizes, strict=True)
    ]
    return all(
        mine.shape == half.shape and _close(mine, half * size / rows, [half])
        for mine, half, size in zip(own, halves, sizes, strict=True)
    )


def _close(whole: Tensor, expected: Tensor, halves: list[Tensor]) -> bool:
    """Whether `whole` is as expected, and no constant."""
    change = torch.stack([(whole - half).abs().max() for half in halves]).max()
    rounding = _ROUNDING * whole.abs().max()
    return bool((whole - expected).abs().max() <= _EXACT * change + rounding) and bool(change > rounding)


def _nodes(program: Program, arguments: Arguments, given: Mapping[str, Tensor], seed: int) -> Nodes:
    return sample_nodes(prior_trace(program, arguments, seed, given, training=False))
