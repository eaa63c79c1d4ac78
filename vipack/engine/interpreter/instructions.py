"""The program that the interpreter runs: operations in order, with their operands as values."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from vipack.compat.pytorch import overload_of, schema_of
from vipack.engine.interpreter.layout import NotUnderstood, Value, contiguous
from vipack.engine.native.operations import Base, LibraryCall

__all__ = ["Block", "Operation", "Program", "Writer"]


@dataclass(frozen=True)
class Block:
    """How an operation runs in a loop over blocks of rows.

    Attributes:
        dim: which of its sizes counts rows.
        width: entries of that dimension in a row.
        advances: bytes from one row to the next, of the output and each operand.
    """

    dim: int
    width: int
    advances: tuple[int, ...]


@dataclass(frozen=True)
class Operation:
    """One line of a program; what the fields mean to each kernel is said in kernels/.

    Attributes:
        strides: of the output and each operand.
        row_dim: a dimension of its loop along which it works on each entry alone; None where there is none.
        block: where it stands in a loop over blocks of rows.
    """

    kernel: str
    out: Value | None
    operands: tuple[Value, ...]
    size: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    scalars: tuple[float, ...] = ()
    extra: tuple[int, ...] = ()
    row_dim: int | None = None
    block: Block | None = None


@dataclass
class Program:
    """Operations in order.

    Attributes:
        buffers: bytes of each buffer.
        constants: tensors that do not change.
        loss: what a step returns.
    """

    operations: list[Operation] = field(default_factory=list)
    library: list[LibraryCall] = field(default_factory=list)
    buffers: list[int] = field(default_factory=list)
    constants: list[Tensor] = field(default_factory=list)
    loss: Value | None = None


class Writer:
    """Writes a program, value by value.

    Attributes:
        values: of every node so far; a tuple for operators with several results.
        folded: what nodes are that depend on no input.
        substitutes: what nodes are while one operator is written.
        unfailing: error codes of kernels that give NaN instead.
        inline: writes a graph on given values and returns its results.
        kernels: names of those that there are.
    """

    def __init__(
        self, inline: Callable[[Writer, fx.GraphModule, Sequence[Value]], list[Value]], kernels: Collection[str]
    ) -> None:
        self.inline = functools.partial(inline, self)
        self.kernels = kernels
        self.program = Program()
        self.values: dict[fx.Node, Any] = {}
        self.folded: dict[fx.Node, Any] = {}
        self.substitutes: dict[fx.Node, Value] = {}
        self.unfailing: set[Value] = set()
        self._numbers: dict[tuple[float | int | bool, torch.dtype], Value] = {}
        self._constants: dict[int, Value] = {}

    def value(self, argument: Any) -> Value:
        """What an argument stands for.

        Raises:
            NotUnderstood: it is no tensor.
        """
        if isinstance(argument, fx.Node):
            known = next(k for k in (self.substitutes, self.folded, self.values) if k is self.values or argument in k)
            value: Any = known[argument]
            if isinstance(value, Tensor):
                return self.constant(value)
            if isinstance(value, Value):
                return value
        raise NotUnderstood(f"argument {argument!r}")

    def constant(self, tensor: Tensor) -> Value:
        """A tensor that does not change."""
        known = self._constants.get(id(tensor))
        if known is None:
            self.program.constants.append(tensor)
            base = Base("constant", len(self.program.constants) - 1)
            known = Value(base, tensor.dtype, tuple(tensor.shape), tuple(tensor.stride()))
            self._constants[id(tensor)] = known
        return known

    def number(self, number: float | int | bool, dtype: torch.dtype) -> Value:
        """A number as a tensor without dimensions."""
        key = (number, dtype)
        if key not in self._numbers or isinstance(number, float):
            self._numbers[key] = self.constant(torch.tensor(number, dtype=dtype))
        return self._numbers[key]

    def new(self, size: Sequence[int], dtype: torch.dtype, stride: Sequence[int] | None = None) -> Value:
        """Memory for a tensor; `stride` is that of a dense layout."""
        extent = 1
        stride = contiguous(size) if stride is None or 0 in stride else tuple(stride)
        for n, s in zip(size, stride, strict=True):
            extent += (n - 1) * s if n else 0
        self.program.buffers.append(max(extent, 1) * dtype.itemsize)
        return Value(Base("buffer", len(self.program.buffers) - 1), dtype, tuple(size), tuple(stride))

    def like(self, node: fx.Node) -> Value:
        """Memory for a node's result."""
        example = node.meta["val"]
        return self.new(example.shape, example.dtype, example.stride())

    def add(
        self,
        kernel: str,
        out: Value | None,
        operands: Sequence[Value],
        size: Sequence[int],
        strides: Sequence[Sequence[int]],
        scalars: Sequence[float] = (),
        extra: Sequence[int] = (),
        row_dim: int | None = None,
    ) -> None:
        """Append an operation."""
        steps = tuple(tuple(s) for s in strides)
        self.program.operations.append(
            Operation(kernel, out, tuple(operands), tuple(size), steps, tuple(scalars), tuple(extra), row_dim)
        )

    def call(self, node: fx.Node, resolve: Callable[[Any], Any], results: tuple[Value | None, ...]) -> None:
        """Append a call of torch's own operator."""
        target: Any = node.target
        name, _, overload = str(schema_of(target).name), "", overload_of(target)
        self.program.library.append(
            LibraryCall(
                name,
                "" if overload == "default" else overload,
                tuple(resolve(a) for a in node.args),
                {k: resolve(v) for k, v in node.kwargs.items()},
                len(self.program.library),
                results,
            )
        )
        self.add("library", None, (), (), (), extra=(len(self.program.library) - 1,))
