"""From a program through everything that its code names: which variables it may read."""

from __future__ import annotations

import argparse
import collections
import functools
import gc
import logging
import os
import types
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
from pyro.poutine import Trace
from torch import Tensor, nn

from vipack.compat.nn_modules import CHILDREN_TABLE, MODULE_HOOKS, MODULE_TABLES
from vipack.engine.guards.execution import Execution, is_library, module_of
from vipack.engine.guards.slots import CONTAINERS, PLAIN, Slot, generator_state, slot_in

__all__ = ["Reading", "read_programs"]

_WITHOUT_VARIABLES = (*PLAIN, Tensor, np.ndarray, np.generic, pd.DataFrame, pd.Series, pd.Index)
_CODE = (types.FunctionType, types.MethodType, functools.partial, staticmethod, classmethod, property, nn.Module)
_OF_MODULES = (*MODULE_TABLES, *MODULE_HOOKS)  # dicts of a module that are read by themselves
# Classes of libraries whose objects are no more than what users put into them.
_HOLDERS = (
    types.SimpleNamespace, argparse.Namespace, collections.UserDict, collections.UserList, collections.ChainMap,
)  # fmt: skip
_IGNORED = (Trace, logging.Logger)  # a run writes to them, and none reads them
_FOLLOWED = ("torch.distributions", "pyro.distributions", "pyro.poutine", "pyro.infer", "pyro.nn", "torch.nn", "zuko")
_NONE: Mapping[str, Any] = types.MappingProxyType({})
_READ_ALL = {"__dict__", "attrgetter", "methodcaller", "__getattribute__"}  # names in code that may read any attribute
_MAY_READ_ALL = _READ_ALL | {"getattr", "hasattr", "vars", "globals", "locals", "eval", "exec"}
_MOST_VARIABLES = 20_000  # that are compared at every look
_MOST_OBJECTS = 200_000  # that are walked through to find them
_LOOK_UP = {"__getattr__", "__getattribute__", "__getitem__"}  # methods of a class that may


class _TooMany(BaseException):  # so that what catches errors of the user's objects lets it pass
    """The walk has met more than can be compared at every look."""


class Reading:
    """The variables that some programs may read.

    Attributes:
        slots: the variables.
        generators: of random numbers, by name.
        tensors: by name, to be put back when a run writes to them.
        reason: why no graph can repeat the programs; empty where one can.
        looks_up: whether some code looks variables up by names that only a run shows.
    """

    def __init__(self) -> None:
        self.slots: dict[tuple[int, str], Slot] = {}
        self.generators: list[tuple[str, Any]] = []
        self.tensors: dict[int, tuple[str, Tensor]] = {}
        self.reason = ""
        self.looks_up = False


def read_programs(programs: Iterable[Any], execution: Execution | None = None) -> Reading:
    """Read `programs`, and what they name, whatever it is.

    Args:
        execution: of a run, after which only the code that ran is followed.
    """
    return _Reader(execution).read(programs)


