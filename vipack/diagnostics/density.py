"""A log joint density and its gradient at many points at once, with what an evaluation costs."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx

from vipack.compat.dispatch import Operations
from vipack.program import LogJoint
from vipack.program.running.replay import Replay, captured

__all__ = ["Counter", "ManyPoints"]

_MOST_CAPTURED = 6_000  # operations of a graph that is quick to capture
_NUMBERS_AT_ONCE = 40_000_000  # produced by one evaluation, so that its tensors stay near the processor


class ManyPoints:
    """``log p(x, z(u))`` in nats and its gradient at N points of R^D, replayed as a graph where that is quick to make.

    Attributes:
        dim: D.
        operations: tensor operations of one evaluation with its gradient.
        numbers: that these operations produce for one point; memory and time grow with them.
    """

    def __init__(self, joint: LogJoint, example: Tensor) -> None:
        self.joint = joint
        self.dim = joint.dim
        self._function = torch.func.grad_and_value(joint)
        self._graphs: dict[int, fx.GraphModule] = {}
        counter = Counter()
        with counter:
            self._function(example)
        self.operations, self.numbers = counter.operations, counter.numbers
        self._at_once = max(1, _NUMBERS_AT_ONCE // max(1, self.numbers))

    def __call__(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Values ``(N,)``, minus infinity where there is no number, and gradients ``(N, D)``, zero there."""
        pairs = [self._evaluated(block) for block in u.split(self._at_once)]
        # Weights of a network that the model holds may ask for gradients.
        gradients, values = (torch.cat(column).detach() for column in zip(*pairs, strict=True))
        finite = values.isfinite() & gradients.isfinite().all(-1)
        return torch.where(finite, values, -math.inf), torch.where(finite[:, None], gradients, 0.0)

    def values(self, u: Tensor) -> Tensor:
        """The density alone ``(N,)``; not finite where there is no number."""
        many = torch.func.vmap(self.joint, randomness="different")
        if self.operations <= _MOST_CAPTURED and len(u) >= 4 * self._at_once:
            return torch.cat([block for (block,) in Replay(self._named, self._at_once)({"u": u})]).detach()
        return torch.cat([many(block) for block in u.split(self._at_once)]).detach()

    def hessian(self, u: Tensor, scale_tril: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient ``(D,)`` and second derivatives ``(D, D)`` at ``u`` ``(D,)``, in the coordinates ``scale_tril^-1 u``.

        Second derivatives are central differences, in one evaluation with the gradient. Not every operation has one, or a
        finite one: that of ``logaddexp`` is NaN where its arguments are far apart.
        """
        step = 1e-3 if u.dtype == torch.float64 else 1e-2
        points = torch.cat([u + step * scale_tril.T, u - step * scale_tril.T, u[None]])
        gradient = self(points)[1] @ scale_tril
        second = (gradient[: self.dim] - gradient[self.dim : -1]) / (2 * step)
        return gradient[-1], 0.5 * (second + second.T)

    def _named(self, point: dict[str, Tensor]) -> tuple[Tensor]:
        return (self.joint(point["u"]),)

    def _evaluated(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients and values, by the smallest graph that takes so many points, or a new one."""
        many = torch.func.vmap(self._function, randomness="different")
        if self.operations > _MOST_CAPTURED:
            gradients, values = many(u)
            return gradients, values
        size = min((n for n in self._graphs if n >= len(u)), default=len(u))
        padded = torch.cat([u, u[-1:].expand(size - len(u), -1)]) if size > len(u) else u
        if size not in self._graphs:
            # The program is run once; replaying its operations skips Pyro, which takes most of the time.
            self._graphs[size] = captured(many, padded, vectorized=True)
        gradients, values = self._graphs[size](padded)
        return gradients[: len(u)], values[: len(u)]


class Counter(Operations):
    """Counts operations and the numbers that they produce."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        self.numbers = 0

    def operation(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Count it."""
        result = function(*args, **kwargs)
        self.operations += 1
        if isinstance(result, Tensor):
            self.numbers += result.numel()
        return result
