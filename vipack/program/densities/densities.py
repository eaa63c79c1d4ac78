"""Log densities of a trace, added up: in all, for each draw, and for each row of a plate."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from vipack.program.sites.sites import SiteTable, has_density, sample_nodes

__all__ = [
    "compute",
    "count_numbers",
    "counted_densities",
    "plate_nesting",
    "row_plate",
    "row_sums",
    "same_densities",
    "total",
    "total_of_many",
]


def compute(trace: Trace) -> Trace:
    """The trace, with ``log_prob`` (nats, scaled and masked) and ``unscaled_log_prob`` at each site that has a density."""
    trace.compute_log_prob(site_filter=lambda _, node: not site_is_subsample(node) and has_density(node))
    return trace


def counted_densities(trace: Trace) -> dict[str, Tensor]:
    """site -> log density over its batch shape in nats, masked but not scaled."""
    return {
        name: scale_and_mask(node["fn"].log_prob(node["value"], *node["args"], **node["kwargs"]), mask=node["mask"])
        for name, node in sample_nodes(trace).items()
        if has_density(node)
    }


def same_densities(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> bool:
    """Whether two runs at different values have the same sites and densities, to the last bit."""
    return one.keys() == two.keys() and all(
        torch.equal(value.nan_to_num(), two[name].nan_to_num()) for name, value in one.items()
    )


def total(trace: Trace, plate: str | None) -> tuple[Tensor, Tensor]:
    """log density ``()`` of a trace of one draw and of its rows ``(N,)``, ``(0,)`` without a row plate; in float64.

    The densities of its sites are computed already.
    """
    nodes = _densities(trace)
    every = torch.zeros((), dtype=torch.float64)
    for node in nodes:
        every = every + node["log_prob"].sum(dtype=torch.float64)
    if plate is None:
        return every, torch.empty(0, dtype=torch.float64)
    return every, _add_up([_sum_to_rows(node["log_prob"], node, plate, keep=0) for node in nodes])


def total_of_many(trace: Trace, plate: str | None, num_draws: int, nesting: int) -> tuple[Tensor, Tensor]:
    """As :func:`total` of a trace inside a plate of draws at dimension ``-1 - nesting``: ``(S,)`` and ``(S, N)``.

    Raises:
        RuntimeError: a site's density does not have one value for each draw.
    """
    every = torch.zeros(num_draws, dtype=torch.float64)
    rows = []
    for node in _densities(trace):
        log_prob = node["log_prob"]
        if log_prob.dim() != nesting + 1 or log_prob.shape[0] != num_draws:
            raise RuntimeError("densities do not broadcast over draws")
        every = every + log_prob.reshape(num_draws, -1).sum(-1, dtype=torch.float64)
        if plate is not None:
            rows.append(_sum_to_rows(log_prob, node, plate, keep=1))
    return every, _add_up(rows) if plate is not None else torch.empty(num_draws, 0, dtype=torch.float64)


def row_plate(table: SiteTable, guide_trace: Trace) -> str | None:
    """The plate that holds every latent and likelihood term, in model and guide: the weights are a product over its rows.

    A guide that draws its latents jointly, outside the plate, has no density for each row.
    """
    sites = table.of_kind("latent", "observed", "factor")
    if not table.of_kind("latent") or table.of_kind("enumerated"):
        return None
    common = set.intersection(*(set(site.plates) for site in sites))
    for node in _densities(guide_trace):
        common &= {frame.name for frame in node["cond_indep_stack"] if frame.vectorized}
    return min(common, key=lambda name: -table.plates[name], default=None)


def row_sums(trace: Trace, plate: str, *, within: bool = False, names: Collection[str] | None = None) -> Tensor:
    """log density ``(N,)`` of each row of a trace of one draw, in its own type; the densities of its sites are computed already.

    Args:
        within: leave out sites that do not stand in the plate; then zero if there are none.
        names: of the sites that count; all by default.
    """
    nodes = [node for node in _densities(trace) if names is None or node["name"] in names]
    if within:
        nodes = [node for node in nodes if any(f.name == plate and f.vectorized for f in node["cond_indep_stack"])]
    terms = [_sum_to_rows(node["log_prob"], node, plate, keep=0, dtype=None) for node in nodes]
    return _add_up(terms) if terms else torch.zeros(())


def plate_nesting(*traces: Trace) -> int:
    """How many dimensions the plates of the traces take."""
    dims = [
        -frame.dim
        for trace in traces
        for node in trace.nodes.values()
        if node["type"] == "sample"
        for frame in node["cond_indep_stack"]
        if frame.vectorized
    ]
    return max(dims, default=0)


def count_numbers(*traces: Trace) -> int:
    """Roughly how many numbers one draw's run keeps at a time."""
    count = 0
    for trace in traces:
        for node in trace.nodes.values():
            if node["type"] == "sample" and isinstance(node["value"], Tensor):
                shape = getattr(node["fn"], "batch_shape", ()) if hasattr(node["fn"], "batch_shape") else ()
                count += 4 * max(node["value"].numel(), math.prod(shape))
    return count


def _densities(trace: Trace) -> list[dict[str, Any]]:
    return [node for node in sample_nodes(trace).values() if has_density(node)]


def _add_up(terms: list[Tensor]) -> Tensor:
    first, *others = terms
    for term in others:
        first = first + term
    return first


def _sum_to_rows(
    log_prob: Tensor, node: Mapping[str, Any], plate: str, keep: int, dtype: torch.dtype | None = torch.float64
) -> Tensor:
    """Sum `log_prob` over all dimensions but the plate's and the `keep` leftmost."""
    dim = next(frame.dim for frame in node["cond_indep_stack"] if frame.name == plate)
    others = [d for d in range(keep, log_prob.dim()) if d != log_prob.dim() + dim]
    return log_prob.sum(others, dtype=dtype) if others else log_prob.to(dtype=dtype or log_prob.dtype)
