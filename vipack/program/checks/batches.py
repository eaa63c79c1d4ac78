"""Which plate a minibatch is rows of: found by running the model on batches, and proved by what changes with them."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.infer.autoguide import AutoContinuous, AutoGuide, AutoStructured
from pyro.infer.autoguide.gaussian import AutoGaussian
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_factor

from vipack.errors import ModelError, PlateError, ShapeError, UsageError
from vipack.program.checks.batch_traces import batch_size, density, prior_trace
from vipack.program.checks.factors import Halved, scaled_factors
from vipack.program.densities.values import same_values
from vipack.program.program import Program
from vipack.program.running.runs import Arguments
from vipack.program.sites.plates import BatchPlate, is_scaled, own_scale
from vipack.program.sites.sites import has_density, is_latent, sample_nodes

__all__ = ["BatchCalls", "check_local_latents", "cover_batches", "draws_jointly", "local_latents"]


@dataclasses.dataclass(frozen=True)
class BatchCalls:
    """Calls of a model that are compared with each other.

    Attributes:
        full: makes the call on every row, which may be costly; None where they are too many for that.
        first, second: on two different batches.
        fewer: on another number of rows, if a batch has more than one.
        halved: makes a call on a batch and those on its two halves, for programs with factors.
    """

    full: Callable[[], Arguments | None]
    first: Arguments
    second: Arguments
    fewer: Arguments | None
    halved: Callable[[], Halved | None]


def cover_batches(
    program: Program,
    calls: BatchCalls,
    *,
    num_rows: int,
    name: str | None,
    seed: int,
) -> BatchPlate:
    """What scales a minibatch to all `num_rows` rows; set on `program` and proved to cover every site.

    That is a plate, or the program itself, as with ``poutine.scale(scale=N / len(x))`` or a ``pyro.factor`` times that, or
    both in turn.

    Args:
        name: the plate's name, if the user gave it.

    Raises:
        PlateError: no plate, several, a site that changes with the batch and stands outside the plate, or one that the program
            scales by another factor than N/B.
        ShapeError: the plate has another size than the data.
    """
    first, fewer = calls.first, calls.fewer
    size = batch_size(first)
    plain = Arguments(first.args, first.kwargs)
    trace = None
    try:
        trace = prior_trace(program, plain, seed)
        candidates = _candidates(trace, size, num_rows)
    except (ModelError, ShapeError):
        candidates = set()
    if not candidates and (every := calls.full()) is not None:
        # A plate for all N rows refuses a batch without the indices of its rows.
        candidates = _candidates(prior_trace(program, every, seed), num_rows, num_rows)
    if name is not None:
        candidates = _named(name, candidates, trace)
    elif len(candidates) > 1:
        candidates = _changing(program, fewer, candidates, num_rows, seed)
    plate = BatchPlate(candidates.copy().pop() if len(candidates) == 1 else None, num_rows)
    program.batch_plate = plate
    if _scales_itself(program, plate, calls, seed):
        plate = program.batch_plate = dataclasses.replace(plate, by_program=True)
    if _has_factors(program, first, seed):
        plate = program.batch_plate = dataclasses.replace(plate, factors=scaled_factors(program, calls.halved, seed))
    if plate.name is None and not plate.by_program and not plate.factors:
        raise _no_single_plate(candidates, trace, size, num_rows)
    _prove(program, plate, first, calls.second, fewer, seed)
    return plate


def _has_factors(program: Program, first: Arguments, seed: int) -> bool:
    with contextlib.suppress(ModelError, ShapeError):
        return any(map(site_is_factor, sample_nodes(prior_trace(program, first, seed)).values()))
    return False


def _candidates(trace: Trace, size: int, num_rows: int) -> set[str]:
    """Plates of `size` rows that stand for that many or for all `num_rows`."""
    return {
        frame.name
        for node in trace.nodes.values()
        if node["type"] == "sample"
        for frame in node["cond_indep_stack"]
        if frame.size == size and (frame.full_size or frame.size) in (size, num_rows)
    }


def _changing(program: Program, fewer: Arguments | None, names: set[str], num_rows: int, seed: int) -> set[str]:
    """Those of the plates `names` that take the size of a batch with fewer rows."""
    if fewer is None:
        return names
    try:
        trace = prior_trace(program, Arguments(fewer.args, fewer.kwargs), seed)
    except (ModelError, ShapeError):
        return names
    return names & _candidates(trace, batch_size(fewer), num_rows) or names


def _named(name: str, candidates: set[str], trace: Trace | None) -> set[str]:
    if not isinstance(name, str):
        raise UsageError(f"batch_plate: expected the name of a plate of the model, found {name!r}.")
    if name in candidates:
        return {name}
    names = sorted(candidates | (_all_plates(trace) if trace is not None else set()))
    raise PlateError(
        f"batch_plate={name!r}: the model has no plate of that name that fits the data; its plates are "
        f"{', '.join(map(repr, names)) or 'none'}. Size the plate by the data, as in pyro.plate({name!r}, len(x))."
    )


def _no_single_plate(candidates: set[str], trace: Trace | None, size: int, num_rows: int) -> PlateError:
    if candidates:
        listed = ", ".join(map(repr, sorted(candidates)))
        return PlateError(
            f"plates {listed} all have the size of the data; say which one the batches are rows of with batch_plate=."
        )
    site = next((n for n, s in trace.nodes.items() if _is_observed(s)), None) if trace is not None else None
    factor = own_scale(trace.nodes[site]) if trace is not None and site else None
    if factor is not None and factor != 1:
        return PlateError(
            f"observed site {site!r}: a minibatch of {size} of {num_rows} rows is in no plate, and the program scales it by "
            f"{factor:g} whatever the number of rows; write poutine.scale(scale={num_rows} / len(x)), which is 1 on all "
            "rows, or open `with pyro.plate('data', len(x)):` around the statements of the rows in its place."
        )
    if trace is not None and site and site_is_factor(trace.nodes[site]):
        return PlateError(_unscaled_factor(site, size, BatchPlate(None, num_rows)))
    where = f"observed site {site!r}" if site else "the model"
    plates = ", ".join(map(repr, sorted(_all_plates(trace)))) if trace is not None else ""
    return PlateError(
        f"{where}: a minibatch of {size} of {num_rows} rows is in no plate (plates: {plates or 'none'}), so log p would "
        f"count {size} rows where there are {num_rows}; open `with pyro.plate('data', len(x)):` around the statements of "
        "the rows, or leave batch_size out."
    )


def _scales_itself(
    program: Program,
    plate: BatchPlate,
    calls: BatchCalls,
    seed: int,
) -> bool:
    """Whether the program scales some site by N/B, of the first batch and of another number of rows.

    Raises:
        PlateError: a factor follows the number of rows, but is not N/B.
    """
    size, num_rows = batch_size(calls.first), plate.num_rows
    try:
        one, again = (_factors(prior_trace(program, calls.first, seed), plate, size) for _ in range(2))
        if one != again or all(factor == 1 for factor in one.values()):
            return False  # a factor that changes from run to run, as in annealing, does not depend on the rows
        other_size = batch_size(calls.fewer) if calls.fewer is not None else num_rows
        others = calls.full() if calls.fewer is None else calls.fewer
        if others is None:
            return False
        other = prior_trace(program, others, seed)
        two = _factors(other, plate, other_size)
    except (ModelError, ShapeError):
        return False
    scales = False
    for name, factor in one.items():
        if name not in two or math.isclose(factor, two[name], rel_tol=1e-6):
            continue
        pairs = ((factor, size), (two[name], other_size))
        if not all(math.isclose(value, num_rows / rows, rel_tol=1e-6) for value, rows in pairs):
            raise PlateError(
                f"site {name!r}: the program scales it by {factor:g} in a minibatch of {size} rows and by {two[name]:g} in one of "
                f"{other_size}, where N/B is {num_rows / size:g} and {num_rows / other_size:g} for all {num_rows} rows; write "
                f"poutine.scale(scale={num_rows} / len(x)), or leave it out and open a plate, which is scaled by itself."
            )
        scales = True
    return scales


def _factors(trace: Trace, plate: BatchPlate, size: int) -> dict[str, float]:
    """What the program scales each site by itself, where that is one number."""
    factors = {}
    for name, node in sample_nodes(trace).items():
        factor = own_scale(node)
        if factor is None or not has_density(node):
            continue
        for frame in node["cond_indep_stack"]:
            if frame.name == plate.name and frame.full_size != plate.num_rows:
                factor = factor * size / plate.num_rows  # takes out the plate's own scale
        factors[name] = factor
    return factors


def _prove(
    program: Program, plate: BatchPlate, first: Arguments, second: Arguments, fewer: Arguments | None, seed: int
) -> None:
    """Whatever changes from one batch to another must stand in the batch plate, and the plate must follow the data."""
    one = prior_trace(program, first, seed)
    outside = {
        n: node["value"] for n, node in sample_nodes(one).items() if is_latent(node) and not _inside(node, plate)
    }

    def compare(batch: Arguments) -> None:
        sizes = batch_size(first), batch_size(batch)
        _compare(plate, one, prior_trace(program, batch, seed), sizes)
        # At the same values of the latents outside of the plate, for their densities.
        _compare(plate, one, prior_trace(program, batch, seed, outside), sizes)

    compare(second)
    # A model may need a full batch for reasons of its own, as BatchNorm does; then no more can be said.
    with contextlib.suppress(ModelError):
        if fewer is not None:
            compare(fewer)


def _compare(plate: BatchPlate, one: Trace, two: Trace, sizes: tuple[int, int]) -> None:
    others, (size, other_size) = sample_nodes(two), sizes
    for name, node in sample_nodes(one).items():
        if not has_density(node) or _inside(node, plate) or name in plate.factors:
            continue
        kind = "observed site" if node["is_observed"] else "latent site"
        if name not in others:
            if size != other_size:
                raise PlateError(
                    f"{kind} {name!r} comes and goes with the number of rows of the minibatch {_outside(plate, size)}"
                )
            continue
        change, latent = _change(node, others[name]), is_latent(node)
        scaled = is_scaled(node, plate.num_rows, size) and is_scaled(others[name], plate.num_rows, other_size)
        if change == "density" and latent:
            raise PlateError(
                f"latent site {name!r}: its prior changes with the minibatch, so that every batch has a model of its own; make "
                "what the prior needs of the data (their number, their standard deviation) from all rows beforehand and "
                "pass it in fixed=, or leave batch_size out."
            )
        if change and site_is_factor(node) and not scaled:
            raise PlateError(_unscaled_factor(name, size, plate))
        if change and (latent or not scaled):
            raise PlateError(f"{kind} {name!r} changes with the minibatch {_outside(plate, size)}")
        if plate.by_program and scaled and (latent or (not change and size != other_size)):
            cure = "put poutine.scale around the statements of the rows alone"
            if latent:
                cure += ", or, if each row has a value of its own, open `with pyro.plate('data', len(x)):` around it"
            raise PlateError(
                f"{kind} {name!r} is scaled by N/B = {plate.num_rows / size:g}, though it belongs to all rows at once; {cure}."
            )


def _unscaled_factor(name: str, size: int, plate: BatchPlate) -> str:
    where = "in no plate" if plate.name is None else f"outside plate {plate.name!r}"
    return (
        f"factor {name!r} changes with the minibatch, stands {where}, and is not N/B times a sum over the {size} rows, so that log p "
        f"would not count all {plate.num_rows}; write pyro.factor({name!r}, {plate.num_rows} / len(x) * log_p.sum()), with the number of "
        f"rows in the batch and no constant, or move it into `with pyro.plate({plate.name or 'data'!r}, len(x)):`, a factor for each "
        "row, which is scaled by itself."
    )


def _outside(plate: BatchPlate, size: int) -> str:
    """What is wrong with a site that changes with the batch, and what to do."""
    if plate.name is None:
        return (
            f"but is not scaled by N/B = {plate.num_rows / size:g}, as other sites are by the program; move it into the same "
            "poutine.scale, or, if each row has a latent of its own, open `with pyro.plate('data', len(x)):` around both."
        )
    return (
        f"but stands outside plate {plate.name!r}, so it would not be scaled to all {plate.num_rows} rows; move it into "
        f"`with pyro.plate({plate.name!r}, len(x)):` (without .to_event over the rows), or leave batch_size out."
    )


def _change(node: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What differs at a site between two batches: its value, or, at the same value, its density."""
    value, other_value = node["value"], other["value"]
    if value.shape != other_value.shape:
        return "value"
    if not same_values(value, other_value):
        return "value" if node["is_observed"] else ""  # a latent's value is another draw
    one, two = (density(n) for n in (node, other))
    return "" if one.shape == two.shape and torch.allclose(one, two, equal_nan=True) else "density"


