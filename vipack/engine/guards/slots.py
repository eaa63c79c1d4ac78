"""Variables that a program reads: their values when a graph was captured, and their values now."""

from __future__ import annotations

import array
import random
import types
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
import torch

from vipack.engine.guards.tensors import same_memory

__all__ = [
    "CONTAINERS",
    "MISSING",
    "PLAIN",
    "Slot",
    "comparable",
    "differs",
    "generator_state",
    "set_generator_state",
    "slot_in",
]

PLAIN = (bool, int, float, complex, str, bytes, type(None))
CONTAINERS = (list, dict, set, deque, bytearray, array.array)
MISSING = object()
_MOST_ENTRIES = 200_000  # of a container, that are compared at every look
_MOST_BYTES = 1 << 26  # of an array, likewise
_FEW = 1_000  # entries that are compared one by one
_EQUAL_IF_SAME = (np.generic, range, slice, torch.Size, torch.dtype, torch.device)


class Slot:
    """A variable, and the value that it had.

    Args:
        owner: the dict of a module or instance; or the object that `read` reads.
        read: gives the value that the variable has now, where `owner` is no dict.
        write: puts a value back, where that can be done.
        library: whether the variable is a library's own, which may change it as it likes.
        identity: by default of `owner` and `key`.

    Attributes:
        identity: equal for slots of the same variable.
        too_large: what the value is, if it is too large to be compared at every look.
    """

    def __init__(
        self,
        name: str,
        owner: Any,
        key: str,
        *,
        read: Callable[[], Any] | None = None,
        write: Callable[[Any], None] | None = None,
        library: bool = False,
        identity: tuple[int, str] | None = None,
    ) -> None:
        self.name, self.owner, self.key, self.library = name, owner, key, library
        self.identity = (id(owner), key) if identity is None else identity
        self._read, self._write = read, write
        self.too_large = ""
        self.value = self.now()
        self.contents = self._contents()

    @property
    def in_dict(self) -> bool:
        """Whether it is an entry of a dict."""
        return self._read is None

    @property
    def is_empty(self) -> bool:
        """Whether its value was an empty container."""
        return isinstance(self.contents, list | dict | set | deque) and not self.contents

    def now(self) -> Any:
        """The value that it has now."""
        return self.owner.get(self.key, MISSING) if self._read is None else self._read()

    def changed(self) -> bool:
        """Whether the value is another one now."""
        now = self.now()
        if now is self.value:
            return self.contents is not None and not same_contents(now, self.contents)
        return differs(now, self.value)

    def renew(self) -> None:
        """Compare with the value that it has now from here on."""
        self.value = self.now()
        self.contents = self._contents()

    def restore(self) -> None:
        """Put back its value, and the contents of that."""
        if self.now() is not self.value:
            if self._read is not None:
                if self._write is not None:
                    self._write(self.value)
            elif self.value is MISSING:
                self.owner.pop(self.key, None)
            else:
                self.owner[self.key] = self.value
        if self.contents is not None and not same_contents(self.value, self.contents):
            _refill(self.value, self.contents)

    def _contents(self) -> Any:
        value = self.value
        if isinstance(value, CONTAINERS):
            if len(value) > _MOST_ENTRIES:
                self.too_large = f"a {type(value).__name__} of {len(value):,} entries"
                return None
            return (
                dict(value) if isinstance(value, dict) else value.copy() if isinstance(value, set | deque) else value[:]
            )
        if isinstance(value, np.ndarray):
            if value.nbytes > _MOST_BYTES and value.flags.writeable:
                self.too_large = f"an array of {value.nbytes >> 20:,} MB"
                return None
            return value.copy() if value.flags.writeable else None
        if isinstance(value, pd.DataFrame | pd.Series | pd.Index) or scipy.sparse.issparse(value):
            return value.copy()
        return None


def differs(now: Any, before: Any) -> bool:
    """Whether a program may tell one object from another that it replaces."""
    if isinstance(now, PLAIN) and isinstance(before, PLAIN):
        return type(now) is not type(before) or not _equal_numbers(now, before)
    if type(now) is type(before) and isinstance(now, _EQUAL_IF_SAME):
        return not _equal_numbers(now, before)
    return True


