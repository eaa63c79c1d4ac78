"""Operations over the same rows, joined into loops over blocks of rows, so that what they hand on stays in the cache.

A tensor of a million numbers that one operation writes and the next one reads travels to memory and back; in blocks of a few
thousand numbers it does not, and takes no more memory than a block. Operations are put in another order for it, each as late
as it can be, so that an optimizer's are joined too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vipack.engine.interpreter.accesses import accesses, levels
from vipack.engine.interpreter.instructions import Block, Operation, Program
from vipack.engine.interpreter.layout import Value
from vipack.engine.native.operations import Base

__all__ = ["join_into_blocks"]

_NUMBERS = 2_048  # of a tensor in a block: with some ten tensors at a time, a core's first cache
_FEWEST = 8_192  # numbers of the largest tensor; smaller ones stay in the cache by themselves
_LONGEST_ROW = 8_192
_MOST = 96  # operations in a loop


def join_into_blocks(program: Program) -> None:
    """Join what can be joined; a program of small tensors stays as it is."""
    items = [program.operations[lines.start : lines.stop] for lines in levels(program.operations)]
    if not any(len(item) == 1 and _size(item[0]) >= _FEWEST for item in items):
        return
    groups = _scheduled(items, _followers(program, items))
    if not any(isinstance(group, _Group) for group in groups):
        return
    last = {base: at for at, group in enumerate(groups) for base in _bases(program, group)}
    first = {base: at for at, group in reversed(list(enumerate(groups))) for base in _bases(program, group)}
    program.operations = []
    for at, group in enumerate(groups):
        if isinstance(group, _Group):
            own = {base for base in _bases(program, group) if first[base] == last[base] == at}
            group.write(program, {base for base in own if program.loss is None or base != program.loss.base})
        else:
            program.operations.extend(group)


@dataclass(frozen=True)
class _Rows:
    """How an operation's tensor lies in rows: entries of row r lie from ``(first + r) * step`` on, over less than `step`."""

    base: Base
    first: int
    step: int
    itemsize: int
    written: bool


