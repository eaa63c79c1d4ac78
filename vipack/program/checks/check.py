"""The preflight: what is wrong with a model, a guide and their data, found before training and said with a cure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pyro.infer.autoguide import AutoGuide
from pyro.infer.autoguide.effect import AutoMessenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.distributions import constraints

from vipack.display import Readable, block, shortened
from vipack.errors import NonFiniteError, ProgramWarning, VipackError, VipackWarning
from vipack.program.checks.alignment import broadcast_densities, fixed_without_effect, own_rows, rows_of_others
from vipack.program.checks.batch_effects import scaled_twice
from vipack.program.checks.unused_data import unused_data
from vipack.program.densities.densities import plate_nesting
from vipack.program.densities.substitution import Given
from vipack.program.densities.values import (
    forgotten_obs,
    nan_under_masks,
    non_finite_densities,
    outside_support,
    unvalidated,
)
from vipack.program.evaluation.evaluation import ModelDensity
from vipack.program.program import Program
from vipack.program.running.randomness import seeded
from vipack.program.running.runs import Arguments, arguments_left_out, explained, named_arguments
from vipack.program.sites.agreement import (
    compare_plates,
    compare_shapes,
    compare_sites,
    compare_supports,
    rounded_draws,
    support_name,
)
from vipack.program.sites.plates import PlateCall, own_batch_shapes, recorded_plates
from vipack.program.sites.sites import SiteTable, read_sites, sample_nodes

__all__ = ["Check", "check_program"]


@dataclass(frozen=True, repr=False)
class Check(Readable):
    """What was read of a program and what is wrong with it; ``str(check)`` is the shape table.

    Attributes:
        table: the sites, or None when the program could not be run.
        parameters: name -> shape of each unconstrained parameter.
        errors: what would stop or spoil training, worst first.
        warnings: what may be a mistake.
    """

    table: SiteTable | None
    parameters: dict[str, tuple[int, ...]]
    errors: tuple[VipackError, ...]
    warnings: tuple[VipackWarning, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing would stop or spoil training."""
        return not self.errors

    def raise_if_bad(self) -> None:
        """Raise the first error found; the others are added to its notes."""
        if self.errors:
            first, *rest = self.errors
            for other in rest:
                first.add_note(f"also: {other}")
            raise first

    def __str__(self) -> str:
        lines = [str(self.table)] if self.table is not None else []
        return "\n".join([*lines, *self._findings()])

    def _repr_html_(self) -> str:
        table = self.table._repr_html_() if self.table is not None else ""
        return table + block(shortened("\n".join(self._findings())))

    def _findings(self) -> list[str]:
        lines = []
        if self.parameters:
            shapes = ", ".join(f"{name} {shape}" for name, shape in self.parameters.items())
            lines.append(f"parameters: {shapes}")
        lines += [f"error: {error}" for error in self.errors]
        lines += [f"warning: {warning}" for warning in self.warnings]
        return [*lines, "ok" if self.ok else f"{len(self.errors)} error(s)"]


def check_program(
    program: Program, arguments: Arguments, arrays: Mapping[str, Any], *, enumerates: bool = False, seed: int = 0
) -> Check:
    """Run model and guide once on `arguments` and look at every site.

    Args:
        program: initialised, and with its batch plate if `arguments` are a minibatch.
        arrays: name -> array of the data, by the model's own names where it has some.
        enumerates: whether the loss sums out discrete latents (TraceEnum_ELBO).
    """
    errors: list[VipackError] = []
    warnings: list[VipackWarning] = []
    table = None
    everything = named_arguments(program.model, arguments)
    try:
        with seeded(seed), program.bound(arguments), unvalidated():
            with own_batch_shapes(), recorded_plates() as opened:
                guide_trace, model_trace = program.traces(arguments)
            plate = program.batch_plate
            table = read_sites(
                model_trace, guide_trace, None if plate is None or plate.name is None else (plate.name, plate.num_rows)
            )
            automatic = isinstance(program.guide, AutoGuide | AutoMessenger)
            left_out = arguments_left_out(program.model, arguments)
            errors += forgotten_obs(table, model_trace, arrays, left_out, automatic=automatic)
            errors += compare_sites(table, program.guide, guide_trace, enumerates=enumerates)
            errors += compare_shapes(table, model_trace, guide_trace)
            errors += compare_plates(table, program.batch_plate, guide_trace)
            errors += broadcast_densities("guide", guide_trace)
            errors += broadcast_densities("model", model_trace)
            errors += rows_of_others(program, table, guide_trace, arguments, opened)
            errors += fixed_without_effect(model_trace)
            errors += _parameters(program)
            errors += compare_supports(table, model_trace, guide_trace)
            if not errors:
                errors += outside_support(model_trace, everything)
            if not errors:
                errors += nan_under_masks(model_trace, everything)
            if not errors:
                errors += non_finite_densities(model_trace, guide_trace, everything, arguments)
            if not errors and enumerates:
                _sum_out(program, table, guide_trace, model_trace, arguments)
            if not errors:
                warnings += _own_rows(program, arguments, opened, seed)
                warnings += unused_data(program, arguments, arrays, (guide_trace, model_trace), seed)
                warnings += scaled_twice(program, model_trace, arguments)
                warnings += _unregistered(program, model_trace, guide_trace)
                warnings += _precision(program, model_trace)
                warnings += rounded_draws(model_trace, guide_trace)
                warnings += [] if enumerates else _drawn_though_marked(guide_trace)
    except VipackError as error:
        errors.append(error)
    shapes = {name: tuple(value.shape) for name, value in program.parameters.unconstrained.items()}
    return Check(table, shapes, tuple(errors), tuple(warnings))


