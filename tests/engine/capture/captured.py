"""A captured step of a small program, for tests that look inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vipack.engine.capture.capture import Graph, capture
from vipack.program import Arguments, Program
from vipack.training.prepare import Problem, prepare

__all__ = ["Captured", "captured"]


@dataclass(frozen=True)
class Captured:
    program: Program
    loss: Any
    batch: Arguments
    graph: Graph


def captured(model, guide, data=(), *, loss=None, seed=0, batch_size=None, dtype=None):
    problem = Problem(model, data, batch_size=batch_size, dtype=dtype)
    prepared = prepare(problem, guide, seed=seed, loss=loss)
    graph = capture(prepared.program, prepared.loss, prepared.first)
    return Captured(prepared.program, prepared.loss, prepared.first, graph)
