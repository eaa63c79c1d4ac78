"""What a program reads from its tensors into Python, to branch on it or to count: a graph takes it for granted and checks it.

A tracer's tensors have no values. So the program runs once with values, which are noted where they are read, and is traced with
those as answers; for each the graph gets a check that the tensor still says so. Where one does not, the step is Pyro's.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import sys
import sysconfig
from collections import defaultdict, deque
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from types import CodeType, FrameType, TracebackType
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor

import vipack.version
from vipack.compat.aten import LOCAL_SCALAR_DENSE
from vipack.compat.dispatch import Operations
from vipack.compat.patching import patched
from vipack.compat.pytree import tree_map
from vipack.engine.capture.packed import Known, lengths_known, lengths_noted
from vipack.engine.capture.sizes import counted, depends_on_data, is_sized, sized

__all__ = [
    "Answers",
    "Read",
    "Unanswered",
    "noted_numbers",
    "observed",
    "users_line",
    "where_it_failed",
]

aten = torch.ops.aten

_READING = (LOCAL_SCALAR_DENSE, aten.equal.default)
_ITEMS = (aten.select.int, LOCAL_SCALAR_DENSE)
_LARGEST = 4_096  # numbers of an array that goes to NumPy
_TORCH = os.path.dirname(torch.__file__) + os.sep
_OURS = os.path.dirname(os.path.abspath(vipack.version.__file__)) + os.sep
_LIBRARIES = (
    _TORCH,
    _OURS,
    os.path.dirname(pyro.__file__) + os.sep,
    sysconfig.get_paths()["stdlib"] + os.sep + "contextlib",
)
_OTHERS = (*_LIBRARIES, "<")

_ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "capture.py")  # where the calls of a program begin

Values = dict[Hashable, deque[Any]]


class Unanswered(Exception):
    """The program reads a number that it did not read in the run with values."""


@dataclass(frozen=True)
class Read:
    """A number, a truth value or an array that the program has read.

    Attributes:
        value: what it was.
        where: the user's line, as ``file:number``.
    """

    value: Any
    where: str

    @property
    def exact(self) -> bool:
        """Whether it is an array or no whole number, which a tensor that changes hardly ever equals again."""
        whole = isinstance(self.value, bool | int) or (isinstance(self.value, float) and self.value.is_integer())
        return not whole


@dataclass
class Answers:
    """The values of a run, given out again at the same positions, and what must hold for them to be right.

    Attributes:
        reads: those that were given out.
        checks: for each, a truth value ``()``.
    """

    values: Values
    reads: list[Read] = field(default_factory=list)
    checks: list[Tensor] = field(default_factory=list)

    @contextlib.contextmanager
    def given(self) -> Iterator[None]:
        """Inside the block, reading a tensor gives the value that was noted.

        Raises:
            Unanswered: there is none, or it is NaN.
        """
        self.reads, self.checks = [], []
        waiting = {position: deque(values) for position, values in self.values.items()}

        def answer(value: Tensor, other: Any = None) -> Any:
            position, where = _position()
            if not waiting.get(position):
                raise Unanswered(where)
            noted = waiting[position].popleft()
            if isinstance(noted, float) and math.isnan(noted):
                raise Unanswered(where)
            self.reads.append(Read(noted, where))
            self.checks.append(_check(value, other, noted))
            return noted

        def answer_size(func: Any, args: Any, kwargs: Any) -> Any:
            if is_sized(func, args):
                return sized(func, args, [answer(count) for count in counted(func, args)])
            for value in _tensors((*args, *kwargs.values())):
                answer(value)
            position, where = _position()
            if not waiting.get(position):
                raise Unanswered(where)
            return _copies(waiting[position].popleft())

        def known_item(func: Any, args: Any) -> Any:
            array = known.array(args[0])
            if array is None:
                return None
            return known.tensor(array.take(args[2], args[1])) if func is aten.select.int else array.item()

        known = Known()
        with _Reading(answer, answer_size, known_item), _arrays(answer), lengths_known(answer, known):
            yield


@contextlib.contextmanager
def observed() -> Iterator[Values]:
    """Inside the block, what is read from tensors is noted by the position in the program where it is read."""
    values: Values = defaultdict(deque)

    def note(value: Tensor, other: Any = None) -> Any:
        if other is not None:
            number: Any = aten.equal.default(value, other)
        else:
            number = LOCAL_SCALAR_DENSE(value) if value.numel() == 1 else None
        values[_position()[0]].append(number)
        return number

    def note_array(value: Tensor) -> Any:
        array = _to_numpy(torch.Tensor.detach(value).clone().cpu())
        values[_position()[0]].append(array)
        return array

    def note_size(func: Any, args: Any, kwargs: Any) -> Any:
        if is_sized(func, args):
            for count in counted(func, args):
                note(count)
            return func(*args, **kwargs)
        for value in _tensors((*args, *kwargs.values())):
            note_array(value)
        result = func(*args, **kwargs)
        values[_position()[0]].append(_copies(result))
        return result

    with _Reading(note, note_size), _arrays(note_array), _items_are_tensors(), lengths_noted(note_array):
        yield values


@contextlib.contextmanager
def noted_numbers() -> Iterator[dict[Hashable, tuple[str, list[Any]]]]:
    """Inside the block, which is an ordinary step: the real numbers and arrays that the user's code reads from tensors.

    Yields:
        Position in the program -> line and what was read there, one after the other; arrays as bytes.
    """
    numbers: dict[Hashable, tuple[str, list[Any]]] = {}

    def keep(value: Any, frame: FrameType) -> None:
        name = frame.f_code.co_filename
        if not name.startswith(_LIBRARIES):
            where = f"{os.path.basename(name)}:{frame.f_lineno}"
            numbers.setdefault((frame.f_code, frame.f_lineno), (where, []))[1].append(value)

    def note(value: Tensor, other: Any = None) -> Any:
        read = aten.equal.default(value, other) if other is not None else LOCAL_SCALAR_DENSE(value)
        if isinstance(read, float) and Read(read, "").exact:
            keep(read, _reader())
        return read

    def noting(original: Any) -> Any:
        def read(self: Tensor, *args: Any, **options: Any) -> Any:
            if self.is_floating_point() and self.numel() <= _LARGEST:
                keep(_to_numpy(self.detach().cpu()).tobytes(), _reader())
            return original(self, *args, **options)

        return read

    methods = {name: noting(getattr(torch.Tensor, name)) for name in ("numpy", "tolist")}
    with patched(torch.Tensor, **methods), _Reading(note):
        yield numbers


def _reader() -> FrameType:
    """The frame outside of torch that reads a number."""
    frame = sys._getframe(2)
    while frame.f_code.co_filename.startswith((_TORCH, _OURS)) and frame.f_back is not None:
        frame = frame.f_back
    return frame


class _Reading(Operations):
    """Calls a function where a number is read from a tensor, and another where a size depends on one.

    Args:
        read_size: None where sizes are of no interest.
        known: gives an item of a tensor that has values, though others have none; None where it has none either.
    """

    def __init__(self, read: Any, read_size: Any = None, known: Any = None) -> None:
        super().__init__()
        self._read, self._read_size, self._known = read, read_size, known

    def operation(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What it gives, or what was noted of it."""
        if self._known is not None and function in _ITEMS:
            item = self._known(function, args)
            if item is not None:
                return item
        if function in _READING:
            return self._read(*args)
        if self._read_size is not None and depends_on_data(function, args):
            return self._read_size(function, args, kwargs)
        return function(*args, **kwargs)


