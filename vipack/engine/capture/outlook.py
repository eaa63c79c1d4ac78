"""Whether a capture is worth trying for a program that Pyro runs, judged by two of its steps at little more than their cost."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from vipack.compat.param_store import stored
from vipack.engine.capture.reads import noted_numbers
from vipack.engine.guards.execution import Execution, recorded
from vipack.engine.guards.python_state import PythonState
from vipack.engine.guards.slots import comparable
from vipack.program.running.params import BASELINE

__all__ = ["Effort", "Outlook"]

_SHARE = 0.03  # of the time that eager steps have taken, that captures may cost in vain


@dataclass
class Effort:
    """What eager steps have cost, and captures that came to nothing.

    Attributes:
        eager: seconds of eager steps.
        steps: how many these were.
        vain: seconds of captures.
    """

    eager: float = 0.0
    steps: int = 0
    vain: float = 0.0

    def count(self, seconds: float) -> None:
        """An eager step has taken so long."""
        self.eager += seconds
        self.steps += 1

    @property
    def per_step(self) -> float:
        """Seconds of an eager step; 0 where none was timed."""
        return self.eager / self.steps if self.steps else 0.0

    def affords(self) -> bool:
        """Whether one more capture may be tried."""
        return self.vain <= _SHARE * self.eager


class Outlook:
    """Two steps of Pyro's own, in which what no graph can repeat is noted.

    Args:
        programs: model, guide, objective and other objects that a step is given.

    Attributes:
        execution: of the first of the two.
        complete: whether both were taken.
        reason: why a capture would come to nothing; empty where none was seen.
    """

    def __init__(self, *programs: Any) -> None:
        self._programs = programs
        self._numbers: dict[Any, tuple[str, list[Any]]] | None = None
        self.execution: Execution | None = None
        self.complete = False
        self.reason = ""

    def observe(self, step: Callable[[], Any]) -> Any:
        """Take the next step and return what it returns."""
        if self._numbers is None:
            with recorded() as self.execution, noted_numbers() as self._numbers:
                return step()
        state = None if self.execution is None else PythonState(*self._programs, execution=self.execution, copies=False)
        generators = _generators()
        with noted_numbers() as numbers:
            loss = step()
        self.complete = True
        self.reason = self._find_reason(state, generators, numbers)
        return loss

    def _find_reason(
        self, state: PythonState | None, generators: tuple[Any, Any], numbers: dict[Any, tuple[str, list[Any]]]
    ) -> str:
        if state is not None and state.reason:
            return state.reason
        if _generators() != generators:
            return "the program draws from Python's or NumPy's generator, which a graph cannot repeat"
        changed = "" if state is None else state.changed_by_a_run()
        if changed:
            return f"each run of the program changes {changed!r}, which it may read again"
        if any(name.startswith(BASELINE) for name in stored()[0]):
            return "the objective keeps a decaying average of costs as a baseline, outside of the graph"
        before = self._numbers or {}
        for position, (where, values) in numbers.items():
            if position in before and before[position][1] != values:
                return f"a number that changes with every step is read from a tensor ({where})"
        return ""


def _generators() -> tuple[Any, Any]:
    return random.getstate(), comparable(np.random.get_state(legacy=False))  # noqa: NPY002