class _Reader:
    def __init__(self, execution: Execution | None) -> None:
        self._reading = Reading()
        self._execution = execution
        self._everything = execution is not None and execution.namespaces
        self._seen: dict[int, Any] = {}  # by address; kept alive, so that no address is used again
        self._names: set[str] = set()
        self._owners: list[tuple[Any, str]] = []

    def read(self, programs: Iterable[Any]) -> Reading:
        """See :func:`read_programs`."""
        try:
            return self._read_all(programs)
        except _TooMany as error:
            self._reading.reason = (
                f"the program reads more than {error}, which is more than can be compared between steps; hold them in "
                "arrays or tensors, or pass them in `data` or `fixed`"
            )
            return self._reading

    def _read_all(self, programs: Iterable[Any]) -> Reading:
        for program in programs:
            self._read(program, _label_of(program))
        if self._execution is not None:
            self._read_execution(self._execution)
        while True:  # an attribute's name may come from code that was reached by another attribute
            before = len(self._seen), len(self._reading.slots), len(self._names)
            for owner, label in list(self._owners):
                try:
                    self._read_attributes(owner, label)
                except Exception as error:
                    self._give_up(label, error)
            if before == (len(self._seen), len(self._reading.slots), len(self._names)):
                return self._reading

    def _read_execution(self, execution: Execution) -> None:
        """Code that ran although no name leads to it, such as a method from a table of functions."""
        for value in execution.arguments.values():
            self._read(value, _label_of(value))
        known = {value.__code__ for value in self._seen.values() if isinstance(value, types.FunctionType)}
        unknown = list(execution.codes - known)
        for function in gc.get_referrers(*unknown) if unknown else ():
            if isinstance(function, types.FunctionType) and function.__code__ in execution.codes:
                self._read(function, function.__name__)
        for owner, name in execution.attributes:
            try:
                self._read_reached(owner, name)
            except Exception as error:
                self._give_up(name, error)
        for code in execution.codes:
            self._names |= set(code.co_names)
            if not _READ_ALL.isdisjoint(code.co_names):
                self._everything = True

    def _read_reached(self, owner: Any, name: str) -> None:
        """What ``getattr`` was asked for."""
        if isinstance(_vars_of(owner), Mapping) and not is_library(module_of(type(owner))):
            self._read(owner, _label_of(owner))
            slot = self._take(f"{_label_of(owner)}.{name}", _namespace(owner), name)
            self._read(slot.value, slot.name)

    # --- values

    def _read(self, value: Any, name: str) -> None:
        if id(value) in self._seen:
            return
        try:
            self._follow(value, name)
        except Exception as error:  # a proxy, say, that raises whatever it is asked
            self._give_up(name, error)

    def _give_up(self, name: str, error: Exception) -> None:
        self._reading.reason = self._reading.reason or f"{name} cannot be looked into ({type(error).__name__})"

    def _follow(self, value: Any, name: str) -> None:
        if isinstance(value, _WITHOUT_VARIABLES):
            return
        self._seen[id(value)] = value
        if len(self._seen) > _MOST_OBJECTS:
            raise _TooMany(f"{_MOST_OBJECTS:,} objects ({name})")
        if isinstance(value, functools.partial):
            for item in (value.func, *value.args, *value.keywords.values()):
                self._item(item, name)
        elif isinstance(value, types.MethodType):
            self._read(value.__func__, name)
            self._read(value.__self__, name.partition(".")[0])
        elif isinstance(value, types.FunctionType):
            self._read_function(value)
        elif isinstance(value, staticmethod | classmethod):
            self._read(value.__func__, name)
        elif isinstance(value, property):
            self._read(value.fget, name)
        elif isinstance(value, functools.cached_property):
            self._read(value.func, name)
        elif isinstance(value, type):
            if not is_library(module_of(value)):
                self._read_class(value)
        elif isinstance(value, types.ModuleType):
            if not is_library(value.__name__):
                self._owners.append((value, name))
        elif isinstance(value, ContextVar):
            self._take(name, value, "value")
        elif isinstance(value, list | tuple | collections.deque | Mapping | set | frozenset):
            for item in _items_of(value):
                self._item(item, name)
            if _vars_of(value) is not _NONE:
                self._read_object(value, name)
        elif isinstance(value, Iterator) and not hasattr(type(value), "__len__"):
            reason = f"the program names an iterator ({name}), which goes on from call to call"
            self._reading.reason = self._reading.reason or reason
        elif scipy.sparse.issparse(value):
            return
        elif "__wrapped__" in _vars_of(value):  # a function in a cache, or a decorator's
            self._read(_vars_of(value)["__wrapped__"], name)
        elif _vars_of(value) is not _NONE or _slots_of(type(value)):
            self._read_object(value, name)

    def _read_object(self, value: Any, name: str) -> None:
        if not isinstance(value, _IGNORED):
            self._read(type(value), _label_of(type(value)))
            self._owners.append((value, name))

    def _item(self, item: Any, name: str) -> None:
        """An item of a container, whose own slot shows when the item is replaced."""
        if isinstance(item, PLAIN):
            return
        if isinstance(item, (*CONTAINERS, Tensor, np.ndarray)) or generator_state(item) is not None:
            self._take_object(name, item)
        self._read(item, name)

    def _read_class(self, value: type) -> None:
        self._owners.append((value, _label_of(value)))
        for attribute, member in list(vars(value).items()):
            if attribute != "__init__" and isinstance(member, (*_CODE, functools.cached_property)):
                self._read(member, attribute)
        for base in value.__bases__:
            self._read(base, _label_of(base))

    def _read_function(self, function: types.FunctionType) -> None:
        code, library = function.__code__, is_library(function.__module__)
        self._read(vars(function).get("__wrapped__"), function.__name__)
        ran = self._execution is None or code in self._execution.codes
        for cell_name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            if library or ran:
                if not library:
                    self._take(cell_name, cell, cell_name)
                self._read_cell(cell, cell_name)
        if library or not ran:
            return
        if function.__defaults__ or function.__kwdefaults__:
            self._take(f"a default of {function.__name__}", function, "__defaults__")
            self._take(f"a default of {function.__name__}", function, "__kwdefaults__")
            for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
                self._take_object(f"a default of {function.__name__}", default)
                self._read(default, function.__name__)
        self._owners.append((function, function.__name__))
        names = self._names_of(code)
        self._names |= names
        if self._execution is None and not _MAY_READ_ALL.isdisjoint(names):
            self._everything = self._reading.looks_up = True  # until a run shows what it reads
        all_globals = self._execution is not None and self._execution.namespaces
        for name in function.__globals__.keys() if all_globals else names & function.__globals__.keys():
            self._take(name, function.__globals__, name)
            self._read(function.__globals__[name], name)
        if names & {"environ", "getenv", "getenvb", "environb"}:
            self._take_object("os.environ", os.environ._data)  # type: ignore[attr-defined]

    def _read_cell(self, cell: types.CellType, name: str) -> None:
        try:
            self._read(cell.cell_contents, name)
        except ValueError:  # not yet bound
            return

    def _names_of(self, code: types.CodeType) -> set[str]:
        names = set(code.co_names)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                names |= self._names_of(constant)
        return names

    # --- attributes

    def _read_attributes(self, owner: Any, label: str) -> None:
        if isinstance(owner, types.FunctionType):
            self._read_named(vars(owner), owner, label, everything=False)
        elif isinstance(owner, type | types.ModuleType):
            self._read_named(dict(vars(owner)), owner, label, everything=False)
        elif is_library(module_of(type(owner))):
            self._read_library(owner, label)
        else:
            self._read_users(owner, label)

    def _read_named(self, variables: Mapping[str, Any], owner: Any, label: str, *, everything: bool) -> None:
        """Those variables of a namespace that some code names; functions and modules are followed, named or not."""
        everything = everything or (self._everything and not isinstance(owner, type))
        for name, value in list(variables.items()):
            if name == "__init__" or (isinstance(owner, nn.Module) and name in _OF_MODULES):
                continue  # what is only set up once is not read again; parameters and buffers are a graph's own inputs
            if name in self._names or (everything and not name.startswith("__")):
                self._take(f"{label}.{name}", _namespace(owner), name)
                self._read(value, f"{label}.{name}")
            elif isinstance(value, _CODE) and not isinstance(owner, types.ModuleType):
                self._read(value, f"{label}.{name}")

    def _read_users(self, owner: Any, label: str) -> None:
        kind = type(owner)
        own = [vars(base) for base in kind.__mro__ if not is_library(module_of(base))]
        looked_up = any(not _LOOK_UP.isdisjoint(variables) for variables in own)
        variables = _vars_of(owner)
        if isinstance(variables, dict):
            self._read_named(variables, owner, label, everything=looked_up)
            # What the class defines, an instance may come to define for itself.
            defined = {name for variables_of_class in own for name in variables_of_class}
            for name in (defined & self._names) - variables.keys():
                self._take(f"{label}.{name}", variables, name)
        for name in _slots_of(kind):
            if self._everything or looked_up or name in self._names:
                slot = self._take(f"{label}.{name}", owner, name)
                self._read(slot.value, slot.name)
        if isinstance(owner, nn.Module):
            self._read_module(owner, label)

    def _read_library(self, owner: Any, label: str) -> None:
        """Numbers and tensors of a library's object, such as a dropout's p; of some, containers and parts as well."""
        holder, module = isinstance(owner, _HOLDERS), isinstance(owner, nn.Module)
        followed = holder or str(module_of(type(owner))).startswith(_FOLLOWED)
        for name, value in list(_vars_of(owner).items()):
            if isinstance(owner, nn.Module) and name in _OF_MODULES:
                continue
            inside = followed and isinstance(value, (*CONTAINERS, tuple)) and not (module and name.startswith("_"))
            if isinstance(value, (*PLAIN, Tensor)) or inside or holder:
                self._take(f"{label}.{name}", vars(owner), name, library=not holder and name not in self._names)
            if followed or isinstance(value, _CODE):
                self._read(value, f"{label}.{name}")
        if isinstance(owner, nn.Module):
            self._read_module(owner, label)

    def _read_module(self, module: nn.Module, label: str) -> None:
        self._take(f"{label}.training", vars(module), "training")
        self._take(f"{label}.forward", vars(module), "forward")
        for name in (CHILDREN_TABLE, *MODULE_HOOKS):
            table = vars(module).get(name)
            if table is None:
                continue
            self._take(f"{label}.{name}", vars(module), name)
            for key, value in table.items():
                self._read(value, f"{label}.{key}" if name == CHILDREN_TABLE else f"{label}.{name}")

    def _take(self, name: str, owner: Any, key: str, *, library: bool = False) -> Slot:
        known = self._reading.slots.get((id(owner), key))
        return known or self._add(slot_in(name, owner, key, library=library))

    def _take_object(self, name: str, value: Any) -> None:
        """An object that another slot holds, which shows when it is replaced: only its contents are compared."""
        identity = (id(value), "object")
        if identity not in self._reading.slots:
            self._add(Slot(name, {"object": value}, "object", identity=identity))

    def _add(self, slot: Slot) -> Slot:
        value, name = slot.value, slot.name
        if generator_state(value) is not None and not any(value is g for _, g in self._reading.generators):
            self._reading.generators.append((name, value))
        if isinstance(value, Tensor):
            self._reading.tensors.setdefault(id(value), (name, value))
        self._reading.slots[slot.identity] = slot
        if len(self._reading.slots) > _MOST_VARIABLES:
            raise _TooMany(f"{_MOST_VARIABLES:,} variables ({name})")
        return slot


