"""What is known of batches of each shape, and of the ways that a program takes with them."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from vipack.engine.capture.capture import Graph
from vipack.engine.steps.promotion import Promotion
from vipack.engine.steps.runner import GraphRunner

__all__ = ["Shape", "Shapes"]

_SHAPES = 8  # of batches that get a graph
_OFTEN = 100  # a batch of one more shape has come, which then takes the place of one that has not for longest
_WAYS = 8  # that a program takes with batches of one shape, which get a graph each
_LOOKS = (2, 8, 32, 128)
_MISSES = 4  # before one more is captured
_TURNS = 16  # of a new way, by which is judged whether more of them will pay: then all together know half of the steps


@dataclass(eq=False)
class Shape:
    """What is known of batches of one shape, as far as the program takes one way with them.

    Attributes:
        updated: the parameters that a step updates.
        waited: a step was taken eagerly to meet a parameter.
        done: nothing more is to be tried.
        traced_seconds: that a step takes by the graph as it was captured.
        taken: how often a step was to be taken, where numbers are tensors.
    """

    graph: Graph | None = None
    updated: frozenset[str] = frozenset()
    runner: GraphRunner | None = None
    promotion: Promotion | None = None
    waited: bool = False
    done: bool = False
    traced_seconds: float = 0.0
    taken: int = 0

    def is_due(self) -> bool:
        """Whether it is time to look again, with another value, whether numbers may be tensors."""
        self.taken += self.graph is not None and self.graph.annealed
        return self.taken in _LOOKS

    @property
    def branches(self) -> bool:
        """Whether other batches, draws or parameters may lead the program another way."""
        return self.graph is not None and bool(self.graph.reads)

    @property
    def unsteady(self) -> bool:
        """Whether every step may take another way, so that steps are taken one by one."""
        return self.branches and self.runner is not None and self.runner.step.checked


class Shapes:
    """All that is known; of each shape several ways, the last one taken first.

    Attributes:
        crowded: whether there were more shapes than get a graph.
    """

    def __init__(self) -> None:
        self.crowded = False
        self._ways: dict[Hashable, list[Shape]] = {}  # the shape that has not come for longest first
        self._misses: dict[Hashable, int] = {}
        self._turns: dict[
            Hashable, tuple[int, int]
        ] = {}  # steps since the last way was captured, and those that a graph knew
        self._seen: dict[Hashable, int] = {}  # how often shapes have come that have none

    def __iter__(self) -> Iterator[Shape]:
        return (shape for ways in self._ways.values() for shape in ways)

    def get(self, size: Hashable) -> Shape | None:
        """The way that was taken last."""
        ways = self._ways.get(size)
        return ways[0] if ways else None

    def of(self, size: Hashable) -> Shape:
        """Likewise; one to be tried where there is none yet, and where there are too many, one that is not."""
        ways = self._ways.pop(size, None)
        if ways is None:
            if len(self._ways) >= _SHAPES and not self._has_come_often(size):
                self.crowded = True
                return Shape(done=True)
            ways = [Shape()]
        self._ways[size] = ways
        if ways[0].done and ways[0].graph is None:  # that could not be captured
            self.take(size, next((shape for shape in ways if shape.runner is not None), ways[0]))
        return ways[0]

    def others(self, size: Hashable) -> list[Shape]:
        """The other ways that there are graphs for."""
        return [shape for shape in self._ways.get(size, ())[1:] if shape.runner is not None]

    def take(self, size: Hashable, shape: Shape) -> None:
        """This one is the way that is taken now."""
        ways = self._ways.get(size, [])
        if shape in ways:
            ways.remove(shape)
            ways.insert(0, shape)

    def missed(self, size: Hashable, *, sparing: bool = False) -> Shape | None:
        """No graph knows the way that a step takes; one to be captured, where this has happened often enough.

        Args:
            sparing: wait until the last one has been tried for some steps.
        """
        ways = self._ways.get(size)
        self._misses[size] = self._misses.get(size, 0) + 1
        turns, _ = self._count(size, 0)
        if ways is None or self._misses[size] < _MISSES or len(ways) >= _WAYS or (sparing and turns < _TURNS):
            return None
        self._misses[size] = 0
        del self._turns[size]
        ways.insert(0, Shape(waited=ways[0].waited))
        return ways[0]

    def is_lost(self, size: Hashable, *, sparing: bool = False) -> bool:
        """Whether steps go other ways than those that there are graphs for, again and again.

        Args:
            sparing: say so as soon as the first ways have known so few steps that as many as there may be will not know half.
        """
        number, (turns, known) = len(self._ways.get(size, ())), self._turns.get(size, (0, 0))
        if sparing and turns >= _TURNS and 2 * _WAYS * known < number * turns:
            return True
        return number >= _WAYS and self._misses.get(size, 0) >= _OFTEN

    def _count(self, size: Hashable, known: int) -> tuple[int, int]:
        before = self._turns.get(size, (0, 0))
        self._turns[size] = before[0] + 1, before[1] + known
        return self._turns[size]

    def give_up(self, size: Hashable) -> None:
        """No graph takes batches of this shape any more."""
        for shape in self._ways.get(size, ()):
            if shape.promotion is not None:
                shape.promotion.stop()
        self._ways[size] = [Shape(done=True)]

    def hit(self, size: Hashable) -> None:
        """A graph knew the way."""
        self._count(size, 1)
        if self._misses.get(size) and len(self._ways.get(size, ())) >= _WAYS:
            self._misses[size] -= 1

    def anew(self, *, done: bool) -> None:
        """Forget all graphs.

        Args:
            done: and capture none again.
        """
        self._ways = {size: [Shape(done=done)] for size in self._ways}
        self._misses.clear()
        self._turns.clear()

    def _has_come_often(self, size: Hashable) -> bool:
        """Whether a shape without a graph has come often; if so, one that has not come for longest makes room."""
        if len(self._seen) > _OFTEN:
            self._seen.clear()
        self._seen[size] = self._seen.get(size, 0) + 1
        if self._seen[size] < _OFTEN:
            return False
        del self._seen[size]
        for shape in self._ways.pop(next(iter(self._ways))):
            if shape.promotion is not None:
                shape.promotion.stop()
        return True
