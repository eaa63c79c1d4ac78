"""What a minibatch changes although the scale N/B takes it to be the same in every batch: rows that depend on each other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from vipack.errors import PlateError, ProgramWarning, VipackError, VipackWarning
from vipack.program.checks.batch_traces import batch_size, density
from vipack.program.densities.substitution import Given
from vipack.program.program import Program
from vipack.program.running.randomness import seeded
from vipack.program.running.runs import Arguments, explained, trace_model
from vipack.program.sites.plates import BatchPlate, is_scaled, rows_within
from vipack.program.sites.sites import has_density, is_latent, rounds_draws, sample_nodes

__all__ = ["batch_effects", "scaled_twice"]

Nodes = dict[str, dict[str, Any]]


def batch_effects(
    program: Program,
    first: Arguments,
    second: Arguments,
    fewer: Arguments | None,
    halves: tuple[Arguments, Arguments] | None,
    *,
    seed: int,
) -> Iterator[VipackError | VipackWarning]:
    """Shared latents whose guide depends on the batch, and rows whose density depends on the others of their batch.

    A prior that does is an error, since there is no model of all rows that has it; a likelihood may be an approximation that
    is meant. Modules are in evaluation mode, so that BatchNorm, which is meant to couple rows in training, is no such case. What
    draws random numbers of its own cannot be told.

    Args:
        second: another batch than `first`.
        fewer: `second` without its last row.
        halves: `second` in two.
    """
    plate = program.batch_plate
    # Programs may refuse other batches for reasons of their own; then no more can be said.
    with contextlib.suppress(VipackError):
        if plate is not None and not isinstance(poutine.unwrap(program.guide), poutine.messenger.Messenger):
            yield from _guide_of_the_batch(program, plate, first, second, seed)
            if fewer is not None:
                yield from _rows_of_the_batch(program, plate, second, fewer, seed)
            if halves is not None and plate.by_program:
                yield from _sums_of_rows(program, plate, second, halves, seed)


def scaled_twice(program: Program, model_trace: Trace, arguments: Arguments) -> Iterator[VipackWarning]:
    """A site in the batch plate that the user has scaled by N/B too."""
    plate = program.batch_plate
    if plate is None or plate.name is None or arguments.indices is None or plate.num_rows == len(arguments.indices):
        return
    ratio = plate.num_rows / len(arguments.indices)
    for name, node in sample_nodes(model_trace).items():
        if isinstance(node["scale"], int | float) and abs(node["scale"] / ratio**2 - 1) < 1e-6:
            yield ProgramWarning(
                f"site {name!r} is scaled by {ratio:g} = N/B twice, by the batch plate {plate.name!r} and by the program; "
                "remove poutine.scale from it, since batch_size= does that."
            )
            return


def _guide_of_the_batch(
    program: Program, plate: BatchPlate, first: Arguments, second: Arguments, seed: int
) -> Iterator[VipackWarning]:
    one = _nodes(program, program.guide, first, {}, seed)
    shared = {name: value for name, value in _latents(one).items() if _frame(one[name], plate) is None}
    again = _nodes(program, program.guide, first, shared, seed + 1)
    two = _nodes(program, program.guide, second, shared, seed)
    for name in shared:
        if name in two and _same(one[name], again[name]) and not _same(one[name], two[name]):
            yield ProgramWarning(
                f"guide site {name!r}: its distribution changes with the minibatch, though the latent belongs to all rows, so "
                "that every step trains an approximation of its own, and the one of all rows together, which the fit's draws "
                "come from, is never trained; let it depend on parameters alone, or move the latent into plate "
                f"{plate.name!r} if each row has its own."
            )
            return


def _rows_of_the_batch(
    program: Program, plate: BatchPlate, second: Arguments, fewer: Arguments, seed: int
) -> Iterator[VipackError | VipackWarning]:
    size = batch_size(fewer)
    one = _nodes(program, program.model, second, {}, seed)
    latents = _latents(one)
    again = _nodes(program, program.model, second, latents, seed + 1)
    kept = {name: rows_within(value, one[name], plate, 0, size, events=True) for name, value in latents.items()}
    two = _nodes(program, program.model, fewer, kept, seed)
    for name, node in one.items():
        inside = _frame(node, plate) is not None and name not in plate.factors and not rounds_draws(node["fn"])
        if not inside or name not in two or not _same(node, again[name]):
            continue
        if not _close(rows_within(density(node), node, plate, 0, size, events=False), density(two[name])):
            kind, what = (PlateError, "prior") if is_latent(node) else (ProgramWarning, "density")
            yield kind(
                f"site {name!r}: the {what} of a row in plate {plate.name!r} changes with the other rows of its minibatch, or "
                "with their number, so that the batches do not add up to the model of all rows; make what a row needs of "
                "the others (a mean, a standard deviation, a count) from all rows beforehand and pass it in fixed=."
            )
            return


def _sums_of_rows(
    program: Program, plate: BatchPlate, second: Arguments, halves: tuple[Arguments, Arguments], seed: int
) -> Iterator[VipackError]:
    """What a program scales by N/B in no plate must add up: the density of a batch is that of its halves together."""
    one = _nodes(program, program.model, second, {}, seed)
    shared = {name: value for name, value in _latents(one).items() if _frame(one[name], plate) is None}
    again = _nodes(program, program.model, second, shared, seed + 1)
    half_nodes = [_nodes(program, program.model, half, shared, seed) for half in halves]
    for name, node in one.items():
        scaled = node["is_observed"] and is_scaled(node, plate.num_rows, batch_size(second))
        if not scaled or _frame(node, plate) is not None or not _same(node, again[name]):
            continue
        whole, sums = density(node).sum(), [density(half[name]).sum() for half in half_nodes if name in half]
        if len(sums) == 2 and not torch.allclose(whole, sums[0] + sums[1], rtol=1e-3, atol=1e-3):
            yield PlateError(
                f"site {name!r}: the program scales it by N/B = {plate.num_rows / batch_size(second):g}, but the density of a "
                f"minibatch, {whole.item():.4g}, is not the sum of that of its halves, {sums[0].item():.4g} and "
                f"{sums[1].item():.4g}, so that batches do not add up to the model of all rows; give each row a density of its "
                "own (no mean over them), or leave batch_size out."
            )
            return


def _nodes(
    program: Program, what: Callable[..., Any], arguments: Arguments, given: Mapping[str, Tensor], seed: int
) -> Nodes:
    with contextlib.ExitStack() as stack:
        values = program.parameters.detached()
        bound = program.bound(arguments, values=values, training=False)
        for context in (seeded(seed % 2**32), bound, torch.no_grad(), pyro.validation_enabled(False), Given(given)):
            stack.enter_context(context)
        with explained("program", arguments):
            nodes = sample_nodes(trace_model(what, arguments))
    return {name: node for name, node in nodes.items() if has_density(node)}


def _latents(nodes: Nodes) -> dict[str, Tensor]:
    return {name: node["value"] for name, node in nodes.items() if is_latent(node)}


def _frame(node: Mapping[str, Any], plate: BatchPlate) -> Any:
    frames = (frame for frame in node["cond_indep_stack"] if frame.name == plate.name and frame.vectorized)
    return next(frames, None)


def _same(one: Mapping[str, Any], two: Mapping[str, Any]) -> bool:
    return _close(density(one), density(two))


def _close(before: Tensor, after: Tensor) -> bool:
    return before.shape == after.shape and torch.allclose(before, after, rtol=1e-4, atol=1e-5, equal_nan=True)
