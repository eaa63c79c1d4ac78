"""Whether a guide draws an observation's latents by what it reads of the observation, or by where the observation stands."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import torch
from pyro.distributions import Delta, Normal
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from vipack.errors import GuideError
from vipack.program.densities.densities import compute, row_sums
from vipack.program.densities.substitution import Given
from vipack.program.program import Program
from vipack.program.running.randomness import seeded
from vipack.program.running.runs import Arguments, explained, trace_model
from vipack.program.sites.sites import base_distribution, sample_nodes

__all__ = ["check_amortised"]

_MOVED = 0.1  # how far parameters are moved, so that those of rows are told apart


def check_amortised(
    program: Program, rows: Callable[[Tensor], Arguments], number: int, plate: str, question: str
) -> None:
    """
    Args:
        rows: gives calls on observations that are new to the guide, by their indices, of which the first `number` are looked at.
        plate: holds them.
        question: what is asked of them, for the message.

    Raises:
        GuideError: the guide has parameters for each row of the fit's data, which are not those of other observations.
    """
    every = torch.arange(number)
    calls = (rows(indices) for indices in (every, every.flip(0)))
    call, reversed_call = (Arguments(each.args, each.kwargs) for each in calls)
    generator = torch.Generator().manual_seed(0)
    values = {}
    for name, value in program.parameters.detached().items():
        noise = torch.randn(value.shape, generator=generator).to(value)
        values[name] = value + _MOVED * (1 + value.abs()) * noise
    with seeded(0), pyro.validation_enabled(False), torch.no_grad():
        with program.bound(call, values=values, training=False), explained("guide", call):
            trace = trace_model(program.guide, call)
            alike = {name: _alike(trace, name, plate) for name in sample_nodes(trace)}
            one = _densities(program, call, alike, plate)
        with program.bound(reversed_call, values=values, training=False), explained("guide", reversed_call):
            two = _densities(program, reversed_call, alike, plate)
    if one.shape == two.shape and torch.allclose(one, two.flip(0), rtol=1e-3, atol=1e-3, equal_nan=True):
        return
    raise GuideError(
        f"{question}: the guide has parameters for each row of the fit's data, which say nothing of other observations; fit an "
        "amortised guide, whose network reads the data."
    )


def _alike(trace: Trace, name: str, plate: str) -> Tensor:
    """What the first row drew, for every row."""
    node = trace.nodes[name]
    value: Tensor = node["value"]
    for frame in node["cond_indep_stack"]:
        dim = frame.dim - node["fn"].event_dim if frame.vectorized else 0
        if frame.name == plate and value.dim() >= -dim > 0:
            return value.narrow(dim, 0, 1).expand(value.shape)
    return value


def _densities(program: Program, call: Arguments, given: dict[str, Tensor], plate: str) -> Tensor:
    with Given(given):
        trace = trace_model(program.guide, call)
    for node in sample_nodes(trace).values():
        base = base_distribution(node["fn"])
        if isinstance(base, Delta):  # equal but for rounding, a point has no density: its distance tells as much
            node["fn"] = Normal(base.v, torch.ones_like(base.v)).to_event(node["fn"].event_dim)
    return row_sums(compute(trace), plate, within=True)