def _sum_out(program: Program, table: SiteTable, guide_trace: Trace, model_trace: Trace, arguments: Arguments) -> None:
    """Sum out the enumerated latents once.

    Raises:
        VipackError: they cannot be, as with scales that differ.
    """
    if not table.of_kind("enumerated"):
        return
    density = ModelDensity(program.model, nesting=plate_nesting(guide_trace, model_trace), enumerates=True)
    given = Given({site.name: guide_trace.nodes[site.name]["value"] for site in table.of_kind("latent")})
    with explained("model, its discrete latents enumerated,", arguments), torch.no_grad():
        density.log_p(density.trace(arguments, given))


def _drawn_though_marked(guide_trace: Trace) -> Iterator[VipackWarning]:
    """Discrete latents that the guide asks to be summed out, by a loss that draws them."""
    for name, node in sample_nodes(guide_trace).items():
        if node["infer"].get("enumerate") and not node["is_observed"]:
            yield ProgramWarning(
                f"guide site {name!r} is marked for enumeration, and the loss draws it, which gives noisy gradients; pass "
                "loss=pyro.infer.TraceEnum_ELBO(max_plate_nesting=1), with as many dimensions as the plates have."
            )


def _own_rows(
    program: Program, arguments: Arguments, opened: Mapping[str, list[PlateCall]], seed: int
) -> Iterator[VipackWarning]:
    if any(call.subsample is not None for calls in opened.values() for call in calls):
        with seeded((seed + 1) % 2**32), recorded_plates() as again:
            program.traces(arguments)
        yield from own_rows(opened, again)


def _parameters(program: Program) -> Iterator[VipackError]:
    for name, value in program.parameters.unconstrained.items():
        if not bool(torch.isfinite(value).all()):
            constraint = program.parameters.constraints[name]
            inside = "" if constraint is constraints.real else f" inside its constraint {support_name(constraint)}"
            yield NonFiniteError(
                f"parameter {name!r} starts as NaN or infinite; give it a finite initial value{inside} (for an automatic "
                "guide: init_loc_fn=pyro.infer.autoguide.init_to_median, where a prior has no mean)."
            )
            return


def _unregistered(program: Program, model_trace: Trace, guide_trace: Trace) -> Iterator[VipackWarning]:
    """Tensors that require grad and reach the loss, but that no pyro.param or pyro.module has declared."""
    known = {id(value) for value in program.parameters.unconstrained.values()}
    terms = [trace.log_prob_sum() for trace in (model_trace, guide_trace)]
    tensors: dict[int, Tensor] = {}
    stack = [term.grad_fn for term in terms if isinstance(term, Tensor) and term.grad_fn is not None]
    seen = set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) not in known:
            tensors[id(variable)] = variable
        stack += [parent for parent, _ in node.next_functions if parent is not None]
    if tensors:
        shapes = ", ".join(str(tuple(value.shape)) for value in tensors.values())
        yield ProgramWarning(
            f"{len(tensors)} tensor(s) that require grad reach the loss but are no parameters of the program (shapes "
            f"{shapes}), so they are never trained; declare them with pyro.param or pyro.module, or call "
            ".requires_grad_(False) on them."
        )


def _precision(program: Program, model_trace: Trace) -> Iterator[VipackWarning]:
    for name, node in model_trace.nodes.items():
        if (
            node["type"] == "sample"
            and node["is_observed"]
            and isinstance(node["fn"], torch.distributions.Distribution)
        ):
            dtype = node["fn"].log_prob(node["value"]).dtype
            if dtype.is_floating_point and dtype != program.parameters.dtype:
                yield ProgramWarning(
                    f"site {name!r}: log_prob is {dtype}, the fit runs in {program.parameters.dtype}; a constant of the "
                    "model has another type. Make it with the default dtype, or pass dtype= to the fit."
                )
                return
