"""The arguments of a call: which tensors are in it, and everything else by value, type, name and position."""

from __future__ import annotations

import enum
import hashlib
import numbers
import struct
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["ByIdentity", "FlatCall", "flatten", "numbers_replaced", "replaced", "tensors_in"]

_BY_VALUE = (bool, int, str, bytes, type(None), type(...), torch.dtype, torch.device, torch.layout, range, type)


@dataclass(frozen=True, eq=False)
class ByIdentity:
    """Equal to itself alone; holds the object, so that its address is not used again."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByIdentity) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


@dataclass(frozen=True)
class FlatCall:
    """A call as a flat list of its tensors, and a key for everything else.

    Attributes:
        tensors: those among the arguments, in order; what stands in an object of a user's class is not among them.
        key: equal for calls that differ in the numbers of their tensors only.
        objects: what is known by identity, and may change within.
        immutable: whether nothing but the numbers of tensors can change while the same arguments are passed.
        reason: why no graph can take this call; empty where one can.
        numbers: Python's and NumPy's real and whole numbers, in order.
    """

    tensors: tuple[Tensor, ...]
    key: Hashable
    objects: tuple[Any, ...]
    immutable: bool
    reason: str = ""
    numbers: tuple[Any, ...] = ()


def flatten(args: Sequence[Any], kwargs: Mapping[str, Any], *, numbers_apart: bool = False) -> FlatCall:
    """The tensors of a call, and the key of the rest; containers are followed to any depth.

    Args:
        numbers_apart: let the key be that of all calls that differ in their numbers only.
    """
    reader = _Reader(numbers_apart)
    key = reader.read((tuple(args), dict(kwargs)), ())
    immutable = not reader.objects and all(_is_flat(value) for value in (*args, *kwargs.values()))
    return FlatCall(tuple(reader.tensors), key, tuple(reader.objects), immutable, reader.reason, tuple(reader.numbers))


def numbers_replaced(args: Any, kwargs: Any, others: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A call with its numbers replaced, in the order of :attr:`FlatCall.numbers`; with None, one stays."""
    given = iter(others)

    def put(value: Any) -> Any:
        if _is_number(value):
            new = next(given)
            return value if new is None else new
        return _NOT_REPLACED

    call: tuple[tuple[Any, ...], dict[str, Any]] = _replaced((tuple(args), dict(kwargs)), put)
    return call


class _Reader:
    def __init__(self, numbers_apart: bool) -> None:
        self.numbers: list[Any] = []
        self._numbers_apart = numbers_apart
        self.tensors: list[Tensor] = []
        self.objects: list[Any] = []
        self.reason = ""

    def read(self, value: Any, around: tuple[int, ...]) -> Hashable:
        """The key of a value; `around` are the containers that it stands in."""
        kind = type(value)
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, enum.Enum):
            return ByIdentity(value)
        if _is_number(value):
            self.numbers.append(value)
            if self._numbers_apart:
                return "number", kind
        if kind in _BY_VALUE or isinstance(value, type):
            return kind, value
        if kind is float:
            return kind, struct.pack("d", value)  # NaN equals itself then, and 0.0 is not -0.0
        if kind is complex:
            return kind, struct.pack("dd", value.real, value.imag)
        if kind is slice:
            return kind, value.start, value.stop, value.step
        if isinstance(value, np.generic):
            return kind, value.dtype.str, value.tobytes()
        if isinstance(value, np.ndarray) and value.dtype != object:
            return kind, value.dtype.str, value.shape, hashlib.blake2b(value.tobytes()).digest()
        if isinstance(value, numbers.Number) and isinstance(value, Hashable):
            return kind, value
        if id(value) in around:
            self.reason = "an argument holds itself"
            return ByIdentity(value)
        inside = (*around, id(value))
        if isinstance(value, Mapping) and _is_container(value):
            return (kind, *((self.read(name, inside), self.read(item, inside)) for name, item in value.items()))
        if _is_container(value):
            return (kind, *(self.read(item, inside) for item in value))
        if isinstance(value, set | frozenset):
            if any(isinstance(item, Tensor) for item in value):
                self.reason = "a set among the arguments holds tensors, whose order is that of their addresses"
            return kind, frozenset(self.read(item, inside) for item in value)
        self.objects.append(value)
        return ByIdentity(value)

    def _tensor(self, value: Tensor) -> Hashable:
        if isinstance(value, nn.Parameter) or value.requires_grad:
            self.reason = self.reason or "an argument requires grad, and Pyro leaves its gradient in it"
        elif type(value) is not Tensor:
            self.reason = self.reason or f"an argument is a {type(value).__name__}, whose operations are its own"
        self.tensors.append(value)
        return "tensor", tuple(value.shape), value.dtype, value.device, value.layout


def _is_container(value: Any) -> bool:
    """Whether a value is made of its items alone, so that it can be made anew of others."""
    return type(value) in (list, tuple, dict, OrderedDict, defaultdict, deque, torch.Size) or (
        isinstance(value, tuple) and hasattr(value, "_fields")
    )


def _is_flat(value: Any) -> bool:
    return isinstance(value, Tensor | np.generic | enum.Enum | float | complex) or type(value) in _BY_VALUE


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in containers, in the order of :func:`replaced`."""
    if isinstance(value, Tensor):
        return [value]
    if not _is_container(value):
        return []
    items = value.values() if isinstance(value, Mapping) else value
    return [tensor for item in items for tensor in tensors_in(item)]


def replaced(value: Any, tensors: Sequence[Tensor]) -> Any:
    """`value` with each tensor in its containers replaced by the next of `tensors`."""
    given = iter(tensors)
    return _replaced(value, lambda item: next(given) if isinstance(item, Tensor) else _NOT_REPLACED)


_NOT_REPLACED = object()


def _is_number(value: Any) -> bool:
    return type(value) in (float, int) or isinstance(value, np.floating | np.integer)


def _replaced(value: Any, put: Callable[[Any], Any]) -> Any:
    """The same object where nothing in it is replaced."""
    new = put(value)
    if new is not _NOT_REPLACED:
        return new
    if not _is_container(value):
        return value
    if isinstance(value, Mapping):
        items = {name: _replaced(item, put) for name, item in value.items()}
        if all(items[name] is item for name, item in value.items()):
            return value
        if isinstance(value, defaultdict):
            return defaultdict(value.default_factory, items)
        kind: Any = type(value)
        return kind(items)
    sequence = [_replaced(item, put) for item in value]
    if all(one is other for one, other in zip(sequence, value, strict=True)):
        return value
    return type(value)(*sequence) if hasattr(value, "_fields") else type(value)(sequence)
