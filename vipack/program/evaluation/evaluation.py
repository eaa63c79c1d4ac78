"""The one module that turns a program into log p, log q and answers, whatever effect handlers are at work in it.

A run here is a single draw: pure, differentiable and vmappable, so that whoever asks (posterior, log joint, objectives,
ladder, diagnostics) may run it for many draws by its own method. Densities are those that Pyro's ``Trace_ELBO`` and
``TraceEnum_ELBO`` add up, but for latents that a mask leaves out (see :mod:`vipack.program.densities.masking`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from vipack.errors import SiteError
from vipack.program.densities.densities import compute, count_numbers, plate_nesting, row_plate, total
from vipack.program.densities.enumeration import Enumerate, depends_on_enumeration, draw_enumerated, sum_enumerated
from vipack.program.densities.filling import without_missing
from vipack.program.densities.masking import (
    counting,
    elsewhere,
    leave_out,
    over_events,
    standard_density,
    standard_terms,
)
from vipack.program.densities.substitution import Given
from vipack.program.evaluation.simulation import conditioned_sites
from vipack.program.program import Program
from vipack.program.running.randomness import seeded
from vipack.program.running.runs import Arguments, trace_model
from vipack.program.sites.sites import SiteTable, is_deterministic, read_sites, sample_nodes

__all__ = ["Evaluation", "ModelDensity"]

Latents = dict[str, Tensor]


class ModelDensity:
    """Runs of a model under given latents, and log p(x, z) of each with its enumerated latents summed out.

    Args:
        nesting: how many dimensions the plates of the model, and of its guide if it has one, take.
        enumerates: whether it has latents to sum out.
    """

    def __init__(self, model: Callable[..., Any], *, nesting: int, enumerates: bool) -> None:
        self.nesting = nesting
        self.enumerates = enumerates
        self._run = Enumerate(first_available_dim=-1 - nesting)(model) if enumerates else model

    def trace(self, arguments: Arguments, given: Messenger) -> Trace:
        """A run under the messenger that gives the latents; discrete ones to be summed out are enumerated."""
        with given:
            return trace_model(self._run, arguments)

    def log_p(self, trace: Trace, dtype: torch.dtype | None = None) -> Tensor:
        """log p(x, z) ``()`` in nats of such a trace, as Pyro's ELBOs add it up; sites are added up in `dtype`."""
        if self.enumerates:
            return sum_enumerated(trace, self.nesting, dtype)
        compute(trace)
        terms = [n["log_prob"].sum(dtype=dtype) for n in sample_nodes(trace).values() if "log_prob" in n]
        return torch.stack(terms).sum() if terms else torch.zeros((), dtype=dtype)