def _tensors(arguments: Iterable[Any]) -> list[Tensor]:
    """The tensors among arguments, whose values are to be read as arrays.

    Raises:
        Unanswered: one is too large.
    """
    tensors = [value for value in arguments if isinstance(value, Tensor)]
    if any(value.numel() > _LARGEST for value in tensors):
        raise Unanswered(_position()[1])
    return tensors


def _copies(result: Any) -> Any:
    """An operation's result, of which autograd knows nothing."""
    return tree_map(lambda each: each.clone() if isinstance(each, Tensor) else each, result)


def _check(value: Tensor, other: Any, noted: Any) -> Tensor:
    """Whether a tensor still has the value that was noted."""
    value = value.detach()
    if other is not None:  # of torch.equal
        same = torch.eq(value, other.detach()).all()
        return same if noted else torch.logical_not(same)
    if isinstance(noted, np.ndarray):
        return torch.eq(value, torch.from_numpy(noted.copy()).to(value.device)).all()
    if isinstance(noted, bool):
        value = value.reshape(())
        return value if noted else torch.logical_not(value)
    return torch.eq(value.reshape(()), noted)


_to_numpy: Any = torch.Tensor.numpy


@contextlib.contextmanager
def _arrays(read: Any) -> Iterator[None]:
    """Inside the block, ``Tensor.numpy`` asks `read`, and gives an array of its own."""

    def numpy(self: Tensor, *, force: bool = False) -> Any:
        if self.numel() > _LARGEST:
            raise Unanswered(_position()[1])
        return np.array(read(self))

    with patched(torch.Tensor, numpy=numpy):
        yield


@contextlib.contextmanager
def _items_are_tensors() -> Iterator[None]:
    """Inside the block, an item is a tensor without dimensions, as it is to a tracer; Python reads it where it needs it."""

    def item(self: Tensor) -> Tensor:
        return self.detach().reshape(())

    def tolist(self: Tensor) -> Any:
        return item(self) if self.dim() == 0 else [tolist(row) for row in self]

    with patched(torch.Tensor, item=item, tolist=tolist):
        yield


def _position() -> tuple[Hashable, str]:
    """Where in the program a number is read: the calls that lead there, and the user's line."""
    frame: FrameType | None = sys._getframe(2)
    calls: list[Hashable] = []
    where = ""
    while frame is not None and frame.f_code.co_filename != _ROOT:
        if not frame.f_code.co_filename.startswith((_TORCH, _OURS)):
            # By expressions, since an interpreter that adapts stops at other instructions in the next run.
            calls.append((id(frame.f_code), _positions(frame.f_code)[frame.f_lasti // 2]))
        where = where or users_line(frame)
        frame = frame.f_back
    return tuple(calls), where


@functools.lru_cache(maxsize=512)
def _positions(code: CodeType) -> list[tuple[int | None, ...]]:
    """Of each instruction, where in the file its expression stands."""
    return list(code.co_positions())


def users_line(frame: FrameType) -> str:
    """``file:number`` of a frame in the user's own code; empty in torch's, Pyro's and ours."""
    name = frame.f_code.co_filename
    return "" if name.startswith(_OTHERS) else f"{os.path.basename(name)}:{frame.f_lineno}"


def where_it_failed(error: BaseException) -> str:
    """The user's line that led to an error; empty where none did."""
    trace: TracebackType | None = error.__traceback__
    line = ""
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if not name.startswith(_OTHERS):
            line = f"{os.path.basename(name)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return line