def same_contents(now: Any, before: Any) -> bool:
    """Whether a container, an array or a table holds what its copy does."""
    if isinstance(now, np.ndarray):
        return _same_array(now, before)
    if isinstance(now, pd.DataFrame | pd.Series | pd.Index):
        return bool(now.equals(before))
    if scipy.sparse.issparse(now):
        return bool(now.shape == before.shape and (now != before).nnz == 0)
    if len(now) != len(before):
        return False
    if isinstance(now, set | bytearray | array.array):
        return bool(now == before)
    if isinstance(now, dict):
        if len(now) > _FEW:
            return _same_many(list(now), list(before)) and _same_many(list(now.values()), list(before.values()))
        pairs = zip(now.items(), before.items(), strict=True)
        return all(_same_item(k, other_k) and _same_item(v, other_v) for (k, v), (other_k, other_v) in pairs)
    if len(now) > _FEW:
        return _same_many(list(now), list(before))
    return all(map(_same_item, now, before))


def _same_many(now: list[Any], before: list[Any]) -> bool:
    # Most are the very same objects, which a comparison of lists sees at once.
    try:
        if now == before and list(map(type, now)) == list(map(type, before)):
            return True
    except (RuntimeError, ValueError, TypeError):  # tensors and arrays do not say whether they are equal
        pass
    return all(map(_same_item, now, before))


def _same_item(one: Any, two: Any) -> bool:
    return one is two or not differs(one, two)


def _equal_numbers(one: Any, two: Any) -> bool:
    return bool(one == two) or bool(one != one and two != two)


def _same_array(now: np.ndarray, before: np.ndarray) -> bool:
    if now.dtype != before.dtype or now.shape != before.shape:
        return False
    if now.dtype == object:
        return _same_many(now.ravel().tolist(), before.ravel().tolist())
    if now.flags.c_contiguous and before.flags.c_contiguous:
        return same_memory(now.ctypes.data, before.ctypes.data, now.nbytes)
    return now.tobytes() == before.tobytes()


def _refill(container: Any, contents: Any) -> None:
    if isinstance(container, np.ndarray):
        container[...] = contents
    elif isinstance(container, dict | set):
        container.clear()
        container.update(contents)
    elif isinstance(container, bytearray | array.array):
        container[:] = contents
    elif isinstance(container, list | deque):
        container.clear()
        container.extend(contents)


def generator_state(value: Any) -> Any:
    """What a generator of random numbers will draw next, as something to compare; None for anything else."""
    if isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
        return value.getstate()
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if isinstance(value, np.random.RandomState):
        return value.get_state(legacy=False)
    if isinstance(value, torch.Generator):
        return value.get_state().numpy()
    return None


def comparable(state: Any) -> Any:
    """A generator's state with its arrays as bytes, so that two can be compared."""
    if isinstance(state, np.ndarray):
        return state.tobytes()
    if isinstance(state, dict):
        return {name: comparable(value) for name, value in state.items()}
    return state


def set_generator_state(generator: Any, state: Any) -> None:
    """Put a generator back."""
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    else:
        generator.set_state(torch.from_numpy(state.copy()))


def slot_in(name: str, owner: Any, key: str, *, library: bool = False) -> Slot:
    """The slot of a variable in a dict, a class, a closure's cell or an object with ``__slots__``."""
    if isinstance(owner, types.CellType):
        return Slot(name, owner, key, read=lambda: _cell(owner), write=lambda v: _set_cell(owner, v), library=library)
    if isinstance(owner, type):
        return Slot(
            name, owner, key, read=lambda: vars(owner).get(key, MISSING), write=lambda v: setattr(owner, key, v)
        )
    if isinstance(owner, ContextVar):
        return Slot(name, owner, key, read=lambda: owner.get(MISSING))
    if isinstance(owner, Mapping):
        return Slot(name, owner, key, library=library)
    return Slot(
        name,
        owner,
        key,
        read=lambda: _slotted(owner, key),
        write=lambda v: delattr(owner, key) if v is MISSING else setattr(owner, key, v),
        library=library,
    )


def _slotted(owner: Any, name: str) -> Any:
    try:
        return object.__getattribute__(owner, name)
    except AttributeError:  # not set
        return MISSING


def _cell(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not bound, or no longer
        return MISSING


def _set_cell(cell: types.CellType, value: Any) -> None:
    if value is MISSING:
        del cell.cell_contents
    else:
        cell.cell_contents = value
