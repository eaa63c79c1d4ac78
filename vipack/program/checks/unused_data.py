"""Arrays of the data that change nothing in model and guide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from vipack.errors import DataWarning, VipackError, VipackWarning
from vipack.program.densities.values import same_values
from vipack.program.program import Program
from vipack.program.running.randomness import seeded
from vipack.program.running.runs import Arguments, named_arguments
from vipack.program.sites.sites import sample_nodes

__all__ = ["unused_data"]


def unused_data(
    program: Program,
    arguments: Arguments,
    arrays: Mapping[str, Any],
    traces: tuple[Trace, Trace],
    seed: int,
) -> Iterator[VipackWarning]:
    """Arrays of the data whose rows can be exchanged or replaced without a change at any site of model or guide.

    Args:
        traces: guide and model on `arguments`, on the stream of `seed`.
    """
    for name, array in arrays.items():
        if not isinstance(array, Tensor) or array.layout != torch.strided or array.dim() == 0:
            continue
        rolled = array.roll(1, 0)
        if same_values(rolled, array):
            continue
        # A sum or a mean is the same in any order of the rows, but not if all rows are the first one.
        others = (rolled, array[:1].expand_as(array).clone())
        calls = [_replaced(program, arguments, name, other) for other in others]
        if not any(_matters(program, call, traces, seed) for call in calls) and not _matters_elsewhere(
            program, arguments, calls, seed
        ):
            yield DataWarning(
                f"argument {name!r} changes nothing at any site of the model or the guide; is an obs={name} forgotten? "
                "If it is not needed, leave it out of data."
            )


def _matters_elsewhere(program: Program, arguments: Arguments, calls: list[Arguments], seed: int) -> bool:
    """Whether it matters at other parameters: at its start a network or a Gaussian process may be the same everywhere."""
    with seeded(seed):
        values = program.parameters.detached()
        moved = {n: v + 0.1 * torch.randn_like(v) if v.is_floating_point() else v for n, v in values.items()}
    with program.bound(arguments, values=moved):
        try:
            with seeded(seed):
                traces = program.traces(arguments)
        except VipackError:  # the program cannot run with these parameters
            return False
        return any(_matters(program, call, traces, seed) for call in calls)


def _matters(program: Program, arguments: Arguments, traces: tuple[Trace, Trace], seed: int) -> bool:
    try:
        with seeded(seed):
            others = program.traces(arguments)
    except VipackError:  # the program refuses other rows, so it reads them
        return True
    return not all(_alike(one, two) for one, two in zip(traces, others, strict=True))


def _replaced(program: Program, arguments: Arguments, name: str, value: Tensor) -> Arguments:
    if name in arguments.kwargs:
        return Arguments(arguments.args, {**arguments.kwargs, name: value}, arguments.indices)
    position = list(named_arguments(program.model, arguments)).index(name)
    args = (*arguments.args[:position], value, *arguments.args[position + 1 :])
    return Arguments(args, arguments.kwargs, arguments.indices)


def _alike(one: Trace, two: Trace) -> bool:
    for name, node in sample_nodes(one).items():
        other = two.nodes.get(name)
        if other is None or not _same(node["value"], other["value"]):
            return False
        if not _same(node["fn"].log_prob(node["value"]), other["fn"].log_prob(other["value"])):
            return False
        if not all(_same(node[key], other[key]) for key in ("mask", "scale")):
            return False
    return True


def _same(one: Any, two: Any) -> bool:
    if not (isinstance(one, Tensor) and isinstance(two, Tensor)):
        return type(one) is type(two) and bool(one == two)
    return same_values(one, two)
