"""Whether a program can run for all particles of a loss at once, before it is trained so."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pyro
import torch
from pyro.poutine.trace_struct import Trace

from vipack.errors import ShapeError, VipackError
from vipack.program import Arguments, Program, seeded
from vipack.program.densities.densities import plate_nesting
from vipack.program.running.runs import explained
from vipack.program.sites.sites import has_density, sample_nodes

__all__ = ["check_particles"]

_CURE = (
    "make it broadcast over a new dimension on the left, for example (x * b).sum(-1) in place of x @ b, "
    "or leave vectorize_particles out."
)


def check_particles(program: Program, arguments: Arguments, loss: Any, *, seed: int) -> Iterator[VipackError]:
    """What is wrong with running `program` under ``vectorize_particles=True``, if the loss asks for that.

    Pyro looks at shapes in a step too, but not at dimensions left of the particles': a model that puts the particles
    there is trained on all pairs of them, and the guide comes out too narrow by the square root of their number.
    """
    num_particles = getattr(loss, "num_particles", 1)
    if not getattr(loss, "vectorize_particles", False) or num_particles < 2:
        return
    with contextlib.ExitStack() as stack:
        for context in (seeded(seed), program.bound(arguments), pyro.validation_enabled(False), torch.no_grad()):
            stack.enter_context(context)
        nesting = plate_nesting(*program.traces(arguments))
        try:
            particles = pyro.plate("num_particles_vectorized", num_particles, dim=-1 - nesting)
            with explained("model or guide", arguments), particles:
                traces = program.traces(arguments)
                errors = [
                    error
                    for where, trace in zip(("guide", "model"), traces, strict=True)
                    for error in _beyond(where, trace, nesting, num_particles)
                ]
        except VipackError as error:
            errors = [
                ShapeError(
                    f"loss: vectorize_particles=True draws {num_particles} particles at once, which the model or guide "
                    f"does not take ({str(error).rstrip('.')}); {_CURE}"
                )
            ]
    yield from errors


def _beyond(where: str, trace: Trace, nesting: int, num_particles: int) -> Iterator[VipackError]:
    """Sites whose log_prob has dimensions left of the particles'."""
    for name, node in sample_nodes(trace).items():
        if not has_density(node):
            continue
        shape = tuple(node["fn"].log_prob(node["value"]).shape)
        if any(size > 1 for size in shape[: max(0, len(shape) - nesting - 1)]):
            yield ShapeError(
                f"{where} site {name!r}: with {num_particles} vectorized particles its log_prob has shape {shape}, of which "
                f"only the last {nesting + 1} dimension(s) are particles and plates; {_CURE}"
            )
            return
