"""Whether each row of a plate counts once, with its own data: densities broadcast over plates, and rows that differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from pyro.infer.autoguide import AutoGuide
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_factor

from vipack.errors import PlateError, ProgramWarning, SiteError, VipackError, VipackWarning
from vipack.program.checks.batches import draws_jointly
from vipack.program.program import Program
from vipack.program.running.runs import Arguments
from vipack.program.sites.plates import OWN_BATCH_SHAPE, PlateCall
from vipack.program.sites.sites import SiteTable, base_distribution, is_deterministic, sample_nodes

__all__ = ["broadcast_densities", "fixed_without_effect", "own_rows", "rows_of_others"]

Opened = Mapping[str, Sequence[PlateCall]]


def broadcast_densities(where: str, trace: Trace) -> Iterator[VipackError]:
    """Observed sites and factors that have no dimension for a plate that they stand in: each counts once for every row.

    Args:
        trace: run inside ``own_batch_shapes()``.
    """
    for name, node in sample_nodes(trace).items():
        own = node["infer"].get(OWN_BATCH_SHAPE)
        if own is None or not node["is_observed"] or is_deterministic(node) or node["mask"] is False:
            continue
        factor = site_is_factor(node)
        shape = tuple(node["value"].shape)
        batch = () if factor else shape[: len(shape) - node["fn"].event_dim]
        for frame in node["cond_indep_stack"]:
            if not frame.vectorized or frame.size <= 1 or _has(own, frame.dim) or _has(batch, frame.dim):
                continue
            plate = f"plate {frame.name!r} (size {frame.size} at dim {frame.dim})"
            if factor:
                yield PlateError(
                    f"{where} site {name!r}: the factor has shape {own}, without a dimension for {plate}, so that it counts "
                    f"{frame.size} times; give one number for each row (no .sum() over them), or move the statement out of "
                    f"the plate. If each row shall have the same number, expand it to {frame.size} of them."
                )
            else:
                event = shape[len(batch) :]
                yield PlateError(
                    f"{where} site {name!r}: the observed value has shape {shape}, of which {event} is one draw of "
                    f"{type(base_distribution(node['fn'])).__name__}, and no dimension for {plate}; nor has the "
                    f"distribution, so that the same density counts {frame.size} times. Leave out .to_event() and .expand(), "
                    "so that the rows are the plate's, or move the statement out of the plate; to weigh it, use poutine.scale."
                )


def rows_of_others(
    program: Program, table: SiteTable, guide_trace: Trace, arguments: Arguments, opened: Opened
) -> Iterator[VipackError]:
    """Plates in which a latent of one row would be trained on the data of another.

    Args:
        opened: how the model opened its plates, replayed against `guide_trace`.
    """
    nodes = sample_nodes(guide_trace)
    for plate, calls in opened.items():
        call = calls[-1]
        local = [
            site.name
            for site in table.of_kind("latent")
            if site.in_guide and plate in {frame.name for frame in nodes[site.name]["cond_indep_stack"]}
        ]
        if not local:
            continue
        if call.subsample is not None:
            if not _same_rows(call.subsample, call.rows):
                yield PlateError(
                    f"latent site {local[0]!r}: the model opens plate {plate!r} on rows of its own choice (subsample=), but "
                    "the guide holds other rows of it, so that latents would be trained on the data of other rows. Let the "
                    f"plate choose, as in `with pyro.plate({plate!r}, N, subsample_size=B) as rows:` and x[rows]; or draw the "
                    "rows outside of model and guide and pass them to both as data (to an automatic guide through "
                    "create_plates=)."
                )
        elif (joint := _joint_guide(program, local, call)) is not None:
            yield PlateError(
                f"latent site {joint[0]!r}: the model takes {call.subsample_size} of {call.size} rows of plate {plate!r} at a "
                f"time, but {joint[1]} draws their latents as one vector, whichever rows they are, so that latents would be "
                "trained on the data of other rows; use AutoNormal, an amortised guide, or leave subsample_size out."
            )
        elif _drawn_anew(program, plate, call, arguments):
            yield PlateError(
                f"latent site {local[0]!r}: plate {plate!r} holds {call.subsample_size} of {call.size} rows, drawn anew at "
                f"every run, but the data have the same {call.subsample_size} rows each time, so that latents would be "
                f"trained on the data of other rows; size the plate by the data, as in pyro.plate({plate!r}, len(x)), or pass "
                "all rows as data and batch_size= to the fit."
            )


def own_rows(opened: Opened, again: Opened) -> Iterator[VipackWarning]:
    """Plates whose rows the model draws by itself, so that no run of it is on all data.

    Args:
        opened, again: how two runs from different random numbers opened their plates.
    """
    for plate, calls in opened.items():
        first, second = calls[-1], again.get(plate, calls)[-1]
        if first.subsample is None or len(first.rows) >= first.size or _same_rows(first.subsample, second.subsample):
            continue
        yield ProgramWarning(
            f"plate {plate!r}: the model draws the {len(first.rows)} of {first.size} rows itself (subsample=), and cannot be run "
            "on all of them, so that the ELBO, the weights and the verdict see other rows at every draw; let the plate "
            f"choose, as in `with pyro.plate({plate!r}, {first.size}, subsample_size={len(first.rows)}) as rows:`."
        )


def fixed_without_effect(trace: Trace) -> Iterator[VipackError]:
    """Computed sites that were given another value from outside, which changes no density."""
    for name, node in sample_nodes(trace).items():
        if not is_deterministic(node) or not node["is_observed"]:
            continue
        computed, value = base_distribution(node["fn"]).v, node["value"]
        if computed is value or bool(((computed == value) | (computed.isnan() & value.isnan())).all()):
            continue
        yield SiteError(
            f"site {name!r} is computed from others, by pyro.deterministic or a reparametrisation, and poutine.condition gave "
            "it another value, which changes no density; condition what it is computed from, or put the condition inside, as "
            "in poutine.reparam(poutine.condition(model, data), config)."
        )


def _has(shape: Sequence[int], dim: int) -> bool:
    return len(shape) >= -dim and shape[dim] != 1


def _same_rows(one: Any, two: Any) -> bool:
    return torch.equal(torch.as_tensor(one), torch.as_tensor(two))


def _joint_guide(program: Program, local: Sequence[str], call: PlateCall) -> tuple[str, str] | None:
    """The latent of rows, and the automatic guide that draws it with others, where a plate takes some of its rows."""
    guide, size = program.guide, call.subsample_size
    if not isinstance(guide, AutoGuide) or size is None or size >= call.size:
        return None
    joint = [(name, module) for name in local for module in guide.modules() if draws_jointly(module, name)]
    return (joint[0][0], type(joint[0][1]).__name__) if joint else None


def _drawn_anew(program: Program, plate: str, call: PlateCall, arguments: Arguments) -> bool:
    if arguments.indices is not None and program.batch_plate is not None and program.batch_plate.name == plate:
        return False
    size = call.subsample_size
    return size is not None and size < call.size and size in arguments.lengths and call.size not in arguments.lengths
