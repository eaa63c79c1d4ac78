"""States of a run to go back to when a loss is not finite."""

from __future__ import annotations

import time
from dataclasses import dataclass

from vipack.engine.steps.contracts import Batches
from vipack.engine.steps.memory import Memory
from vipack.engine.steps.snapshots import Snapshot

__all__ = ["SafeStates"]

_SECONDS = 1.0  # between copies


@dataclass
class _Safe:
    """A state, and the steps taken since."""

    memory: Snapshot
    batches: dict[str, object]
    steps: int
    seconds: float  # on the clock, when it was copied


class SafeStates:
    """The last state kept, and the one before, for what shows only a step later.

    Args:
        every_steps: between copies; None goes by the clock.
    """

    def __init__(self, every_steps: int | None = None) -> None:
        self._every_steps = every_steps
        self._last: _Safe | None = None
        self._older: _Safe | None = None

    def forget(self) -> None:
        """Keep none: they are of a memory that is gone."""
        self._last = self._older = None

    def keep(self, memory: Memory, batches: Batches) -> None:
        """Keep the present state, if the last one is a while ago."""
        now, last = time.perf_counter(), self._last
        old = last is not None and (
            now - last.seconds > _SECONDS if self._every_steps is None else last.steps >= self._every_steps
        )
        if last is None or old:
            self._older, self._last = self._last, _Safe(memory.snapshot(), batches.state(), 0, now)

    def count(self, steps: int) -> None:
        """So many steps were taken since :meth:`keep`, if there is a state."""
        if self._last is not None:
            self._last.steps += steps

    def reaches(self, steps: int) -> bool:
        """Whether there is a state at least so many steps ago."""
        return self._older is not None or (self._last is not None and self._last.steps >= steps)

    def go_back(self, memory: Memory, batches: Batches, but: int) -> int:
        """Restore a state of at least `but` steps ago; returns how many steps lead from it to `but` steps ago."""
        assert self._last is not None
        safe, again = self._last, self._last.steps - but
        if again < 0 and self._older is not None:
            safe, again = self._older, again + self._older.steps
        self.forget()
        memory.restore(safe.memory)
        batches.load_state(safe.batches)
        return again
