"""The seam between a run and an engine: advance some steps along a stream of batches, and report what ran."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, Protocol

from vipack.engine.eager import EagerStep
from vipack.engine.optimizers import FitOptimizer
from vipack.errors import NonFiniteError
from vipack.program import Arguments, Program
from vipack.types import EngineReport

__all__ = ["EagerEngine", "Engine", "NonFiniteStep"]


class NonFiniteStep(Exception):
    """A step met NaN or infinity; the losses before it are kept, and nothing of the step itself."""

    def __init__(self, losses: list[float], cause: NonFiniteError) -> None:
        super().__init__(str(cause))
        self.losses = losses
        self.cause = cause


class Engine(Protocol):
    """Runs steps. The parameters, the optimizer's state and the generators are up to date after every call."""

    report: EngineReport

    def advance(self, batches: Iterator[Arguments], num_steps: int) -> list[float]:
        """Take `num_steps` steps and return their losses (nats).

        Raises:
            NonFiniteStep: a loss or gradient is not finite.
        """
        ...


class EagerEngine:
    """One ``pyro.infer.SVI`` step after another."""

    def __init__(self, program: Program, loss: Any, optimizer: FitOptimizer) -> None:
        self._step = EagerStep(program, loss, optimizer)
        self.report = EngineReport("eager", steps={"eager": 0})

    def advance(self, batches: Iterator[Arguments], num_steps: int) -> list[float]:
        """See :class:`Engine`."""
        losses: list[float] = []
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Encountered NaN")  # Pyro's; ours names the site
            for _ in range(num_steps):
                try:
                    losses.append(self._step(next(batches)))
                except NonFiniteError as error:
                    raise NonFiniteStep(losses, error) from error
                self.report.steps["eager"] += 1
        return losses
