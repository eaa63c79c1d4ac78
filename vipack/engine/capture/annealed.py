"""Numbers among the arguments that change from call to call, such as a weight that is annealed: tensors for a graph.

A graph for each value would be many. So a number that has had several values is given to the graph as a tensor without
dimensions, while eager steps get the number itself.
"""

from __future__ import annotations

import builtins
import contextlib
import dis
import os
import sys
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from types import CodeType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vipack.compat.patching import patched
from vipack.compat.pytorch import TENSOR_TYPES
from vipack.engine.capture.reads import users_line
from vipack.engine.capture.tracing import CaptureError
from vipack.engine.guards.arguments import FlatCall, flatten, numbers_replaced, tensors_in
from vipack.program import Arguments

__all__ = ["AnnealedNumbers", "as_numbers", "asks_for_types", "number_of"]

_VALUES = 4  # that a number must have had
_ASKING = {"type", "__class__"}
_TEXTS = ("__hash__", "__format__", "__repr__")
_CALLS = 64  # that are told apart by what is in them besides numbers


class AnnealedNumbers:
    """Calls that differ in nothing but numbers.

    Attributes:
        unsettled: whether numbers of the last call came for the first time, after others: the next may be others again, so that a
            graph of these alone does not pay.
    """

    def __init__(self) -> None:
        self.unsettled = False
        self._plain: dict[Hashable, Hashable] = {}  # calls whose numbers have had few values -> these calls
        self._values: dict[Hashable, list[tuple[Any, ...]]] = {}
        self._refused: set[Hashable] = set()

    def lifted(
        self, call: FlatCall, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Arguments, tuple[Tensor, ...], Hashable] | None:
        """A call with its changing numbers as tensors, those of the graph, and its key; None where none are to be."""
        self.unsettled = False
        if not call.numbers or call.key in self._plain:
            return None
        apart = flatten(args, kwargs, numbers_apart=True).key
        if apart in self._refused or (apart not in self._values and len(self._values) >= _CALLS):
            return None
        values = self._values.setdefault(apart, [])
        if len(values) < _VALUES:
            self._plain[call.key] = apart
            values.append(call.numbers)
            if len(values) < _VALUES:
                self.unsettled = len(values) > 1
                return None
            self._plain = {key: calls for key, calls in self._plain.items() if calls != apart}
        changes = [any(value != each[index] for each in values) for index, value in enumerate(call.numbers)]
        tensors = [_tensor(value) if moves else None for value, moves in zip(call.numbers, changes, strict=True)]
        lifted = numbers_replaced(args, kwargs, tensors)
        fixed = tuple(value for value, moves in zip(call.numbers, changes, strict=True) if not moves)
        return Arguments(*lifted), tuple(tensors_in(lifted)), ("annealed", apart, tuple(changes), fixed)

    def refuse(self, key: Hashable) -> None:
        """No graph takes these calls with tensors for numbers."""
        assert isinstance(key, tuple)
        self._refused.add(key[1])


def _tensor(value: Any) -> Tensor:
    whole = isinstance(value, int | np.integer)
    tensor = torch.tensor(value, dtype=torch.int64 if whole else torch.get_default_dtype())
    tensor._vipack_number = value  # type: ignore[attr-defined]
    return tensor


def number_of(tensor: Tensor) -> Any:
    """What a tensor stands for; None where it is one."""
    return getattr(tensor, "_vipack_number", None)


def asks_for_types(codes: Iterable[CodeType]) -> str:
    """Where functions ask for the type of something in a way that cannot be answered as for a number; empty if nowhere."""
    for code in codes:
        if not _ASKING.isdisjoint(code.co_names) or any(i.opname == "MATCH_CLASS" for i in dis.get_instructions(code)):
            return f"{os.path.basename(code.co_filename)}:{code.co_firstlineno}"
    return ""


@contextlib.contextmanager
def as_numbers(tensors: Sequence[Tensor], numbers: Sequence[Any]) -> Iterator[None]:
    """Inside the block, the user's code finds tensors that stand for numbers to be of their type.

    Raises:
        CaptureError: it looks one up in a set or dict, or writes it out, where a tensor is not what the number is.
    """
    if not tensors:
        yield
        return
    number_by_id = {id(tensor): number for tensor, number in zip(tensors, numbers, strict=True)}

    def asked(value: Any) -> bool:
        return id(value) in number_by_id and bool(users_line(sys._getframe(2)))

    def answering(question: Any) -> Any:
        return lambda value, about: question(number_by_id[id(value)] if asked(value) else value, about)

    def refusing(method: Any) -> Any:
        def refuse(self: Tensor, *args: Any) -> Any:
            if asked(self):
                where = users_line(sys._getframe(1))
                raise CaptureError(
                    f"the program looks up or writes out a number that changes from call to call ({where})"
                )
            return method(self, *args)

        return refuse

    is_tensor = torch.is_tensor
    with contextlib.ExitStack() as stack:
        for kind in TENSOR_TYPES:
            texts = {name: refusing(getattr(kind, name)) for name in _TEXTS if name in kind.__dict__}
            stack.enter_context(patched(kind, **texts))
        stack.enter_context(patched(torch, is_tensor=lambda value: is_tensor(value) and not asked(value)))
        stack.enter_context(patched(builtins, isinstance=answering(isinstance), hasattr=answering(hasattr)))
        yield
