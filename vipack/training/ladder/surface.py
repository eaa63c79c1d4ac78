"""log p(x, z) and its gradient at many points of R^D at once."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from vipack.program.logjoint import LogJoint

__all__ = ["Surface"]

_AT_ONCE = 4_000_000  # numbers in a batch of points, which a model repeats many times over


class Surface:
    """A model's log joint, evaluated for B points in one pass; point by point where vmap refuses the model.

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
        value = self._in_parts(self.joint, u)
        return torch.where(torch.isfinite(value), value, -torch.inf)

    def gradients(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """log p and its gradient at ``(B, D)``: ``(B,)`` in nats and ``(B, D)``; minus infinity and zero where either is no number."""
        gradient, value = self._in_parts(grad_and_value(self.joint), u)
        fine = torch.isfinite(value) & torch.isfinite(gradient).all(-1)
        return torch.where(fine, value, -torch.inf), torch.where(fine[:, None], gradient, 0.0)

    def _in_parts(self, function: Callable[[Tensor], Any], u: Tensor) -> Any:
        size = max(16, min(512, _AT_ONCE // max(1, self.dim)))
        parts = [self._run(function, part) for part in u.split(size)]
        if len(parts) == 1:
            return parts[0]
        if isinstance(parts[0], tuple):
            return tuple(torch.cat([part[i] for part in parts]) for i in range(len(parts[0])))
        return torch.cat(parts)

    def _run(self, function: Callable[[Tensor], Any], u: Tensor) -> Any:
        started = time.perf_counter()
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="There is a performance drop")
            found = self._evaluate(function, u)
        self.calls += 1
        self.seconds += time.perf_counter() - started
        return found

    def _evaluate(self, function: Callable[[Tensor], Any], u: Tensor) -> Any:
        if self.vectorized:
            try:
                return vmap(function)(u)
            except Exception:  # vmap refuses programs in many ways; if it is the model that fails, it fails again
                found = _one_by_one(function, u)
                self.vectorized = False
                return found
        return _one_by_one(function, u)


def _one_by_one(function: Callable[[Tensor], Any], u: Tensor) -> Any:
    results = [function(point) for point in u]
    if isinstance(results[0], tuple):
        return tuple(torch.stack([result[i] for result in results]) for i in range(len(results[0])))
    return torch.stack(results)
