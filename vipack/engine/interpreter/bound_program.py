"""A program bound to memory: thousands of steps in one call, from Python."""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vipack.engine.interpreter.instructions import Operation, Program
from vipack.engine.interpreter.layout import Value
from vipack.engine.native.bound_loop import BoundLoop
from vipack.engine.native.bridge import Bridge, NativeError
from vipack.engine.native.cache_entries import read_entry
from vipack.engine.native.operations import Base, LibraryCall, LoopSpec

__all__ = ["InterpretedStep", "kernels_of"]

_ALIGN = 64
_OP = np.dtype(
    [
        ("code", "i8"), ("ndim", "i8"), ("size", "i8", 4), ("out", "u8"), ("in", "u8", 3), ("so", "i8", 4),
        ("si", "i8", (3, 4)), ("scalar", "f8", 2), ("extra", "i8", 4), ("skip", "i8"), ("dim", "i8"), ("width", "i8"),
        ("next", "i8", 4), ("function", "u8"),
    ]
)  # fmt: skip


class _Setting(ctypes.Structure):
    _fields_ = [
        *((n, ctypes.c_int64) for n in ("num_ops", "num_normals", "num_feeds", "num_losses", "loss_double", "stop_at_nan")),
        *((n, ctypes.c_void_p) for n in ("ops", "normals", "normal_sizes", "normal_double", "fed", "fed_bytes", "loss")),
        ("library", ctypes.c_void_p),
        ("table", ctypes.c_void_p),
        ("turn", ctypes.c_int64),
    ]  # fmt: skip


class InterpretedStep(BoundLoop):
    """A program over the tensors that a step works on.

    Args:
        kernels: the compiled interpreter.
        bridge: the compiled bridge to torch's operators.
        inputs: the step's inputs; values, states and buffers among them are updated in place, the others are read.

    Raises:
        NativeError: a file does not load, or torch refuses a call.
    """

    def __init__(self, program: Program, kernels: Path, bridge: Path, spec: LoopSpec, inputs: Sequence[Tensor]) -> None:
        self._inputs = list(inputs)  # their memory must outlive every call
        if any(not value.is_contiguous() and value.numel() for value in inputs):
            raise NativeError("an input is not contiguous")
        library, codes = _load(kernels)
        self._constants = [constant.detach() for constant in program.constants]
        offsets, arena = _buffer_offsets(program)
        self._arena = torch.zeros(arena + _ALIGN, dtype=torch.uint8)
        start = -(-self._arena.data_ptr() // _ALIGN) * _ALIGN
        self._starts = {
            **{Base("input", i): v.data_ptr() for i, v in enumerate(self._inputs)},
            **{Base("constant", i): v.data_ptr() for i, v in enumerate(self._constants)},
            **{Base("buffer", i): start + offset for i, offset in enumerate(offsets)},
        }
        self._ops = np.zeros(len(program.operations), dtype=_OP)
        for entry, operation in zip(self._ops, program.operations, strict=True):
            self._write(entry, operation, codes)
        calls = _Calls(bridge, program.library, self._address) if program.library else None
        assert program.loss is not None
        normals, fed = [self._inputs[i] for i in spec.normals], [self._inputs[i] for i in spec.fed]
        self._kept = [
            self._ops,
            np.array([v.data_ptr() for v in normals], dtype=np.uint64),
            np.array([v.numel() for v in normals], dtype=np.int64),
            np.array([v.dtype == torch.float64 for v in normals], dtype=np.int64),
            np.array([v.data_ptr() for v in fed], dtype=np.uint64),
            np.array([v.nbytes for v in fed], dtype=np.int64),
        ]
        setting = _Setting(
            len(self._ops),
            len(normals),
            len(fed),
            spec.copies or 1,
            int(program.loss.dtype == torch.float64),
            int(spec.copies is None),
            *(a.ctypes.data for a in self._kept),
            self._address(program.loss),
            calls.function if calls else None,
            calls.table if calls else None,
        )
        library.vipack_resolve(ctypes.byref(setting))
        super().__init__(library.vipack_interpret, setting, calls)

    def _address(self, value: Value) -> int:
        return int(self._starts[value.base] + value.offset * value.dtype.itemsize)

    def _write(self, entry: Any, operation: Operation, codes: dict[str, int]) -> None:
        if operation.kernel not in codes:
            raise NativeError(f"there is no kernel {operation.kernel}")
        entry["code"], entry["ndim"] = codes[operation.kernel], max(1, len(operation.size))
        entry["size"] = 1
        entry["size"][: len(operation.size)] = operation.size
        if operation.out is not None:
            entry["out"] = self._address(operation.out)
        for i, operand in enumerate(operation.operands):
            entry["in"][i] = self._address(operand)
        for i, strides in enumerate(operation.strides):
            target = entry["so"] if i == 0 else entry["si"][i - 1]
            target[: len(strides)] = strides
        entry["scalar"][: len(operation.scalars)] = operation.scalars
        entry["extra"][: len(operation.extra)] = operation.extra
        entry["skip"] = 1 + (operation.extra[0] if operation.kernel in ("repeat", "blocks") else 0)
        if operation.block is not None:
            entry["dim"], entry["width"] = operation.block.dim, operation.block.width
            entry["next"][: len(operation.block.advances)] = operation.block.advances


class _Calls(Bridge):
    """A program's library calls."""

    def __init__(self, path: Path, calls: Sequence[LibraryCall], address: Any) -> None:
        super().__init__(path)
        self.function = self.address("vipack_run_into")
        self._address_of = address
        for call in calls:
            self.begin(call.number, call.operator, call.overload)
            self.arguments(call.arguments, call.keywords)
            for item, result in enumerate(call.results):
                if result is not None:  # as of gradients that are not asked for
                    self.into(item, address(result), _name(result.dtype), result.size, result.stride)

    def tensor(self, value: Any) -> None:
        if isinstance(value, Value):
            self.fixed(self._address_of(value), _name(value.dtype), value.size, value.stride)
        elif isinstance(value, torch.device):
            self.value(f"device:{value}")
        elif isinstance(value, torch.dtype | torch.layout | torch.memory_format):
            self.value(str(value))
        else:
            raise NativeError(f"argument {value!r} of a library call")


def kernels_of(path: Path) -> Collection[str]:
    """Names of a compiled interpreter's kernels.

    Raises:
        NativeError: the file does not load.
    """
    return _load(path)[1].keys()


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@cache
def _load(path: Path) -> tuple[Any, dict[str, int]]:
    read_entry(path.parent)
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise NativeError(f"{path.name} does not load: {error}") from error
    library.vipack_kernels.restype = ctypes.c_char_p
    library.vipack_op_bytes.restype = ctypes.c_int64
    library.vipack_interpret.restype = ctypes.c_int64
    library.vipack_interpret.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p]
    if library.vipack_op_bytes() != _OP.itemsize:
        raise NativeError(f"{path.name} was compiled for another layout of operations")
    names = library.vipack_kernels().decode().split()
    return library, {name: code for code, name in enumerate(names)}


