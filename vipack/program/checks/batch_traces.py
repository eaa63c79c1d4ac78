"""The model run on minibatches, for what is read from its traces before training."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import pyro
import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from vipack.program.densities.substitution import Given
from vipack.program.program import Program
from vipack.program.running.flat import flat_priors_sampled
from vipack.program.running.randomness import seeded
from vipack.program.running.runs import Arguments, trace_prior

__all__ = ["batch_size", "density", "prior_trace"]


def prior_trace(
    program: Program,
    arguments: Arguments,
    seed: int,
    given: Mapping[str, Tensor] | None = None,
    *,
    training: bool = True,
) -> Trace:
    """A trace of the model with its latents drawn from the prior, or as `given`; modules are in the mode that `training` says."""
    with contextlib.ExitStack() as stack:
        bound = program.bound(arguments, training=training)
        for context in (seeded(seed % 2**32), bound, flat_priors_sampled(), torch.no_grad()):
            stack.enter_context(context)
        stack.enter_context(pyro.validation_enabled(False))
        stack.enter_context(Given(given or {}))
        return trace_prior(program.model, arguments)


def density(node: Mapping[str, Any]) -> Tensor:
    """The log density of a site over its batch shape in nats, neither scaled nor masked."""
    log_prob: Tensor = node["fn"].log_prob(node["value"])
    return log_prob


def batch_size(arguments: Arguments) -> int:
    """The number of rows in a call on a minibatch."""
    assert arguments.indices is not None
    return len(arguments.indices)
