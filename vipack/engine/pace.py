"""Whether graphs take the steps on batches of one shape faster than Pyro, by the time of steps that are taken anyway."""

from __future__ import annotations

from collections import deque

from vipack.engine.capture.outlook import Effort
from vipack.engine.steps.contracts import TIERS

__all__ = ["Pace"]

_WINDOW = 32  # steps by graphs, whose time is compared with that of Pyro's
_FIRST_REST = 16  # steps that are Pyro's own where that was shorter
_GROWTH = 4  # times as many after each further comparison that ends alike
_LONGEST_REST = 4_096


class Pace:
    """The time of single steps on batches of one shape, by graphs and by Pyro.

    Where the graphs' take longer, Pyro's own come next for a while, which are timed too: what slows both, such as another
    process, then speaks against neither. A tier that is faster than those before is judged anew.

    Args:
        effort: the time of Pyro's steps on batches of any shape, with which the graphs' are compared at first.

    Attributes:
        slow: in how many comparisons in a row, with Pyro's steps on batches of this shape, the graphs' took longer.
        judged: whether the graphs' took less in the last comparison.
    """

    def __init__(self, effort: Effort) -> None:
        self._effort = effort
        self._rank = 0
        self._pyros: deque[float] = deque(maxlen=_WINDOW)  # seconds
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._number, self._seconds = 0, 0.0  # of the graphs' steps since the last comparison
        self._until, self._rest = 0, _FIRST_REST
        self.slow, self.judged = 0, False

    def rests(self, tier: str) -> bool:
        """Whether the next step is to be Pyro's, where a graph would take it in this tier."""
        if TIERS.index(tier) > self._rank:
            self._rank = TIERS.index(tier)
            self._begin_anew()
        return self._effort.steps < self._until

    def count_pyros(self, seconds: float) -> None:
        """Pyro has taken a step in so many seconds."""
        self._pyros.append(seconds)

    def count(self, seconds: float) -> None:
        """A step has been taken by a graph, or looked for among several, in so many seconds."""
        self._number, self._seconds = self._number + 1, self._seconds + seconds
        if self._number < _WINDOW:
            return
        own = bool(self._pyros)
        usual = sum(self._pyros) / len(self._pyros) if own else self._effort.per_step
        self.judged = self._seconds < self._number * usual or usual == 0.0
        self._number, self._seconds = 0, 0.0
        if self.judged:
            self.slow, self._rest = 0, _FIRST_REST
            return
        self.slow += own
        self._until = self._effort.steps + self._rest
        self._rest = min(_GROWTH * self._rest, _LONGEST_REST) if own else self._rest
