"""Rows of data that a program can be called on, some at a time."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vipack.program import Arguments

__all__ = ["Observations", "by_names"]


@dataclass(frozen=True)
class Observations:
    """N observations to call a program with.

    Attributes:
        rows: the call on some of them, by their indices.
        full: the call on all of them.
        fitted: whether the guide was fitted to them, so that it may have parameters for each.
    """

    num_rows: int
    rows: Callable[[Tensor], Arguments]
    full: Callable[[], Arguments]
    fitted: bool

    def block(self, start: int, stop: int) -> Arguments:
        """The call on the observations from `start` to `stop`."""
        call = self.rows(torch.arange(start, min(stop, self.num_rows)))
        return call if self.fitted else Arguments(call.args, call.kwargs)

    def chosen(self, indices: Tensor) -> Observations:
        """Those of the given numbers alone."""
        return Observations(
            len(indices), lambda own: self.rows(indices[own]), lambda: self.rows(indices), fitted=self.fitted
        )

    def some(self, count: int) -> Arguments:
        """The call on `count` of them, evenly spaced, which count for themselves alone."""
        call = self.rows(torch.linspace(0, self.num_rows - 1, count, dtype=torch.float64).round().long())
        return Arguments(call.args, call.kwargs)


def by_names(model: Callable[..., Any], call: Arguments) -> dict[str, Any]:
    """The arguments of a call, positional ones under their names."""
    try:
        names = list(inspect.signature(model).parameters)
    except (TypeError, ValueError):
        names = []
    names += [f"argument_{i}" for i in range(len(names), len(call.args))]
    return {**dict(zip(names, call.args, strict=False)), **call.kwargs}