def _vars_of(value: Any) -> Mapping[str, Any]:
    """An object's attributes; none where it has no dict."""
    try:
        variables: Mapping[str, Any] = value.__dict__
    except Exception:  # a class may answer for names that it does not have, and raise what it likes
        return _NONE
    return variables


def _items_of(value: Any) -> list[Any]:
    try:
        return list(value.values()) if isinstance(value, Mapping) else list(value)
    except Exception:  # of a class that only looks like a container
        return []


def _namespace(owner: Any) -> Any:
    """What holds an object's attributes: its dict, or a class itself, whose dict cannot be written to."""
    return owner if isinstance(owner, type) or not isinstance(_vars_of(owner), dict) else _vars_of(owner)


def _slots_of(kind: type) -> list[str]:
    """The names that a class and its bases declare as ``__slots__``."""
    declared: list[str] = []
    for base in kind.__mro__:
        names = vars(base).get("__slots__", ())
        declared += [names] if isinstance(names, str) else list(names) if not is_library(module_of(base)) else []
    return [name for name in declared if name not in ("__dict__", "__weakref__")]


def _label_of(value: Any) -> str:
    try:
        named = isinstance(value, types.FunctionType | types.ModuleType | type)
        return str(value.__name__) if named else type(value).__name__
    except Exception:  # of a class that answers for its name itself
        return "an object"