class _Group:
    """Operations over the same rows, gathered from the last one to the first.

    Attributes:
        num_rows: None while any number will do, that is, while all are over one dimension of the same length.
    """

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.num_rows: int | None = None
        self._rows: list[list[_Rows]] = []

    def add(self, operation: Operation) -> bool:
        """Whether it can come in front of the others, and if so, it does."""
        num_rows = _num_rows(operation) if self.num_rows is None else self.num_rows
        together = [operation, *self.operations]
        if num_rows is None and len({_size(each) for each in together}) > 1:
            num_rows = min(_size(each) for each in together)
        if len(together) > _MOST:
            return False
        if num_rows == self.num_rows and self.operations:
            new = _rows_of(operation, num_rows or _size(operation))
            rows = None if new is None else [new, *self._rows]
        else:
            each = [_rows_of(one, num_rows or _size(one)) for one in together]
            rows = None if any(one is None for one in each) else [one for one in each if one is not None]
        if rows is None or not _compatible(rows):
            return False
        self.operations, self.num_rows, self._rows = together, num_rows, rows
        return True

    def worthwhile(self) -> bool:
        """Whether there is something to hand on, and enough of it."""
        return len(self.operations) > 1 and max(map(_size, self.operations)) >= _FEWEST

    def write(self, program: Program, own: set[Base]) -> None:
        """Append the loop; of the buffers in `own`, which nobody else looks at, it needs a block each."""
        num_rows = self.num_rows or _size(self.operations[0])
        width = max(_size(operation) for operation in self.operations) // num_rows
        most = max(1, _NUMBERS // width)
        written = {row.base: row for rows in self._rows for row in rows if row.written and row.first == 0}
        shared = {base for base in own & written.keys() if base.kind == "buffer"}
        for base in shared:
            program.buffers[base.index] = min(most, num_rows) * written[base].step * written[base].itemsize
        program.operations.append(
            Operation("blocks", None, (), (), (), extra=(len(self.operations), num_rows, min(most, num_rows)))
        )
        for operation in self.operations:
            values = [value for value in (operation.out, *operation.operands) if value is not None]
            steps = _row_strides(operation, num_rows)
            advances = [
                0 if value.base in shared else step * value.dtype.itemsize
                for value, step in zip(values, steps, strict=True)
            ]
            dim = _row_dim(operation)
            block = Block(dim, operation.size[dim] // num_rows, tuple(advances))
            program.operations.append(replace(operation, block=block))


def _size(operation: Operation) -> int:
    """Numbers that a joinable operation goes over."""
    size = 1
    for n in operation.size:
        size *= n
    return size if operation.row_dim is not None else 0


def _row_dim(operation: Operation) -> int:
    """The dimension of its loop that counts rows."""
    dim = operation.row_dim
    assert dim is not None
    return dim


def _num_rows(operation: Operation) -> int | None:
    """None where any divisor of its size will do."""
    return None if len(operation.size) == 1 else operation.size[_row_dim(operation)]


def _row_strides(operation: Operation, num_rows: int) -> list[int]:
    """From one row to the next, of the output and each operand."""
    dim = _row_dim(operation)
    return [stride[dim] * (operation.size[dim] // num_rows) for stride in operation.strides]


def _rows_of(operation: Operation, num_rows: int) -> list[_Rows] | None:
    """How its tensors lie in rows; None where they do not."""
    dim = _row_dim(operation)
    width, rest = divmod(operation.size[dim], num_rows)
    if rest or operation.out is None or _size(operation) > num_rows * _LONGEST_ROW:
        return None
    rows = []
    values: Sequence[Value] = (operation.out, *operation.operands)
    for position, (value, stride) in enumerate(zip(values, operation.strides, strict=True)):
        others = [(n, s) for d, (n, s) in enumerate(zip(operation.size, stride, strict=True)) if d != dim]
        extent = (width - 1) * stride[dim] + sum((n - 1) * s for n, s in others)
        step = stride[dim] * width
        if step < 0 or any(s < 0 for _, s in others) or (position == 0 and step == 0):
            return None
        if value.base.kind == "constant" and step == 0:
            continue
        first, within = divmod(value.offset, step) if step else (0, 0)
        if step and within + extent >= step:
            step = 0  # rows that overlap: nobody may write to them
        if position == 0 and step == 0:
            return None
        rows.append(_Rows(value.base, first, step, value.dtype.itemsize, position == 0))
    return rows


def _compatible(rows: Sequence[Sequence[_Rows]]) -> bool:
    """Whether all that is written lies in the same rows for all that read or write it."""
    written = {row.base: row for own in rows for row in own if row.written}
    for own in rows:
        for row in own:
            writer = written.get(row.base)
            if writer is not None and (row.first, row.step, row.itemsize) != (
                writer.first,
                writer.step,
                writer.itemsize,
            ):
                return False
    return True


def _bases(program: Program, group: _Group | list[Operation]) -> set[Base]:
    operations = group.operations if isinstance(group, _Group) else group
    return {base for operation in operations for bases in accesses(program, operation).bases() for base in bases}


def _followers(program: Program, items: Sequence[Sequence[Operation]]) -> list[set[int]]:
    """For each item, those that have to come after it."""
    followers: list[set[int]] = [set() for _ in items]
    writer: dict[Base, int] = {}
    readers: dict[Base, list[int]] = {}
    call: int | None = None  # torch's library may draw random numbers: its calls stay in order
    for number, item in enumerate(items):
        read: set[Base] = set()
        written: set[Base] = set()
        for operation in item:
            both = accesses(program, operation).bases()
            read |= both[0]
            written |= both[1]
        before = {writer[base] for base in read | written if base in writer}
        before |= {reader for base in written for reader in readers.get(base, ())}
        if any(operation.kernel == "library" for operation in item):
            before |= set() if call is None else {call}
            call = number
        for other in before - {number}:
            followers[other].add(number)
        for base in written:
            writer[base] = number
            readers[base] = []
        for base in read:
            readers.setdefault(base, []).append(number)
    return followers


def _scheduled(items: Sequence[list[Operation]], followers: Sequence[set[int]]) -> list[_Group | list[Operation]]:
    """The items in an order that joins many, from the last one to the first."""
    waiting = [len(after) for after in followers]
    before: list[list[int]] = [[] for _ in items]
    for number, after in enumerate(followers):
        for other in after:
            before[other].append(number)
    free = {number for number, count in enumerate(waiting) if count == 0}
    ordered: list[_Group | list[Operation]] = []

    def release(number: int) -> None:
        free.discard(number)
        for other in before[number]:
            waiting[other] -= 1
            if waiting[other] == 0:
                free.add(other)

    while free:
        number = max(free)
        release(number)
        group = _Group()
        if len(items[number]) > 1 or _size(items[number][0]) < _FEWEST or not group.add(items[number][0]):
            ordered.append(items[number])
            continue
        joined: int | None = number
        while joined is not None:
            candidates = sorted(
                (each for each in free if len(items[each]) == 1 and _size(items[each][0]) > 1), reverse=True
            )
            joined = next((each for each in candidates if group.add(items[each][0])), None)
            if joined is not None:
                release(joined)
        if group.worthwhile():
            ordered.append(group)
        else:
            ordered.extend([operation] for operation in reversed(group.operations))
    return ordered[::-1]