class Evaluation:
    """One program called with one set of arguments. Its methods are to be called inside ``Program.bound``.

    Attributes:
        table: the model's sites.
        observed: site -> observed value.
        masks: observed site -> which of its observations count; only sites with a mask.
        counted: latent -> which of its elements count, in the dimensions of its value, for latents of which a mask leaves
            out elements that nothing depends on.
        row_plate: the plate over whose rows the weights are a product, if there is one.
        varying: deterministic sites that depend on enumerated latents, and have no value without a draw of these.
        numbers: roughly how many numbers one run keeps at a time.
    """

    def __init__(self, program: Program, arguments: Arguments) -> None:
        self.program, self.arguments = program, arguments
        guide_trace, model_trace = program.traces(arguments)
        self.guide_trace, self.model_trace = guide_trace, model_trace
        self.table: SiteTable = read_sites(model_trace, guide_trace)
        nodes = model_trace.nodes
        self.observed = {site.name: nodes[site.name]["value"] for site in self.table.of_kind("observed")}
        all_masks = {name: counting(nodes[name]) for name in self.observed}
        self.masks = {name: mask for name, mask in all_masks.items() if mask is not None}
        self.latents = [site.name for site in self.table.of_kind("latent")]
        self.enumerated = [site.name for site in self.table.of_kind("enumerated")]
        treated = program.treatments_of(guide_trace, model_trace, arguments)
        idle = [name for name in self.latents if treated.get(name) in ("left out", "standard normal")]
        masks = {name: mask for name in idle if (mask := counting(nodes[name])) is not None}
        self.counted = {name: over_events(mask, nodes[name]["fn"].event_dim) for name, mask in masks.items()}
        self._left_out = {name: mask for name, mask in masks.items() if treated[name] == "left out"}
        self._standard = {name for name in masks if treated[name] == "standard normal"}
        self.row_plate = row_plate(self.table, guide_trace)
        self.density = ModelDensity(
            program.model, nesting=plate_nesting(guide_trace, model_trace), enumerates=bool(self.enumerated)
        )
        self.varying: frozenset[str] = frozenset()
        trace = model_trace
        if self.enumerated:
            trace = self._model({name: nodes[name]["value"] for name in self.latents})
            self.varying = frozenset(
                name
                for name, node in sample_nodes(trace).items()
                if is_deterministic(node) and depends_on_enumeration(node["value"], nodes[name]["value"].shape)
            )
        self.numbers = count_numbers(guide_trace, trace)

    @cached_property
    def conditioned(self) -> frozenset[str]:
        """Observed sites that ``poutine.condition`` holds at a value, and that are no data."""

        def run(latents: Mapping[str, Tensor]) -> Trace:
            with seeded(0), Given(latents):
                return trace_model(self.program.model, self.arguments)

        with seeded(0):
            one, another = self.draw()[0], self.draw()[0]
        return conditioned_sites(run, one, another)

    # --- the guide

    def draw(self, arguments: Arguments | None = None) -> tuple[Latents, Tensor, Tensor]:
        """One draw of the guide: latents by name, log q ``()`` and its rows ``(N,)`` in nats, in float64.

        Args:
            arguments: call the guide with these, in place of its own.
        """
        trace = self.guide(self.program.guide, arguments)
        return {name: trace.nodes[name]["value"] for name in self.latents}, *total(trace, self.row_plate)

    def guide(self, guide: Callable[..., Any], arguments: Arguments | None = None) -> Trace:
        """One trace of `guide`, the program's own under some handlers, with its log densities."""
        call = self.arguments if arguments is None else arguments
        if isinstance(poutine.unwrap(guide), Messenger):  # it runs the model itself
            trace = self.program.traces(call)[0]
        else:
            trace = trace_model(guide, call)
        if arguments is None:  # the masks are those of its own data
            leave_out(trace, self._left_out)
        return compute(trace)

    # --- the model

    def evaluate(self, latents: Mapping[str, Tensor]) -> tuple[Latents, Tensor, Tensor]:
        """The model at one draw: deterministic sites, but for the varying ones, log p(x, z) and its rows, in float64."""
        trace = self._model(latents)
        kept = self._deterministic(trace, self.varying)
        if self.enumerated:
            log_p = sum_enumerated(trace, self.density.nesting, torch.float64)
            log_p = log_p + standard_terms(trace, self._standard)
            return kept, log_p, log_p.new_empty(0)
        return kept, *total(self.with_densities(trace), self.row_plate)

    def sites(self, latents: Mapping[str, Tensor]) -> Latents:
        """The deterministic sites at one draw, but for the varying ones, without densities."""
        return self._deterministic(self._model(latents), self.varying)

    def model(self, latents: Mapping[str, Tensor]) -> Trace:
        """One trace of the model at given latents, its log densities computed; for models without enumeration."""
        return self.with_densities(self._model(latents))

    def with_densities(self, trace: Trace) -> Trace:
        """A trace of the model with its log densities, idle elements included."""
        compute(trace)
        for name in self._standard:
            node = trace.nodes[name]
            counted = counting(node)
            if counted is not None:
                density = elsewhere(counted, standard_density(node["fn"], node["value"]))
                node["log_prob"] = node["log_prob"] + density
        return trace

    def draw_enumerated(self, latents: Mapping[str, Tensor]) -> Latents:
        """One draw of the enumerated latents from their posterior, given the others and the data."""
        drawn = draw_enumerated(self._model(latents), self.density.nesting)
        shapes = {name: self.model_trace.nodes[name]["value"].shape for name in drawn}
        return {name: value.expand(shapes[name]) for name, value in drawn.items()}

    def deterministic(self, values: Mapping[str, Tensor]) -> Latents:
        """The deterministic sites where all latents are given, the enumerated ones too."""
        with Given(values):
            return self._deterministic(trace_model(self.program.model, self.arguments))

    def log_likelihood(self, latents: Mapping[str, Tensor]) -> Latents:
        """log p(x_i | z) of each observation ``(*batch shape)`` in nats, neither scaled nor masked; NaN where it is missing."""
        with Given(latents):
            trace = trace_model(self.program.model, self.arguments)
        gone = [name for name in self.observed if name not in trace.nodes]
        if gone:
            raise SiteError(
                f"observed site {gone[0]!r} is not in the model any more, whose sites are now {', '.join(sample_nodes(trace))}: "
                "what the model reads has changed since its posterior was first looked at; put it back, or fit anew."
            )
        compute(trace)
        return {name: without_missing(trace.nodes[name]) for name in self.observed}

    def _model(self, latents: Mapping[str, Tensor]) -> Trace:
        return self.density.trace(self.arguments, Given(latents))

    def _deterministic(self, trace: Trace, without: frozenset[str] = frozenset()) -> Latents:
        nodes = sample_nodes(trace)
        return {n: node["value"] for n, node in nodes.items() if is_deterministic(node) and n not in without}
