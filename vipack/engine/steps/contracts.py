"""What the rooms of the engine, and those who use it, expect of each other."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from vipack.engine.capture.outlook import Effort
from vipack.engine.graph.all_reduce import Reducer
from vipack.engine.guards.execution import Execution
from vipack.engine.optimizers.parameter_groups import ParameterGroup
from vipack.errors import NonFiniteError
from vipack.program import Arguments, Program
from vipack.types import EngineReport

__all__ = ["TIERS", "Batches", "Engine", "EngineMaker", "NonFiniteStep", "SingleSteps", "StepMemory", "Tier"]

Tier = Literal["auto", "eager", "traced", "interpreted", "compiled"]
TIERS: tuple[Tier, ...] = ("auto", "eager", "traced", "interpreted", "compiled")


class NonFiniteStep(Exception):
    """A step met NaN or infinity; the losses before it are kept, and nothing of the step itself.

    Attributes:
        losses: of the steps before, in this call of the engine.
        withdrawn: how many of the last losses that earlier calls gave do not count: a gradient that is not finite shows in
            the loss of the next step only.
    """

    def __init__(self, losses: list[float], cause: NonFiniteError, withdrawn: int = 0) -> None:
        super().__init__(str(cause))
        self.losses = losses
        self.cause = cause
        self.withdrawn = withdrawn

    def after(self, losses: list[float]) -> NonFiniteStep:
        """The same, where `losses` of steps before belong to the call as well."""
        kept = losses[: max(0, len(losses) - self.withdrawn)]
        return NonFiniteStep(kept + self.losses, self.cause, self.withdrawn - (len(losses) - len(kept)))


@dataclass(frozen=True)
class SingleSteps:
    """What an engine is told whose steps are single calls, each of which may come with other tensors.

    Nobody may then go back to an earlier call, and a loss that is not finite is no error.

    Attributes:
        eager: takes one step as Pyro does.
        execution: of a step of the program, where one was recorded.
        effort: the time that eager steps have cost, and captures in vain.
        report: of an earlier engine of the same run, to go on with.
    """

    eager: Callable[[Arguments], float]
    execution: Execution | None
    effort: Effort
    report: EngineReport


class Engine(Protocol):
    """Runs steps. Parameters, optimizer and generators are up to date after every call."""

    report: EngineReport

    def advance(self, batches: Batches, num_steps: int, remaining: int) -> list[float]:
        """Take `num_steps` steps and return their losses (nats).

        Args:
            remaining: steps that the run is expected to take in all from here, for deciding what pays.

        Raises:
            NonFiniteStep: a loss or gradient is not finite.
        """
        ...

    def refresh(self) -> None:
        """Code of the user's has run, which may have written to the data without a note of torch's."""
        ...

    def rest(self) -> None:
        """There are no steps to take for now: stop what goes on in the background."""
        ...

    def go_on(self, tier: Tier, running: str) -> None:
        """Go on as a saved run: its `tier`, and with "auto" the one it was `running` in, if that can be had at once."""
        ...


class EngineMaker(Protocol):
    """Makes an engine whose steps are no steps by gradients, such as coordinate ascent.

    Attributes:
        name: of its kind, by which a saved fit knows what it was trained by.
    """

    @property
    def name(self) -> str:
        """See above."""
        ...

    def make_engine(self, program: Program) -> Engine:
        """The engine that moves this program's parameters."""
        ...


class Batches(Protocol):
    """A stream of batches, as far as an engine needs to know.

    Attributes:
        cells: tensors ``()`` in :meth:`whole` that stand for numbers of the step, which :meth:`scheduled` gives.
    """

    cells: tuple[Tensor, ...]

    def __next__(self) -> Arguments:
        """The next batch."""
        ...

    def peek(self) -> Arguments:
        """The next batch, which stays the next."""
        ...

    def upcoming(self) -> tuple[Hashable, int]:
        """What tells the next batch's shape from others', and how many batches of that shape come in a row."""
        ...

    def indices(self, number: int) -> Tensor | None:
        """Indices ``(number, B)`` of the rows of the next batches, passing them; None where batches are not rows."""
        ...

    def whole(self) -> Arguments | None:
        """The call on all rows; None where they are not tensors in memory."""
        ...

    def scheduled(self, number: int) -> list[Tensor] | None:
        """The numbers of the next steps, ``(number,)`` for each of ``cells``; None where a batch alone is known."""
        ...

    def state(self) -> dict[str, object]:
        """Where the stream stands."""
        ...

    def load_state(self, state: dict[str, object]) -> None:
        """Go back to :meth:`state`."""
        ...


class StepMemory(Protocol):
    """The memory of a step, as far as running it needs to know.

    Attributes:
        names: of the parameters of the groups, by index.
        order: for each parameter of the graph, its index among those of the groups.
        active: for each group, whether the step updates it.
        reducer: adds up gradients over the processes of a run; None where there is one process.
    """

    groups: list[ParameterGroup]
    values: list[Tensor]
    states: list[Tensor]
    copies: int | None
    order: tuple[int, ...]
    active: tuple[bool, ...]

    @property
    def names(self) -> Sequence[str]:
        """See above."""
        ...

    @property
    def reducer(self) -> Reducer | None:
        """See above."""
        ...

    @property
    def one_by_one(self) -> bool:
        """Whether something must be done in Python after every step."""
        ...

    def buffers(self) -> list[Tensor]:
        """The modules' buffers, in order."""
        ...

    def coefficients(self, num_steps: int) -> np.ndarray:
        """The update rules' coefficients for the next steps ``(K, number of all)``."""
        ...

    def next_coefficients(self, dtype: torch.dtype) -> Tensor:
        """Those of one step, ``(1, number of all)``."""
        ...

    def finish(self, loss: float) -> None:
        """What remains of a step with this loss."""
        ...

    def mark(self) -> tuple[Any, ...]:
        """Where the rates stand, for :meth:`undo`."""
        ...

    def undo(self, mark: tuple[Any, ...]) -> None:
        """Take back that rates and counts have moved on by a step since :meth:`mark`."""
        ...
