"""log p(x, z) and its gradient at many points of R^D at once."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from vipack.program.evaluation.logjoint import LogJoint

__all__ = ["Surface"]

Function = Callable[[Tensor], tuple[Tensor, ...]]

_AT_ONCE = 4_000_000  # numbers in a batch of points, which a model repeats many times over


class Surface:
    """A model's log joint, evaluated for B points in one pass; point by point where vmap refuses the model.

    Points may lie anywhere and be of any type: the model runs on its own device in its own type, and the results come to
    where the points are, in their type. The ladder's own arithmetic is in float64 throughout.

    Attributes:
        joint: the function of a single point.
        calls: batches evaluated so far.
        seconds: the time that they took.
        vectorized: whether vmap takes the model.
    """

    def __init__(self, joint: LogJoint) -> None:
        self.joint = joint
        self.dim = joint.dim
        self.calls = 0
        self.seconds = 0.0
        self.vectorized = True

    def values(self, u: Tensor) -> Tensor:
        """log p at ``(B, D)``: ``(B,)`` in nats; minus infinity where it is no number."""
        value = torch.cat([block for (block,) in self._in_blocks(self._value, u)])
        return torch.where(torch.isfinite(value), value, -torch.inf)

    def gradients(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """log p and its gradient at ``(B, D)``: ``(B,)`` in nats and ``(B, D)``; minus infinity and zero where either is no number."""
        values, gradients = zip(*self._in_blocks(self._gradient, u), strict=True)
        value, gradient = torch.cat(values), torch.cat(gradients)
        fine = torch.isfinite(value) & torch.isfinite(gradient).all(-1)
        return torch.where(fine, value, -torch.inf), torch.where(fine[:, None], gradient, 0.0)

    def _value(self, u: Tensor) -> tuple[Tensor, ...]:
        return (self.joint(u),)

    def _gradient(self, u: Tensor) -> tuple[Tensor, ...]:
        gradient, value = grad_and_value(self.joint)(u)
        return value, gradient

    def _in_blocks(self, function: Function, u: Tensor) -> list[tuple[Tensor, ...]]:
        size = max(16, min(512, _AT_ONCE // max(1, self.dim)))
        return [self._run(function, block) for block in u.split(size)]

    def _run(self, function: Function, u: Tensor) -> tuple[Tensor, ...]:
        started = time.perf_counter()
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="There is a performance drop")
            results = tuple(each.to(u) for each in self._evaluate(function, u.to(self.joint.device, self.joint.dtype)))
        self.calls += 1
        self.seconds += time.perf_counter() - started
        return results

    def _evaluate(self, function: Function, u: Tensor) -> tuple[Tensor, ...]:
        if not self.vectorized:
            return _one_by_one(function, u)
        try:
            results: tuple[Tensor, ...] = vmap(function)(u)
        except LinAlgError:  # of one point: a covariance that is not positive definite there
            return _one_by_one(function, u)
        except Exception:  # vmap refuses programs in many ways; if it is the model that fails, it fails again
            results = _one_by_one(function, u)
            self.vectorized = False
        return results


def _one_by_one(function: Function, u: Tensor) -> tuple[Tensor, ...]:
    """As under vmap; NaN at points where a matrix of the model has no factor."""
    results = []
    for point in u:
        try:
            results.append(function(point))
        except LinAlgError:
            results.append((point.new_tensor(torch.nan), torch.full_like(point, torch.nan)))
    return tuple(torch.stack(column) for column in zip(*results, strict=False))
