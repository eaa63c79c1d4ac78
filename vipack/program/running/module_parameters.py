"""The tensors of a fit in the modules that its program calls, for the time of a run."""

from __future__ import annotations

import contextlib
import gc
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from vipack.compat.nn_modules import buffers_of, is_set_up, parameters_of, refresh_flat_weights

__all__ = ["LateLoans", "all_modules", "evaluation_mode", "lent"]


Slot = tuple[nn.Module, str, str]  # a module, the attribute there, and the name of what is lent to it


def all_modules() -> Iterator[nn.Module]:
    """Every module of the process: ``pyro.module`` names a parameter but does not say where it lives."""
    kinds = {nn.Module}
    while more := {child for kind in kinds for child in type.__subclasses__(kind)} - kinds:
        kinds |= more
    objects = gc.get_objects()  # a million are not rare: no Python for each
    modules = itertools.compress(objects, map(kinds.__contains__, map(type, objects)))
    return filter(is_set_up, modules)


class LateLoans:
    """Lends modules the parameters that a program declares while it runs, until the block ends.

    A module's own will do for that run unless they are of another type or elsewhere than the data, which the fit's never are.
    """

    def __init__(self) -> None:
        self._slots: dict[int, list[tuple[nn.Module, str]]] = {}
        self._given: list[tuple[nn.Module, str, Tensor | None]] = []

    def __enter__(self) -> LateLoans:
        return self

    def __exit__(self, *_: Any) -> None:
        for module, attribute, theirs in self._given:
            parameters_of(module)[attribute] = theirs  # type: ignore[assignment]
        refresh_flat_weights(module for module, _, _ in self._given)
        self._given, self._slots = [], {}

    def lend(self, theirs: nn.Parameter, own: nn.Parameter) -> None:
        """Let `own` stand where `theirs` does, where that is needed."""
        if theirs.dtype == own.dtype and theirs.device == own.device:
            return
        if id(theirs) not in self._slots:
            self._look()
        for module, attribute in self._slots.get(id(theirs), ()):
            self._given.append((module, attribute, theirs))
            parameters_of(module)[attribute] = own
        refresh_flat_weights(module for module, _ in self._slots.get(id(theirs), ()))

    def _look(self) -> None:
        self._slots = {}
        for module in all_modules():
            for attribute, parameter in parameters_of(module).items():
                self._slots.setdefault(id(parameter), []).append((module, attribute))


@contextlib.contextmanager
def lent(
    slots: Iterable[Slot],
    values: Mapping[str, Tensor],
    buffer_slots: Iterable[Slot],
    buffer_values: dict[str, Tensor],
    borrowers: Iterable[nn.Module],
    returned: Callable[[], None],
) -> Iterator[None]:
    """Inside the block the modules' slots have the parameters `values` and the buffers `buffer_values`.

    Args:
        buffer_values: a buffer that a module replaces inside the block is replaced here too.
        borrowers: modules that may keep lists of their weights.
        returned: called once the modules have their own again.
    """
    weights = [(parameters_of(module), attribute, name) for module, attribute, name in slots]
    buffers = [(buffers_of(module), attribute, key) for module, attribute, key in buffer_slots]
    own_weights = [table[attribute] for table, attribute, _ in weights]
    own_buffers = [table[attribute] for table, attribute, _ in buffers]
    borrowers = list(borrowers)
    try:
        for parameters, attribute, name in weights:
            parameters[attribute] = values[name]  # type: ignore[assignment]
        for table, attribute, key in buffers:
            table[attribute] = buffer_values[key]
        refresh_flat_weights(borrowers)
        yield
    finally:
        for (parameters, attribute, _), weight in zip(weights, own_weights, strict=True):
            parameters[attribute] = weight
        for (table, attribute, key), buffer in zip(buffers, own_buffers, strict=True):
            buffer_values[key] = table[attribute]  # type: ignore[assignment]
            table[attribute] = buffer
        returned()
        refresh_flat_weights(borrowers)


@contextlib.contextmanager
def evaluation_mode(modules: list[nn.Module]) -> Iterator[None]:
    """Modules that are in training mode are in evaluation mode meanwhile."""
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
