"""Whether graphs take the steps on batches of one shape faster than Pyro, by the time of steps that are taken anyway."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

from vipack.engine.capture.outlook import Effort
from vipack.engine.steps.contracts import TIERS

__all__ = ["Pace", "Paces"]

_WINDOW = 32  # steps by graphs, whose time is compared with that of Pyro's
_CLEAR = 8  # the first of these, each of which took longer than Pyro's: enough to say so
_FIRST_REST = 16  # steps that are Pyro's own where that was shorter
_GROWTH = 4  # times as many after each further comparison that ends alike
_LONGEST_REST = 4_096


class Pace:
    """The time of single steps on batches of one shape, by graphs and by Pyro.

    Where the graphs' take longer, Pyro's own come next for a while, which are timed too: what slows both, such as another
    process, then speaks against neither. A tier that is faster than those before is judged anew. One that was slower on
    batches of other shapes is tried later.

    Args:
        effort: the time of Pyro's steps on batches of any shape, with which the graphs' are compared at first.
        slow_tiers: those whose steps took longer in the last comparison on batches of any shape; shared by all of these.

    Attributes:
        slow: in how many comparisons in a row, with Pyro's steps on batches of this shape, the graphs' took longer.
        judged: whether the graphs' took less in the last comparison.
    """

    def __init__(self, effort: Effort, slow_tiers: set[str] | None = None) -> None:
        self._effort = effort
        self._slow_tiers: set[str] = set() if slow_tiers is None else slow_tiers
        self._rank = 0
        self._pyros: deque[float] = deque(maxlen=_WINDOW)  # seconds
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._start()
        self._until, self._rest = 0, _FIRST_REST
        self.slow, self.judged = 0, False

    def _start(self) -> None:
        """Compare the next steps."""
        self._number, self._seconds = 0, 0.0  # of the graphs' steps,
        self._longer = 0  # and how many took longer than usual

    def rests(self, tier: str) -> bool:
        """Whether the next step is to be Pyro's, where a graph would take it in this tier."""
        if TIERS.index(tier) > self._rank:
            self._rank = TIERS.index(tier)
            self._begin_anew()
            self._slow_tiers.difference_update(TIERS[: self._rank])  # there is something better
            if tier in self._slow_tiers:
                self._until = self._effort.steps + self._rest
        return self._effort.steps < self._until

    def count_pyros(self, seconds: float) -> None:
        """Pyro has taken a step in so many seconds."""
        self._pyros.append(seconds)

    def count(self, seconds: float) -> None:
        """A step has been taken by a graph, or looked for among several, in so many seconds."""
        own = bool(self._pyros)
        usual = sum(self._pyros) / len(self._pyros) if own else self._effort.per_step
        self._number, self._seconds = self._number + 1, self._seconds + seconds
        self._longer += seconds > usual > 0.0
        clear = self._number == self._longer == _CLEAR
        if self._number < _WINDOW and not clear:
            return
        self.judged = self._seconds < self._number * usual or usual == 0.0
        self._start()
        if self.judged:
            self._slow_tiers.discard(TIERS[self._rank])
            self.slow, self._rest = 0, _FIRST_REST
            return
        self._slow_tiers.add(TIERS[self._rank])
        self.slow += own
        self._until = self._effort.steps + self._rest
        self._rest = min(_GROWTH * self._rest, _LONGEST_REST) if own else self._rest


class Paces:
    """The paces of steps on batches of all shapes."""

    def __init__(self, effort: Effort) -> None:
        self._effort = effort
        self._slow_tiers: set[str] = set()
        self._by_shape: dict[Hashable, Pace] = {}

    def get(self, size: Hashable) -> Pace | None:
        """Of batches of one shape; None where no graph has taken a step on them."""
        return self._by_shape.get(size)

    def of(self, size: Hashable) -> Pace:
        """Likewise; a new one where there is none."""
        if size not in self._by_shape:
            self._by_shape[size] = Pace(self._effort, self._slow_tiers)
        return self._by_shape[size]

    @property
    def await_native(self) -> bool:
        """Whether graphs that run operation by operation take longer than Pyro, so that further ones can wait for native code."""
        return "traced" in self._slow_tiers
