"""Methods of running a program for many draws: a replayed graph, vmap, broadcasting over an outermost plate, or a loop."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vipack.compat import pytree
from vipack.compat.pytorch import plain_normals
from vipack.program.running.randomness import TorchState
from vipack.program.running.runs import Arguments, explained

__all__ = ["METHODS", "Vectorizer", "joined", "stacked", "vmap_or_loop", "vmapped"]

METHODS = ("graph", "vmap", "plate", "loop")  # fastest first; the last one can do whatever a single run can


class Vectorizer:
    """Picks the fastest method that works for each kind of run, and remembers it.

    Attributes:
        allowed: the methods that may be tried, in order.
        chosen: kind of run -> the method that worked.
    """

    def __init__(self) -> None:
        self.allowed: tuple[str, ...] = METHODS
        self.chosen: dict[str, str] = {}
        self._refused: dict[str, set[str]] = {}

    def run(self, what: str, methods: Mapping[str, Callable[[], Any]], arguments: Arguments) -> Any:
        """The result of the first of `methods` that succeeds, each from the same random state.

        Raises:
            VipackError: what the last one raised, explained.
        """
        refused = self._refused.setdefault(what, set())
        *fast, slow = (name for name in self.allowed if name in methods and name not in refused)
        state = TorchState.current()
        for name in fast:
            outside = _other_generators()
            try:
                result = methods[name]()
            except Exception:  # vmap and broadcasting refuse programs with errors of many kinds; a slower method works
                state.install()
                refused.add(name)
                continue
            if not _same_generators(outside, _other_generators()):
                # NumPy's or Python's numbers would be drawn once and shared by all draws.
                state.install()
                refused.add(name)
                continue
            self.chosen[what] = name
            return result
        self.chosen[what] = slow
        with explained(what, arguments):
            return methods[slow]()


def vmapped(function: Callable[[Any], Any], inputs: Any) -> Any:
    """`function` of each of the stacked `inputs`, every one with random numbers of its own, results stacked."""
    with warnings.catch_warnings(), plain_normals():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        # torch.binomial draws correctly, but resizes its output.
        warnings.filterwarnings("ignore", message="An output with one or more elements was resized")
        return torch.vmap(function, randomness="different")(inputs)


def stacked(results: list[Any]) -> Any:
    """Results of single runs (tensors in tuples and dicts) along a new leading dimension."""
    return pytree.tree_map(lambda *values: torch.stack(values), *results)


def vmap_or_loop(
    one: Callable[[Any], Any], latents: Mapping[str, Tensor], num_draws: int
) -> dict[str, Callable[[], Any]]:
    """The methods of running a function of one draw for stacked latents ``site -> (S, *shape)``."""

    def draw(index: int) -> Any:
        return one({name: value[index] for name, value in latents.items()})

    return {
        # vmap needs an input to map over, and a model without latents has none
        "vmap": lambda: vmapped(one, dict(latents)) if latents else vmapped(lambda _: one({}), torch.arange(num_draws)),
        "loop": lambda: stacked([draw(index) for index in range(num_draws)]),
    }


def joined(results: Iterable[Any], num_draws: int) -> Any:
    """Results of several runs of many draws each, `num_draws` in all, along their leading dimension.

    Each is copied to where it belongs as it comes. Small tensors that are kept for the end while large ones come and go would
    hold the memory between them: a long run then takes several times what it uses.
    """
    whole: Any = None
    start = 0
    for result in results:
        values, form = pytree.tree_flatten(result)
        if not values or len(values[0]) == num_draws:
            return result
        stop = start + len(values[0])
        if whole is None:
            whole = [value.new_empty(num_draws, *value.shape[1:]) for value in values]
        for rows, value in zip(whole, values, strict=True):
            rows[start:stop] = value
        start = stop
    return pytree.tree_unflatten(whole, form)


def _other_generators() -> tuple[Any, Any]:
    return np.random.get_state(legacy=False), random.getstate()  # noqa: NPY002  (the global one is what models use)


def _same_generators(before: tuple[Any, Any], after: tuple[Any, Any]) -> bool:
    (numpy_before, python_before), (numpy_after, python_after) = before, after
    same_key = np.array_equal(numpy_before["state"]["key"], numpy_after["state"]["key"])
    same_pos = numpy_before["state"]["pos"] == numpy_after["state"]["pos"]
    return same_key and same_pos and python_before == python_after
