"""A plan as C++: one function that takes thousands of steps over memory allocated once."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from vipack.engine.inductor.gamma_functions import at_once
from vipack.engine.inductor.plan import Kernel, KernelCall, Plan, PlanError, View
from vipack.engine.inductor.small_matrices import write_out
from vipack.engine.inductor.subnormal import flushed, updates_much
from vipack.engine.native.cpp_source import read_source
from vipack.engine.native.dtypes import BYTES_IN_C, CTYPES, ITEM_SIZES
from vipack.engine.native.operations import Base, LibraryCall, LoopSpec

__all__ = ["emit"]

_ALIGN = 64
_FEW = 16  # normals; from so many on torch draws them in blocks
_HEADERS = (
    "vipack/engine/native/loop.h",
    "vipack/engine/inductor/small_matrices.h",
    "vipack/engine/inductor/subnormal.h",
    "vipack/engine/inductor/gamma_functions.h",
)
_LOOP = """
extern "C" int64_t vipack_run(Context* c, int64_t n, [[maybe_unused]] const char* const* feeds, double* losses) {{
  [[maybe_unused]] char* const arena = c->arena;
  [[maybe_unused]] void** const in = c->in;
  const auto step = [&]([[maybe_unused]] int64_t k) {{
    {body}
    return true;
  }};
  const auto loss = [&] {{ return {loss}; }};
  return take_steps<{fits}, {several}>(n, losses, {draws}, step, loss);
}}
"""


@dataclass(frozen=True)
class Driver:
    """Generated source and what its caller must provide.

    Attributes:
        arena: bytes of scratch memory.
        offsets: where each buffer of the plan lies in it.
        library: the calls left to the library, in the order of their numbers in the source.
        results: how many result pointers it reads.
    """

    source: str
    arena: int
    offsets: tuple[int, ...]
    library: tuple[LibraryCall, ...]
    results: tuple[tuple[int, int], ...]


def emit(plan: Plan, spec: LoopSpec) -> Driver:
    """C++ source of the loop.

    Raises:
        PlanError: the plan asks for something that is not understood.
    """
    writer = _Writer(plan)
    updating = updates_much(plan)
    feeds = [_feed(plan.inputs[i], i, number) for number, i in enumerate(spec.fed)]
    body = [*feeds, *(writer.call(call) for call in plan.calls)]
    loss = plan.outputs[0]
    source = "\n".join(
        [
            *_includes(plan.kernels),
            read_source(*_HEADERS),
            *(_kernel(i, kernel, flush=i in updating) for i, kernel in enumerate(plan.kernels)),
            _LOOP.format(
                draws=_drawing(plan, spec, alone=not writer.library),  # operators of the library may draw, too
                body="\n    ".join(body),
                loss=writer.pointer(loss, _ctype(loss.dtype)),
                fits=spec.copies or 1,
                several=str(spec.copies is not None).lower(),
            ),
        ]
    )
    return Driver(source, writer.arena, tuple(writer.offsets), tuple(writer.library), tuple(writer.results))


class _Writer:
    """Writes calls, and lays buffers out in one arena."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.offsets: list[int] = []
        self.arena = 0
        for size in plan.buffers:
            self._reserve(size)
        self.library: list[LibraryCall] = []
        self.results: list[tuple[int, int]] = []
        self._written: dict[tuple[int, int], View] = {}  # result of a library call written out -> where it is

    def call(self, call: KernelCall | LibraryCall) -> str:
        """One statement of the loop's body."""
        if isinstance(call, KernelCall):
            types = self._plan.kernels[call.kernel].argument_types
            arguments = [
                self.pointer(a, t.removesuffix("*").strip()) if isinstance(a, View) else str(a)
                for a, t in zip(call.arguments, types, strict=True)
            ]
            return f"k{call.kernel}::kernel({', '.join(arguments)});"
        call = self._resolved(call)
        written = write_out(call, self)
        if written:
            return written
        self.library.append(call)
        return f"if (c->library(c->table, {len(self.library) - 1})) return false;"

    def _reserve(self, size: int) -> Base:
        """A new buffer of `size` bytes."""
        self.offsets.append(self.arena)
        self.arena += -(-max(size, 1) // _ALIGN) * _ALIGN
        return Base("buffer", len(self.offsets) - 1)

    def _resolved(self, call: LibraryCall) -> LibraryCall:
        """`call` with views of results that were written out here as views of their buffers."""

        def resolve(value: Any) -> Any:
            if isinstance(value, list | tuple):
                return [resolve(item) for item in value]
            return self._moved(value) if isinstance(value, View) else value

        keywords = {name: resolve(value) for name, value in call.keywords.items()}
        return replace(call, arguments=tuple(resolve(a) for a in call.arguments), keywords=keywords)

    def _moved(self, view: View) -> View:
        """A view of a result that was written out, as a view of its buffer."""
        whole = self._written.get((view.base.index, view.base.item)) if view.base.kind == "result" else None
        if whole is None:
            return view
        size, stride = (whole.size, whole.stride) if view.size is None else (view.size, view.stride)
        return View(whole.base, whole.dtype, size, stride, view.offset)

    def layout(self, call: LibraryCall, item: int = 0) -> View | None:
        return next((v for v in self._plan.layouts if (v.base.index, v.base.item) == (call.number, item)), None)

    def result(self, call: LibraryCall, dtype: str, item: int = 0) -> View:
        layout = self.layout(call, item)
        size, stride = ((), ()) if layout is None else (layout.size or (), layout.stride or ())
        extent = 1 + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        view = View(self._reserve(max(1, extent) * ITEM_SIZES[dtype]), dtype, size, stride)
        self._written[call.number, item] = view
        return view

    def pointer(self, view: View, ctype: str) -> str:
        """The address of a view's first element."""
        view = self._moved(view)
        base, plain = view.base, ctype.removeprefix("const ").strip()
        size = ITEM_SIZES[view.dtype] if view.dtype in ITEM_SIZES else BYTES_IN_C[plain]
        offset = view.offset * size
        if base.kind == "input":
            start = f"static_cast<char*>(in[{base.index}])"
        elif base.kind == "buffer":
            start, offset = "arena", offset + self.offsets[base.index]
        else:
            key = (base.index, base.item)
            if key not in self.results:
                self.results.append(key)
            start = f"static_cast<char*>(c->results[{self.results.index(key)}])"
        return f"reinterpret_cast<{ctype}*>({start} + {offset})"


def _drawing(plan: Plan, spec: LoopSpec, *, alone: bool) -> str:
    """What draws a step's normals; `alone` where nothing else in a step draws."""
    draws = _draws([(i, plan.inputs[i]) for i in spec.normals])
    if not draws:
        return "[] {}"
    number = sum(math.prod(plan.inputs[i].size or ()) for i in spec.normals)
    return f"drawn_by<{number}, {str(alone).lower()}>(n, [&](auto&& source) {{ {' '.join(draws)} }})"


def _draws(views: Sequence[tuple[int, View]]) -> list[str]:
    """Statements that fill inputs with normals; small ones in a row are drawn together."""
    statements: list[str] = []
    for small, run in itertools.groupby(views, key=lambda item: math.prod(item[1].size or ()) < _FEW):
        targets = [(f"static_cast<{_ctype(v.dtype)}*>(in[{i}])", math.prod(v.size or ())) for i, v in run]
        if not small:
            statements += [f"normals({pointer}, {size}, source);" for pointer, size in targets]
            continue
        starts = [0, *itertools.accumulate(size for _, size in targets)]
        if starts[-1]:
            puts = [
                f"put(drawn + {at}, {pointer}, {size});" for at, (pointer, size) in zip(starts, targets, strict=False)
            ]
            statements.append(f"{{ double drawn[{starts[-1]}]; few<{starts[-1]}>(drawn, source); {' '.join(puts)} }}")
    return statements


def _feed(view: View, index: int, number: int) -> str:
    size = math.prod(view.size or ()) * ITEM_SIZES[view.dtype]
    return f"std::memcpy(in[{index}], feeds[{number}] + k * {size}, {size});"


def _includes(kernels: Sequence[Kernel]) -> list[str]:
    lines = itertools.chain.from_iterable(re.findall(r"^#include .*$", k.source, re.MULTILINE) for k in kernels)
    return sorted({line.strip() for line in lines} | {"#include <torch/csrc/inductor/cpp_prefix.h>"})


def _kernel(index: int, kernel: Kernel, *, flush: bool) -> str:
    source = re.sub(r"^#include .*$", "", kernel.source, flags=re.MULTILINE)
    source, count = re.subn(r'extern "C"\s+void\s+kernel\s*\(', "static void kernel(", source)
    if count != 1:
        raise PlanError(f"kernel {kernel.name} does not define one function")
    source = at_once(source)
    return f"namespace k{index} {{\n{flushed(source) if flush else source}\n}}"


def _ctype(dtype: str) -> str:
    if dtype not in CTYPES:
        raise PlanError(f"a value of type {dtype}")
    return CTYPES[dtype]
