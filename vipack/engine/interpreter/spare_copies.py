"""Copies that nobody needs, as of parameters that are written only at the end of a step."""

from __future__ import annotations

import math
from dataclasses import replace

from vipack.engine.interpreter.accesses import accesses, levels, with_values
from vipack.engine.interpreter.instructions import Operation, Program
from vipack.engine.interpreter.layout import Value
from vipack.engine.native.operations import Base

__all__ = ["drop_copies"]


def drop_copies(program: Program) -> None:
    """Let what reads a copy read its source, where neither is written while the copy is in use."""
    last_read: dict[Base, int] = {}
    writes: dict[Base, list[int]] = {}
    repeated: set[int] = set()
    for lines in levels(program.operations):
        if len(lines) > 1:
            repeated.update(lines)
        for line in lines:
            read, written = accesses(program, program.operations[line]).bases()
            last_read.update(dict.fromkeys(read, lines[-1]))
            for base in written:
                writes.setdefault(base, []).append(line)
    sources: dict[Base, Value] = {}
    kept: list[Operation] = []
    for line, operation in enumerate(program.operations):
        if line not in repeated and _is_copy(program, operation) and operation.out is not None:
            copy, source = operation.out, operation.operands[0]
            used_until = last_read.get(copy.base, line)
            stale = any(line < at <= used_until for at in writes.get(source.base, ()))
            loss = program.loss is not None and program.loss.base == copy.base
            if writes[copy.base] == [line] and not stale and not loss:
                origin = sources.get(source.base)
                sources[copy.base] = source if origin is None else _moved(source, origin)
                continue
        kept.append(operation)
    if not sources:
        return
    program.operations = kept
    with_values(program, lambda value: _moved(value, sources[value.base]) if value.base in sources else value)


def _is_copy(program: Program, operation: Operation) -> bool:
    """Whether it fills the whole of a buffer with numbers of one type that lie side by side."""
    name, *types = operation.kernel.split("_")
    if name != "copy" or len(set(types)) > 1 or operation.out is None or operation.out.base.kind != "buffer":
        return False
    dense = len(operation.size) == 1 and all(stride == (1,) for stride in operation.strides)
    size = math.prod(operation.size) * operation.out.dtype.itemsize
    return dense and operation.out.offset == 0 and size == program.buffers[operation.out.base.index]


def _moved(value: Value, source: Value) -> Value:
    """`value`, of a copy, as it lies in the copy's source."""
    return replace(value, base=source.base, offset=value.offset + source.offset)
