"""What is known of batches of each shape, and of the branches that a program takes on them."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from vipack.engine.capture.capture import Graph
from vipack.engine.steps.promotion import Promotion
from vipack.engine.steps.runner import GraphRunner

__all__ = ["Shape", "Shapes"]

_SHAPES = 8  # of batches that get a graph
_OFTEN = 100  # a batch of one more shape has come, which then takes the place of one that has not for longest
_STANDS_FOR = 16  # steps at most, that a batch which was looked at stands for: it may have come by chance
_BRANCHES = 8  # that a program takes on batches of one shape, which get a graph each
_LOOKS = (2, 8, 32, 128)
_MISSES = 4  # before one more is captured
_TURNS = 16  # of a new branch, which show whether more of them will pay: if all together know half of the steps


@dataclass(eq=False)
class Shape:
    """What is known of batches of one shape, as far as the program takes one branch on them.

    Attributes:
        updated: the parameters that a step updates.
        waited: a step was taken eagerly to meet a parameter.
        done: nothing more is to be tried.
        traced_seconds: that a step takes by the graph as it was captured.
        num_steps: how often a step was to be taken, where numbers are tensors.
    """

    graph: Graph | None = None
    updated: frozenset[str] = frozenset()
    runner: GraphRunner | None = None
    promotion: Promotion | None = None
    waited: bool = False
    done: bool = False
    traced_seconds: float = 0.0
    num_steps: int = 0

    def is_due(self) -> bool:
        """Whether it is time to look again, with another value, whether numbers may be tensors."""
        self.num_steps += self.graph is not None and self.graph.annealed
        return self.num_steps in _LOOKS

    def stop(self) -> None:
        """Compile nothing more for now."""
        if self.promotion is not None:
            self.promotion.stop()

    def unbind(self) -> None:
        """Run no more steps, until there is a new runner."""
        self.stop()
        self.runner = self.promotion = None

    @property
    def may_branch(self) -> bool:
        """Whether other batches, draws or parameters may lead the program to another branch."""
        return self.graph is not None and bool(self.graph.reads)

    @property
    def unsteady(self) -> bool:
        """Whether every step may take another branch, so that steps are taken one by one."""
        return self.may_branch and self.runner is not None and self.runner.step.checked


class Shapes:
    """All that is known; of each shape several branches, the last one taken first.

    Attributes:
        crowded: whether there were more shapes than get a graph.
    """

    def __init__(self) -> None:
        self.crowded = False
        self._branches: dict[Hashable, list[Shape]] = {}  # the shape that has not come for longest first
        self._misses: dict[Hashable, int] = {}
        self._turns: dict[
            Hashable, tuple[int, int]
        ] = {}  # steps since the last branch was captured, and those that a graph knew
        self._seen: dict[Hashable, int] = {}  # how often shapes have come that have none

    def __iter__(self) -> Iterator[Shape]:
        return (shape for branches in self._branches.values() for shape in branches)

    def get(self, size: Hashable) -> Shape | None:
        """The branch that was taken last."""
        branches = self._branches.get(size)
        return branches[0] if branches else None

    def of(self, size: Hashable, steps: int = 1) -> Shape:
        """Likewise; one to be tried where there is none yet, and where there are too many, one that is not.

        Args:
            steps: since the last look, for which this one stands.
        """
        branches = self._branches.pop(size, None)
        if branches is None:
            if len(self._branches) >= _SHAPES and not self._has_come_often(size, steps):
                self.crowded = True
                return Shape(done=True)
            branches = [Shape()]
        self._branches[size] = branches
        if branches[0].done and branches[0].graph is None:  # that could not be captured
            self.take(size, next((shape for shape in branches if shape.runner is not None), branches[0]))
        return branches[0]

    def others(self, size: Hashable) -> list[Shape]:
        """The other branches that there are graphs for."""
        return [shape for shape in self._branches.get(size, ())[1:] if shape.runner is not None]

    def take(self, size: Hashable, shape: Shape) -> None:
        """This one is the branch that is taken now."""
        branches = self._branches.get(size, [])
        if shape in branches:
            branches.remove(shape)
            branches.insert(0, shape)

    def missed(self, size: Hashable, *, sparing: bool = False) -> Shape | None:
        """No graph knows the branch that a step takes; one to be captured, where this has happened often enough.

        Args:
            sparing: wait until the last one has been tried for some steps.
        """
        branches = self._branches.get(size)
        self._misses[size] = self._misses.get(size, 0) + 1
        turns, _ = self._count(size, 0)
        if (
            branches is None
            or self._misses[size] < _MISSES
            or len(branches) >= _BRANCHES
            or (sparing and turns < _TURNS)
        ):
            return None
        self._misses[size] = 0
        del self._turns[size]
        branches.insert(0, Shape(waited=branches[0].waited))
        return branches[0]

    def is_lost(self, size: Hashable, *, sparing: bool = False) -> bool:
        """Whether steps take branches that there are no graphs for, again and again.

        Args:
            sparing: say so as soon as the first branches have known so few steps that as many as there may be will not know half.
        """
        number, (turns, known) = len(self._branches.get(size, ())), self._turns.get(size, (0, 0))
        if sparing and turns >= _TURNS and 2 * _BRANCHES * known < number * turns:
            return True
        return number >= _BRANCHES and self._misses.get(size, 0) >= _OFTEN

    def _count(self, size: Hashable, known: int) -> tuple[int, int]:
        before = self._turns.get(size, (0, 0))
        self._turns[size] = before[0] + 1, before[1] + known
        return self._turns[size]

    def give_up(self, size: Hashable) -> None:
        """No graph takes batches of this shape any more."""
        for shape in self._branches.get(size, ()):
            shape.stop()
        self._branches[size] = [Shape(done=True)]

    def hit(self, size: Hashable) -> None:
        """A graph knew the branch."""
        self._count(size, 1)
        if self._misses.get(size) and len(self._branches.get(size, ())) >= _BRANCHES:
            self._misses[size] -= 1

    def anew(self, *, done: bool) -> None:
        """Forget all graphs.

        Args:
            done: and capture none again.
        """
        self._branches = {size: [Shape(done=done)] for size in self._branches}
        self._misses.clear()
        self._turns.clear()

    def _has_come_often(self, size: Hashable, steps: int) -> bool:
        """Whether a shape without a graph has come often; if so, one that has not come for longest makes room."""
        if len(self._seen) > _OFTEN:
            self._seen.clear()
        self._seen[size] = self._seen.get(size, 0) + min(max(1, steps), _STANDS_FOR)
        if self._seen[size] < _OFTEN:
            return False
        del self._seen[size]
        for shape in self._branches.pop(next(iter(self._branches))):
            shape.stop()
        return True
