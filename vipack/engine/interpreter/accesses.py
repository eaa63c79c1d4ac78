"""What the operations of a program read and write."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vipack.engine.interpreter.instructions import Operation, Program
from vipack.engine.interpreter.layout import Value
from vipack.engine.native.operations import Base

__all__ = ["Accesses", "accesses", "levels", "with_values"]

_ADDS_UP = "scatter_add"  # reads its output
_UPDATES_STATISTICS = "batch_norm"  # its schema does not say that it writes to its arguments


@dataclass(frozen=True)
class Accesses:
    """Tensors that an operation reads and writes; one may be both."""

    read: tuple[Value, ...]
    written: tuple[Value, ...]

    def bases(self) -> tuple[set[Base], set[Base]]:
        """The memory that is read, and that is written."""
        return {value.base for value in self.read}, {value.base for value in self.written}


def accesses(program: Program, operation: Operation) -> Accesses:
    """Of one operation, without those that it repeats."""
    if operation.kernel == "library":
        call = program.library[operation.extra[0]]
        read = tuple(_values([call.arguments, list(call.keywords.values())]))
        return Accesses(read, (*_values(call.results), *(read if _UPDATES_STATISTICS in call.operator else ())))
    written = () if operation.out is None else (operation.out,)
    adds_up = operation.kernel.startswith(_ADDS_UP) or operation.kernel == "store"
    return Accesses((*operation.operands, *(written if adds_up else ())), written)


def levels(operations: Sequence[Operation]) -> Iterator[range]:
    """The lines of each operation of the outermost level: its own, and those that it repeats."""
    line = 0
    while line < len(operations):
        end = line + 1 + (operations[line].extra[0] if operations[line].kernel in ("repeat", "blocks") else 0)
        yield range(line, end)
        line = end


def with_values(program: Program, change: Callable[[Value], Value]) -> None:
    """Let every operation work on ``change(value)`` in place of each of its tensors."""

    def changed(item: Any) -> Any:
        if isinstance(item, Value):
            return change(item)
        return type(item)(changed(each) for each in item) if isinstance(item, list | tuple) else item

    program.operations = [
        replace(line, out=changed(line.out), operands=changed(line.operands)) for line in program.operations
    ]
    program.library = [
        replace(
            call,
            arguments=changed(call.arguments),
            keywords={name: changed(item) for name, item in call.keywords.items()},
            results=changed(call.results),
        )
        for call in program.library
    ]
    program.loss = changed(program.loss)


def _values(item: Any) -> Iterator[Value]:
    if isinstance(item, Value):
        yield item
    elif isinstance(item, list | tuple):
        for each in item:
            yield from _values(each)