def local_latents(program: Program, batch: Arguments, *, seed: int) -> tuple[str, ...]:
    """The latents that stand in the batch plate: each row of the data has its own."""
    plate = program.batch_plate
    if plate is None:
        return ()
    nodes = prior_trace(program, batch, seed).nodes.items()
    return tuple(name for name, node in nodes if is_latent(node) and _inside(node, plate))


def check_local_latents(program: Program, names: tuple[str, ...], *, indexed: bool) -> None:
    """Automatic guides keep parameters for every row of a local latent; say where that cannot work.

    Args:
        names: the local latents.
        indexed: whether a batch says which rows it holds.

    Raises:
        PlateError: the guide is automatic, and would use one row's parameters for another.
    """
    plate, guide = program.batch_plate, program.guide
    if plate is None or not isinstance(guide, AutoGuide) or getattr(guide, "amortized", False):
        return
    for name in names:
        if not indexed:
            raise PlateError(
                f"latent site {name!r} stands in the batch plate {plate.name!r}, and {type(guide).__name__} keeps "
                "parameters for each row, but a DataLoader does not say which rows a batch holds; pass its Dataset "
                "with batch_size=, or write an amortised guide."
            )
        joint = next((module for module in guide.modules() if draws_jointly(module, name)), None)
        if joint is not None:
            raise PlateError(
                f"latent site {name!r} stands in the batch plate {plate.name!r}, but {type(joint).__name__} draws "
                "all rows as one vector and cannot take a batch of them; use AutoNormal, an amortised guide, or leave "
                "batch_size out."
            )


def draws_jointly(module: torch.nn.Module, name: str) -> bool:
    """Whether an automatic guide draws the rows of a local latent as one vector, without knowing which rows they are."""
    if not isinstance(module, AutoContinuous | AutoGaussian | AutoStructured):
        return False
    prototype: Any = module.prototype_trace
    return prototype is not None and name in prototype.nodes


def _inside(node: Mapping[str, Any], plate: BatchPlate) -> bool:
    return plate.name in {frame.name for frame in node["cond_indep_stack"]}


def _is_observed(node: dict[str, object]) -> bool:
    return node["type"] == "sample" and bool(node["is_observed"])


def _all_plates(trace: Trace) -> set[str]:
    return {f.name for s in trace.nodes.values() if s["type"] == "sample" for f in s["cond_indep_stack"]}
