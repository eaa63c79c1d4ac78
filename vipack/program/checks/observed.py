"""Whether new observations are such as the model can observe."""

from __future__ import annotations

import torch

from vipack.program.densities.values import outside_support, unvalidated
from vipack.program.program import Program
from vipack.program.running.randomness import seeded
from vipack.program.running.runs import Arguments, named_arguments, trace_prior

__all__ = ["check_observed"]


def check_observed(program: Program, call: Arguments, *, with_guide: bool = True) -> None:
    """
    Args:
        call: on observations that the check before training has not seen.
        with_guide: False runs the model alone, on draws of its prior.

    Raises:
        SupportError, DataError: an observed value is outside the support of its site, whose density there is no density.
    """
    values = program.parameters.detached()
    with seeded(0), program.bound(call, values=values, training=False), unvalidated(), torch.no_grad():
        model_trace = program.traces(call)[1] if with_guide else trace_prior(program.model, call)
        for error in outside_support(model_trace, named_arguments(program.model, call)):
            raise error
