"""The Python state that a program reads: what a graph would freeze, and who changes it.

A captured graph repeats the tensor operations of one run. A counter in the model, a number that a callback sets, an
iterator or a generator of random numbers goes on in Python, where the graph does not see it. So the variables that the
program's code names (globals, closures, attributes, and what they hold) are watched while a step is captured, and
afterwards.
"""

from __future__ import annotations

import functools
import random
import sys
import time
import types
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Watch"]

_MOST_ITEMS = 64  # of a container that are compared one by one; of longer ones the length is
_MOST_NUMBERS = 100_000  # of a tensor that is copied, to be put back
_LIBRARIES = ("torch", "pyro", "numpy", "scipy", "vipack", "zuko", "opt_einsum", "pandas", "tqdm")
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_CONTAINERS = (list, dict, set, deque)
_CLOCKS = {getattr(time, n) for n in ("time", "time_ns", "perf_counter", "monotonic", "process_time")}
_MISSING = object()


@dataclass
class _Slot:
    """A variable, and what it held.

    Attributes:
        place: the dict (of a module or instance), the class, or the closure's cell that holds it.
        contents: a copy of what stood in it, for a container.
    """

    name: str
    place: Any
    key: str
    value: Any
    contents: Any = None

    def now(self) -> Any:
        if isinstance(self.place, types.CellType):
            return self.place.cell_contents
        held = vars(self.place) if isinstance(self.place, type) else self.place
        return held.get(self.key, _MISSING)

    def put_back(self) -> None:
        if self.now() is not self.value:
            if isinstance(self.place, types.CellType):
                self.place.cell_contents = self.value
            elif isinstance(self.place, type):
                setattr(self.place, self.key, self.value)
            else:
                self.place[self.key] = self.value
        if self.contents is not None and not _same_contents(self.value, self.contents):
            _refill(self.value, self.contents)


class Watch:
    """What the code of some programs names, as it stands now.

    Attributes:
        unsteady: why their runs cannot be repeated by a graph, whatever else; empty where they can.
    """

    def __init__(self, *programs: Any) -> None:
        self.unsteady = ""
        self._slots: list[_Slot] = []
        self._generators: list[tuple[str, Any, Any]] = []
        self._tensors: list[tuple[Tensor, int, Tensor | None]] = []  # each with its version and a copy
        self._frozen: list[_Slot] = []
        reader = _Reader()
        for program in programs:
            reader.visit(program, getattr(program, "__name__", type(program).__name__))
        for name, place, key, value in reader.found:
            self._take(name, place, key, value)
        self.unsteady = reader.unsteady

    def changed(self) -> str:
        """The name of a variable other than a tensor that no longer holds what it held; empty if there is none."""
        for slot in self._slots:
            if not isinstance(slot.value, Tensor) and _differs(slot, slot.now()):
                return slot.name
        for name, generator, state in self._generators:
            if repr(_state_of(generator)) != repr(state):
                return name
        return ""

    def outdated(self) -> str:
        """Likewise, with the tensors that were told to :meth:`hold`."""
        for slot in self._frozen:
            if slot.now() is not slot.value:
                return slot.name
        return self.changed()

    def hold(self, constants: Iterable[Tensor]) -> str:
        """Take note of the tensors that a graph holds; the name of one that the program itself replaces or writes to."""
        held = {key for constant in constants for key in _marks(constant)}
        written = {id(tensor) for tensor, version, _ in self._tensors if tensor._version != version}
        for slot in self._slots:
            if isinstance(slot.value, Tensor) and not held.isdisjoint(_marks(slot.value)):
                if slot.now() is not slot.value or id(slot.value) in written:
                    return slot.name
                self._frozen.append(slot)
        return ""

    def restore(self) -> None:
        """Put back what a run has changed: variables, containers, tensors that are not large, random generators."""
        for slot in self._slots:
            slot.put_back()
        for i, (tensor, version, copy) in enumerate(self._tensors):
            if copy is not None and tensor._version != version:
                with torch.no_grad():
                    tensor.copy_(copy)
                self._tensors[i] = tensor, tensor._version, copy
        for _, generator, state in self._generators:
            _set_state(generator, state)

    def _take(self, name: str, place: Any, key: str, value: Any) -> None:
        if _state_of(value) is not None:
            self._generators.append((name, value, _state_of(value)))
            return
        if isinstance(value, Tensor):
            copy = value.detach().clone() if value.numel() <= _MOST_NUMBERS else None
            self._tensors.append((value, value._version, copy))
        small = isinstance(value, _CONTAINERS) or (isinstance(value, np.ndarray) and value.size <= _MOST_ITEMS)
        contents = value.copy() if small else None
        self._slots.append(_Slot(name, place, key, value, contents))


