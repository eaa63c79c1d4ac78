"""Inductor's generated program read into a plan: buffers, kernels and library calls in their order.

The generated ``call`` function holds only a few kinds of statements: allocate a buffer, view or reuse one, call a fused
kernel, call an operator of a library, return. Whatever else turns up raises :class:`PlanError`, and the step is then
called in an ordinary way instead of from C++.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from vipack.engine.native.dtypes import ITEM_SIZES
from vipack.engine.native.operations import Base, LibraryCall

__all__ = ["Kernel", "KernelCall", "Plan", "PlanError", "View", "read_plan"]

_NAMESPACES = ("aten", "vipack")  # of operators that are called through torch's dispatcher
_LIKE_THE_LAST = (
    "vipack::all_reduce",
    "vipack::own_weight",
)  # operators whose result is of the type of their last argument


class PlanError(Exception):
    """The generated program has a statement that is not understood; the message quotes it."""


@dataclass(frozen=True)
class View:
    """A tensor as size, stride and offset (in elements) over a base; None where a library call decides them."""

    base: Base
    dtype: str
    size: tuple[int, ...] | None = None
    stride: tuple[int, ...] | None = None
    offset: int = 0


@dataclass(frozen=True)
class Kernel:
    """A fused kernel: C++ source that defines one function, and the types of its arguments."""

    name: str
    argument_types: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class KernelCall:
    """A call of ``kernels[kernel]``."""

    kernel: int
    arguments: tuple[View | int, ...]


@dataclass(frozen=True)
class Plan:
    """A step as memory and calls.

    Attributes:
        buffers: bytes of each buffer.
        outputs: what the program returns, the loss first.
        layouts: of results of library calls, as kernels were written for.
    """

    kernels: tuple[Kernel, ...]
    calls: tuple[KernelCall | LibraryCall, ...]
    buffers: tuple[int, ...]
    inputs: tuple[View, ...]
    outputs: tuple[View, ...]
    layouts: tuple[View, ...] = ()


def read_plan(code: str, inputs: Sequence[tuple[str, Sequence[int], Sequence[int]]]) -> Plan:
    """The plan of a generated program.

    Args:
        inputs: dtype name, size and stride of each of the step's inputs.

    Raises:
        PlanError: a statement is not understood.
    """
    tree = ast.parse(code)
    kernels: dict[str, int] = {}
    sources: list[Kernel] = []
    body = None
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and _is_kernel(node.value):
            assert isinstance(node.value, ast.Call)
            name = _name(node.targets[0])
            kernels[name] = len(sources)
            types, source = (ast.literal_eval(argument) for argument in node.value.args[:2])
            sources.append(Kernel(name, tuple(types), source))
        elif isinstance(node, ast.FunctionDef) and node.name == "call":
            body = node.body
    if body is None:
        raise PlanError("no call() in the generated program")
    views = tuple(View(Base("input", i), dtype, tuple(n), tuple(s)) for i, (dtype, n, s) in enumerate(inputs))
    reader = _Reader(kernels, views)
    for statement in body:
        reader.statement(statement)
    if reader.outputs is None:
        raise PlanError("call() returns nothing")
    return Plan(
        tuple(sources), tuple(reader.calls), tuple(reader.buffers), views, reader.outputs, tuple(reader.layouts)
    )


class _Reader:
    """Runs through the statements of ``call`` with names bound to views."""

    def __init__(self, kernels: dict[str, int], inputs: tuple[View, ...]) -> None:
        self.kernels = kernels
        self.inputs = inputs
        self.names: dict[str, Any] = {}
        self.buffers: list[int] = []
        self.calls: list[KernelCall | LibraryCall] = []
        self.outputs: tuple[View, ...] | None = None
        self.layouts: list[View] = []
        self._num_results = 0

    def statement(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Delete | ast.Pass):
            return
        if isinstance(node, ast.Return):
            self.outputs = tuple(self._view(item) for item in _items(node.value))
        elif isinstance(node, ast.Assign) and len(node.targets) == 1:
            self._assign(node.targets[0], node.value)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            self._call_statement(node.value)
        else:
            raise PlanError(f"statement not understood: {ast.unparse(node)}")

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(value, ast.Name) and value.id == "args":
            names = [_name(item) for item in _items(target)]
            if len(names) != len(self.inputs):
                raise PlanError(f"{len(names)} inputs where {len(self.inputs)} were given")
            self.names.update(zip(names, self.inputs, strict=True))
            return
        name = _name(target)
        if isinstance(value, ast.Call):
            function = ast.unparse(value.func)
            if function in ("empty_strided_cpu", "empty_strided"):
                self.names[name] = self._allocate(value)
            elif function == "reinterpret_tensor":
                self.names[name] = self._view(value)
            else:
                self.names[name] = self._library(value)
        else:
            self.names[name] = self._value(value)

    def _allocate(self, call: ast.Call) -> View:
        size, stride = (tuple(ast.literal_eval(argument)) for argument in call.args[:2])
        dtype = ast.unparse(call.args[2]).removeprefix("torch.")
        if dtype not in ITEM_SIZES:
            raise PlanError(f"buffer of type {dtype}")
        extent = 1 + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if math.prod(size) else 0
        self.buffers.append(extent * ITEM_SIZES[dtype])
        return View(Base("buffer", len(self.buffers) - 1), dtype, size, stride)

    def _call_statement(self, call: ast.Call) -> None:
        function = ast.unparse(call.func)
        if function == "args.clear" or function.startswith(("assert_alignment", "del ")):
            return
        if function == "assert_size_stride":
            self._note_layout(call)
        elif function in self.kernels:
            arguments = tuple(self._kernel_argument(argument) for argument in call.args)
            self.calls.append(KernelCall(self.kernels[function], arguments))
        else:
            self._library(call)

    def _note_layout(self, call: ast.Call) -> None:
        """A library call's result is asserted to have the layout that kernels were written for."""
        name = _name(call.args[0])
        view = self.names.get(name)
        if isinstance(view, View) and view.base.kind == "result" and view.size is None:
            size, stride = (tuple(ast.literal_eval(argument)) for argument in call.args[1:3])
            self.names[name] = replace(view, size=size, stride=stride)
            self.layouts.append(self.names[name])

    def _library(self, call: ast.Call) -> Any:
        function, namespace = ast.unparse(call.func), "aten"
        keywords = {str(k.arg): self._value(k.value) for k in call.keywords}
        arguments = [self._value(argument) for argument in call.args]
        if function.startswith("extern_kernels."):
            operator, overload = function.removeprefix("extern_kernels."), "out" if "out" in keywords else ""
        elif function.startswith(("torch.ops.", "aten.")):
            names = function.removeprefix("torch.ops.").split(".")
            if names[0] in _NAMESPACES and len(names) in (2, 3):
                namespace, operator, overload = names[0], names[1], names[2] if len(names) == 3 else ""
            else:
                raise PlanError(f"call not understood: {ast.unparse(call)}")
        else:
            raise PlanError(f"call not understood: {ast.unparse(call)}")
        number = self._num_results
        self._num_results += 1
        overload = "" if overload == "default" else overload
        self.calls.append(LibraryCall(f"{namespace}::{operator}", overload, tuple(arguments), keywords, number))
        known = arguments[-1].dtype if f"{namespace}::{operator}" in _LIKE_THE_LAST else "unknown"
        return View(Base("result", number), known)

    def _kernel_argument(self, node: ast.expr) -> View | int:
        value = self._value(node)
        if isinstance(value, View) or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        raise PlanError(f"kernel argument not understood: {ast.unparse(node)}")

    def _view(self, node: ast.expr) -> View:
        value = self._value(node)
        if not isinstance(value, View):
            raise PlanError(f"expected a tensor, found {ast.unparse(node)}")
        return value

    def _value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Name):
            if node.id not in self.names:
                raise PlanError(f"name not understood: {node.id}")
            return self.names[node.id]
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "reinterpret_tensor":
            base = self._view(node.args[0])
            size, stride, offset = (ast.literal_eval(argument) for argument in node.args[1:4])
            return replace(base, size=tuple(size), stride=tuple(stride), offset=base.offset + offset)
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            whole = self._view(node.value)
            if whole.base.kind != "result" or whole.size is not None:
                raise PlanError(f"expression not understood: {ast.unparse(node)}")
            return replace(whole, base=replace(whole.base, item=int(str(node.slice.value))))
        if isinstance(node, ast.List | ast.Tuple):
            return [self._value(item) for item in node.elts]
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("torch."):
            return ast.unparse(node)
        if isinstance(node, ast.Call) and ast.unparse(node) == "device(type='cpu')":
            return "device:cpu"
        try:
            return ast.literal_eval(node)
        except ValueError as error:
            raise PlanError(f"expression not understood: {ast.unparse(node)}") from error


def _is_kernel(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "async_compile.cpp_pybinding"


def _items(node: ast.expr | None) -> list[ast.expr]:
    if isinstance(node, ast.Tuple | ast.List):
        return list(node.elts)
    return [] if node is None else [node]


def _name(node: ast.expr) -> str:
    if not isinstance(node, ast.Name):
        raise PlanError(f"expected a name, found {ast.unparse(node)}")
    return node.id
