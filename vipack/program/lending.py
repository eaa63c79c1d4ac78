"""Putting a fit's own tensors where modules keep their parameters, for a time."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from vipack.compat.nn_modules import is_set_up, parameters_of, refresh_flat_weights

__all__ = ["LateLoans", "all_modules", "evaluation_mode"]


def all_modules() -> Iterator[nn.Module]:
    """Every module of the process: ``pyro.module`` names a parameter but does not say where it lives."""
    for candidate in gc.get_objects():
        if issubclass(type(candidate), nn.Module) and is_set_up(candidate):
            yield candidate


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