class _Reader:
    """Goes from a program through everything that its code names, and collects what is not code."""

    def __init__(self) -> None:
        self.found: list[tuple[str, Any, str, Any]] = []
        self.unsteady = ""
        self._seen: set[int] = set()
        self._taken: set[tuple[int, str]] = set()
        self._names: set[str] = {"training"}
        self._objects: list[tuple[Any, str]] = []

    def visit(self, value: Any, name: str) -> None:
        """Read `value` and, once all code is known, the attributes that the code names."""
        self._read(value, name)
        while True:
            before = len(self._seen), len(self._taken), len(self._names)
            for owner, label in list(self._objects):
                self._attributes(owner, label)
            if before == (len(self._seen), len(self._taken), len(self._names)):
                return

    def _read(self, value: Any, name: str) -> None:
        if id(value) in self._seen or isinstance(value, (*_PLAIN, Tensor, np.ndarray)):
            return
        self._seen.add(id(value))
        if isinstance(value, functools.partial):
            for part in (value.func, *value.args, *value.keywords.values()):
                self._read(part, name)
        elif isinstance(value, types.MethodType):
            self._read(value.__func__, name)
            self._read(value.__self__, name.partition(".")[0])
        elif isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, staticmethod | classmethod):
            self._read(value.__func__, name)
        elif isinstance(value, property):
            self._read(value.fget, name)
        elif value in _CLOCKS if isinstance(value, types.BuiltinFunctionType) else False:
            self.unsteady = self.unsteady or f"the program reads the clock ({name})"
        elif isinstance(value, type):
            if not _of_library(value.__module__):
                self._objects.append((value, value.__name__))
                for name_of_part, part in vars(value).items():
                    if name_of_part != "__init__" and isinstance(
                        part, types.FunctionType | staticmethod | classmethod | property
                    ):
                        self._read(part, name)
                for base in value.__bases__:
                    self._read(base, base.__name__)
        elif isinstance(value, types.ModuleType):
            if value is time or not _of_library(value.__name__):
                self._objects.append((value, name))
        elif isinstance(value, list | tuple | deque | dict | set):
            items = value.values() if isinstance(value, Mapping) else value
            for item in list(items)[:_MOST_ITEMS]:
                if not isinstance(item, (*_PLAIN, Tensor)):
                    self._take(name, {name: item}, name, item)
                self._read(item, name)
        elif isinstance(value, Iterator) and not hasattr(value, "__len__"):
            self.unsteady = self.unsteady or f"the program names an iterator ({name}), which goes on from call to call"
        elif hasattr(value, "__dict__"):
            self._read(type(value), type(value).__name__)
            self._objects.append((value, name))

    def _function(self, function: types.FunctionType) -> None:
        code = function.__code__
        for cell_name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                content = cell.cell_contents
            except ValueError:  # not yet bound
                continue
            if not _of_library(function.__module__):
                self._take(cell_name, cell, cell_name, content)
            self._read(content, cell_name)
        if hasattr(function, "__wrapped__"):
            self._read(function.__wrapped__, function.__name__)
        for position, default in enumerate((*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())):
            self._take(f"a default of {function.__name__}", {str(position): default}, str(position), default)
            self._read(default, function.__name__)
        if _of_library(function.__module__):
            return
        names = _names_of(code)
        self._names |= names
        for name in names:
            if name in function.__globals__:
                value = function.__globals__[name]
                self._take(name, function.__globals__, name, value)
                self._read(value, name)

    def _attributes(self, owner: Any, label: str) -> None:
        library = _of_library(type(owner).__module__) and not isinstance(owner, type | types.ModuleType)
        place = vars(owner)
        for name, value in list(place.items()):
            # What is only set up once is not read again; parameters and buffers are the graph's own inputs.
            if name == "__init__" or (isinstance(owner, nn.Module) and name in ("_parameters", "_buffers")):
                continue
            if name == "training" or (name in self._names and not library):
                self._take(f"{label}.{name}", owner if isinstance(owner, type) else place, name, value)
                self._read(value, f"{label}.{name}")
            elif isinstance(value, types.FunctionType | types.MethodType | functools.partial | nn.Module):
                self._read(value, f"{label}.{name}")
            elif name == "_modules" and isinstance(owner, nn.Module):
                for part, module in value.items():
                    self._read(module, f"{label}.{part}")

    def _take(self, name: str, place: Any, key: str, value: Any) -> None:
        if (id(place), key) not in self._taken:
            self._taken.add((id(place), key))
            self.found.append((name, place, key, value))


def _names_of(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names_of(constant)
    return names


@functools.cache
def _of_library(module: str | None) -> bool:
    """Whether a module is torch's, Pyro's or Python's own, which keep state of their own."""
    top = (module or "").partition(".")[0]
    if top in _LIBRARIES or top in sys.stdlib_module_names:
        return top not in ("__main__", "types", "argparse", "dataclasses")
    return False


def _differs(slot: _Slot, now: Any) -> bool:
    if now is slot.value:
        return slot.contents is not None and not _same_contents(now, slot.contents)
    if isinstance(now, _PLAIN) and isinstance(slot.value, _PLAIN):
        return type(now) is not type(slot.value) or bool(now != slot.value)
    return True


def _marks(tensor: Tensor) -> set[tuple[str, int]]:
    """By which a graph's constant is known again: torch may have wrapped it anew."""
    marks = {("id", id(tensor))}
    if tensor.layout is torch.strided and tensor.numel():
        marks.add(("memory", tensor.data_ptr()))
    return marks


def _same_contents(now: Any, before: Any) -> bool:
    if isinstance(now, np.ndarray):
        return repr(now) == repr(before)
    if len(now) != len(before):
        return False
    if len(now) > _MOST_ITEMS or isinstance(now, set):
        return True
    if isinstance(now, dict):
        return all(key in now and _same_item(now[key], value) for key, value in before.items())
    return all(map(_same_item, now, before))


def _same_item(one: Any, two: Any) -> bool:
    if one is two:
        return True
    return isinstance(one, _PLAIN) and type(one) is type(two) and bool(one == two)


def _refill(container: Any, contents: Any) -> None:
    if isinstance(container, np.ndarray):
        container[...] = contents
        return
    container.clear()
    container.update(contents) if isinstance(container, dict | set) else container.extend(contents)


def _state_of(value: Any) -> Any:
    """What a generator of random numbers will draw next, as something to compare; None for anything else."""
    if isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
        return value.getstate()
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if isinstance(value, torch.Generator):
        return tuple(value.get_state().tolist())
    return None


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    else:
        generator.set_state(torch.tensor(state, dtype=torch.uint8))