def _buffer_offsets(program: Program) -> tuple[list[int], int]:
    """Where each buffer lies in an arena: memory that is no longer read is used again, so that it stays in the cache."""
    last: dict[int, int] = {}
    first: dict[int, int] = {}

    def seen(value: Any, line: int) -> None:
        if isinstance(value, list | tuple):
            for item in value:
                seen(item, line)
        elif isinstance(value, Value) and value.base.kind == "buffer":
            first.setdefault(value.base.index, line)
            last[value.base.index] = line

    for line, operation in enumerate(program.operations):
        seen([operation.out, *operation.operands], line)
        if operation.kernel == "library":
            call = program.library[operation.extra[0]]
            seen([call.arguments, list(call.keywords.values()), call.results], line)
    for line, operation in reversed(list(enumerate(program.operations))):
        if operation.kernel in ("repeat", "blocks"):
            end = line + operation.extra[0]
            for index, read in last.items():
                if first[index] < line < read < end:  # comes from before the loop, and is read again in its next turn
                    last[index] = end
                elif line < first[index] <= end < read:  # is filled turn by turn, and read after the loop
                    first[index] = line
    seen(program.loss, len(program.operations))
    ends: dict[int, list[int]] = {}
    for index, line in last.items():
        ends.setdefault(line, []).append(index)
    begins: dict[int, list[int]] = {}
    for index, line in first.items():
        begins.setdefault(line, []).append(index)
    offsets, arena = [0] * len(program.buffers), 0
    free: dict[int, list[int]] = {}
    for line in range(len(program.operations) + 1):
        for index in begins.get(line, ()):
            size = -(-program.buffers[index] // _ALIGN) * _ALIGN
            if free.get(size):
                offsets[index] = free[size].pop()
            else:
                offsets[index] = arena
                arena += size
        for index in ends.get(line, ()):
            free.setdefault(-(-program.buffers[index] // _ALIGN) * _ALIGN, []).append(offsets[index])
    return offsets, arena
