"""What a training step is made of, and the graph that it becomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, fx

from vipack.engine.graph.invariants import Invariants
from vipack.engine.optimizers.parameter_groups import ParameterGroup

__all__ = ["Feed", "StepGraph"]


@dataclass(frozen=True)
class Feed:
    """How a step gets its batch.

    Attributes:
        arrays: the program's tensors; whole where `gathered`.
        gathered: for each array, whether a batch takes its rows by ``indices``.
        indices: an example of a batch's ``(B,)``, or None where a step sees all rows.
        own: for each array, whether every one of R fits side by side has its own, along a leading dimension; none by
            default.
        steady: for each array, whether all steps see the same; none by default.
    """

    arrays: tuple[Tensor, ...]
    gathered: tuple[bool, ...]
    indices: Tensor | None
    own: tuple[bool, ...] = ()
    steady: tuple[bool, ...] = ()


@dataclass(frozen=True)
class StepGraph:
    """``module(*draws, *values, *states, *buffers[, well], coefficients, *constants, *arrays[, indices]) -> (loss,)``.

    `values` are the groups' vectors and `states` those of their rules; both, and the buffers, are updated in place. `well` is
    1 after a step in which Pyro would have raised nothing, else 0; then the loss is NaN.

    Attributes:
        single: the step of one fit.
        constants: tensors that the program holds itself, such as data that it closes over, and what steps need of them
            and of steady arrays; see :meth:`renew`.
        checked: whether there is `well`.
        examples: an input of each shape and type, in order.
        own: for each input, whether every one of several fits side by side has its own, along a leading dimension.
    """

    single: fx.GraphModule
    groups: tuple[ParameterGroup, ...]
    constants: tuple[Tensor, ...]
    examples: tuple[Tensor, ...]
    own: tuple[bool, ...]
    num_draws: int
    num_coefficients: int
    checked: bool
    _together: Callable[[], fx.GraphModule] | None
    _before: Invariants | None
    _num_invariants: int

    @property
    def own_constants(self) -> tuple[Tensor, ...]:
        """The constants that are the program's own."""
        return self.constants[: len(self.constants) - self._num_invariants]

    @property
    def needed(self) -> tuple[bool, ...]:
        """For each of the program's own constants and the arrays, whether something was computed of it beforehand."""
        if self._before is None:
            return (False,) * (len(self.constants) + len(self.examples))
        return self._before.needed

    @property
    def valid(self) -> bool:
        """Whether the steady data are such that Pyro would raise nothing, as far as that depends on them alone."""
        return self._before is None or self._before.valid

    def renew(self, arrays: Sequence[Tensor]) -> None:
        """Compute anew what steps need of `arrays`, which have changed."""
        if self._before is not None:
            computed = self.constants[len(self.constants) - self._num_invariants :]
            for constant, value in zip(computed, self._before(arrays), strict=True):
                constant.copy_(value)

    @cached_property
    def module(self) -> fx.GraphModule:
        """The step; of several fits at once, for which it is traced a second time, when it is first asked for."""
        return self.single if self._together is None else self._together()

    @property
    def traced(self) -> bool:
        """Whether :attr:`module` is at hand."""
        return self._together is None or "module" in self.__dict__
