"""A plan as C++: one function that takes thousands of steps over memory allocated once."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from vipack.engine.normals import NORMALS
from vipack.engine.plan import ITEM_SIZES, Base, Kernel, KernelCall, LibraryCall, Plan, PlanError, View

__all__ = ["DriverSpec", "emit"]

_SMALL = 8192  # multiplications up to which a product is written out here; a library call costs about a microsecond
_ALIGN = 64


@dataclass(frozen=True)
class DriverSpec:
    """What the loop does around the plan.

    Attributes:
        normals: positions of the inputs that the loop fills with standard normals, in the order of the draws.
        fed: positions of the inputs that get new contents for every step from the caller's arrays.
        copies: R, for R fits side by side, whose losses a step returns as a vector; None for one.
    """

    normals: tuple[int, ...]
    fed: tuple[int, ...]
    copies: int | None = None


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


def emit(plan: Plan, spec: DriverSpec) -> Driver:
    """C++ source of the loop.

    Raises:
        PlanError: the plan asks for something that is not understood.
    """
    writer = _Writer(plan)
    body = [writer.call(call) for call in plan.calls]
    loss = plan.outputs[0]
    draws = [_draw(plan.inputs[i], i) for i in spec.normals]
    feeds = [_feed(plan.inputs[i], i, number) for number, i in enumerate(spec.fed)]
    lines = [
        *_includes(plan.kernels),
        NORMALS,
        _PRELUDE,
        *(_kernel(i, kernel) for i, kernel in enumerate(plan.kernels)),
        _HEAD,
        *(f"    {line}" for line in feeds),
        *([_LOCK.format(draws="\n      ".join(draws))] if draws else []),
        *(f"    {line}" for line in body),
        f"    const auto* const loss = {writer.pointer(loss, _ctype(loss.dtype))};",
        _TAIL if spec.copies is None else _TAIL_OF_COPIES.replace("COPIES", str(spec.copies)),
    ]
    return Driver("\n".join(lines), writer.arena, tuple(writer.offsets), tuple(writer.library), tuple(writer.results))


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
        self._inlined: dict[int, View] = {}  # number of a library call written out here -> where its result is

    def call(self, call: KernelCall | LibraryCall) -> str:
        """One statement of the loop's body."""
        if isinstance(call, KernelCall):
            types = self._plan.kernels[call.kernel].argument_types
            arguments = [
                self.pointer(a, t.removesuffix("*").strip()) if isinstance(a, View) else str(a)
                for a, t in zip(call.arguments, types, strict=True)
            ]
            return f"k{call.kernel}::kernel({', '.join(arguments)});"
        written = self._product(call) or self._solve(call)
        if written:
            return written
        self.library.append(self._resolved(call))
        return f"if (c->library(c->table, {len(self.library) - 1})) return -(k + 1);"

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
            if isinstance(value, View) and value.base.kind == "result" and value.base.index in self._inlined:
                whole = self._inlined[value.base.index]
                size, stride = (whole.size, whole.stride) if value.size is None else (value.size, value.stride)
                return View(whole.base, whole.dtype, size, stride, value.offset)
            return value

        keywords = {name: resolve(value) for name, value in call.keywords.items()}
        return replace(call, arguments=tuple(resolve(a) for a in call.arguments), keywords=keywords)

    def pointer(self, view: View, ctype: str) -> str:
        """The address of a view's first element."""
        base, plain = view.base, ctype.removeprefix("const ").strip()
        size = ITEM_SIZES[view.dtype] if view.dtype in ITEM_SIZES else _CTYPE_SIZES[plain]
        offset = view.offset * size
        if base.kind == "input":
            place = f"static_cast<char*>(in[{base.index}])"
        elif base.kind == "buffer":
            place, offset = "arena", offset + self.offsets[base.index]
        elif base.index in self._inlined:
            place, offset = "arena", offset + self.offsets[self._inlined[base.index].base.index]
        else:
            key = (base.index, base.item)
            if key not in self.results:
                self.results.append(key)
            place = f"static_cast<char*>(c->results[{self.results.index(key)}])"
        return f"reinterpret_cast<{ctype}*>({place} + {offset})"

    def _product(self, call: LibraryCall) -> str | None:
        """Small matrix products, written out."""
        if call.operator not in ("aten::mm", "aten::bmm", "aten::addmm") or call.overload != "out":
            return None
        *added, a, b = call.arguments
        out = call.keywords["out"]
        views = [*added, a, b, out]
        if not all(isinstance(v, View) and v.size is not None and v.dtype == out.dtype for v in views):
            return None
        if out.dtype not in ("float32", "float64"):
            return None
        batch = a.size[0] if len(a.size) == 3 else 1
        m, k = a.size[-2:]
        n = b.size[-1]
        if batch * m * n * k > _SMALL:
            return None
        alpha = float(call.keywords.get("alpha", 1))
        plus = _broadcast(added[0], out) if added else replace(out, stride=(0, 0, 0))
        beta = float(call.keywords.get("beta", 1)) if added else 0.0
        shape = ", ".join(map(str, [batch, m, n, k, *_strides(a), *_strides(b), *_strides(out), *_strides(plus)]))
        operands = ", ".join(self.pointer(v, _ctype(out.dtype)) for v in (a, b, out, plus))
        return f"product<{_ctype(out.dtype)}, {shape}>({operands}, {beta!r}, {alpha!r});"

    def _solve(self, call: LibraryCall) -> str | None:
        """Small triangular systems, written out."""
        if call.operator != "aten::linalg_solve_triangular" or call.overload or len(call.arguments) != 2:
            return None
        a, b = call.arguments
        options = call.keywords
        known = isinstance(a, View) and isinstance(b, View) and a.size is not None and b.size is not None
        if not known or options.get("unitriangular", False) or not options.get("left", True):
            return None
        if a.dtype != b.dtype or a.dtype not in ("float32", "float64") or a.size[:-2] != b.size[:-2]:
            return None
        batch, n, width = math.prod(a.size[:-2]), a.size[-1], b.size[-1]
        if batch * n * n * width > _SMALL:
            return None
        layout = next((v for v in self._plan.layouts if v.base.index == call.number), None)
        if layout is None or layout.stride is None or layout.size != b.size:
            return None  # what layout the kernels around were written for is not known
        flat = [_one_batch(v) for v in (a, b, layout)]
        if any(view is None for view in flat):
            return None
        out = View(self._reserve(batch * n * width * ITEM_SIZES[a.dtype]), a.dtype, layout.size, layout.stride)
        self._inlined[call.number] = out
        strides = [s for view in flat if view is not None for s in _strides(view)]
        shape = ", ".join([str(batch), str(n), str(width), str(bool(options["upper"])).lower(), *map(str, strides)])
        operands = ", ".join(self.pointer(v, _ctype(a.dtype)) for v in (a, b, out))
        return f"solve<{_ctype(a.dtype)}, {shape}>({operands});"


def _one_batch(view: View) -> View | None:
    """A stack of stacks of matrices as one stack, where its strides allow that."""
    assert view.size is not None
    assert view.stride is not None
    lead = [(n, s) for n, s in zip(view.size[:-2], view.stride[:-2], strict=True) if n != 1]
    while len(lead) > 1:
        (outer, far), (inner, near) = lead[-2:]
        if far != inner * near:
            return None
        lead[-2:] = [(outer * inner, near)]
    return replace(
        view,
        size=(*(n for n, _ in lead), *view.size[-2:]),
        stride=(*(s for _, s in lead), *view.stride[-2:]),
    )


def _strides(view: View) -> tuple[int, ...]:
    """Of a stack of matrices; one matrix is a stack that does not move on."""
    assert view.stride is not None
    return (0,) * (3 - len(view.stride)) + view.stride[-3:]


def _broadcast(view: View, like: View) -> View:
    """A vector added to each row of a matrix."""
    assert view.size is not None
    assert view.stride is not None
    assert like.size is not None
    missing = len(like.size) - len(view.size)
    size, stride = (1,) * missing + view.size, (0,) * missing + view.stride
    stride = tuple(0 if n == 1 and m != 1 else s for n, m, s in zip(size, like.size, stride, strict=True))
    return View(view.base, view.dtype, like.size, stride, view.offset)


def _draw(view: View, index: int) -> str:
    size = math.prod(view.size or ())
    return f"normals(static_cast<{_ctype(view.dtype)}*>(in[{index}]), {size}, generator);"


def _feed(view: View, index: int, number: int) -> str:
    size = math.prod(view.size or ()) * ITEM_SIZES[view.dtype]
    return f"std::memcpy(in[{index}], feeds[{number}] + k * {size}, {size});"


def _includes(kernels: Sequence[Kernel]) -> list[str]:
    found = itertools.chain.from_iterable(re.findall(r"^#include .*$", k.source, re.MULTILINE) for k in kernels)
    return sorted({line.strip() for line in found} | {"#include <torch/csrc/inductor/cpp_prefix.h>"})


def _kernel(index: int, kernel: Kernel) -> str:
    source = re.sub(r"^#include .*$", "", kernel.source, flags=re.MULTILINE)
    source, count = re.subn(r'extern "C"\s+void\s+kernel\s*\(', "static void kernel(", source)
    if count != 1:
        raise PlanError(f"kernel {kernel.name} does not define one function")
    return f"namespace k{index} {{\n{source}\n}}"


def _ctype(dtype: str) -> str:
    if dtype not in _CTYPES:
        raise PlanError(f"a value of type {dtype}")
    return _CTYPES[dtype]


_CTYPES = {"float32": "float", "float64": "double", "int64": "int64_t", "int32": "int32_t", "bool": "bool"}
_CTYPE_SIZES = {
    "float": 4, "double": 8, "int64_t": 8, "long": 8, "int32_t": 4, "int": 4, "int8_t": 1, "uint8_t": 1, "bool": 1,
    "int16_t": 2, "at::Half": 2, "half": 2, "bfloat16": 2, "at::BFloat16": 2,
}  # fmt: skip

_PRELUDE = r"""
namespace {

struct Context {
  char* arena;
  void** in;
  void** results;
  int (*library)(void*, int64_t);
  void* table;
};

// c = alpha a b + beta p, for B pairs; sizes and strides are known, so that loops are unrolled and vectorized.
template <typename T, int B, int M, int N, int K, int A0, int A1, int A2, int B0, int B1, int B2, int C0, int C1, int C2,
          int P0, int P1, int P2>
inline void product(const T* a, const T* b, T* c, const T* p, double beta, double alpha) {
  for (int g = 0; g < B; ++g, a += A0, b += B0, c += C0, p += P0) {
    if constexpr (N == 1 && A1 == 1 && M > 1) {  // a stands in columns: add them up
      T sum[M] = {};
      for (int l = 0; l < K; ++l)
        for (int i = 0; i < M; ++i) sum[i] += a[i + l * A2] * b[l * B1];
      for (int i = 0; i < M; ++i) c[i * C1] = T(alpha) * sum[i] + (beta != 0 ? T(beta) * p[i * P1] : T(0));
    } else if constexpr (N > 1 && B2 == 1) {  // rows of b
      for (int i = 0; i < M; ++i) {
        T sum[N] = {};
        for (int l = 0; l < K; ++l)
          for (int j = 0; j < N; ++j) sum[j] += a[i * A1 + l * A2] * b[l * B1 + j];
        for (int j = 0; j < N; ++j)
          c[i * C1 + j * C2] = T(alpha) * sum[j] + (beta != 0 ? T(beta) * p[i * P1 + j * P2] : T(0));
      }
    } else {
      for (int i = 0; i < M; ++i)
        for (int j = 0; j < N; ++j) {
          T sum = 0;
#pragma omp simd reduction(+ : sum)
          for (int l = 0; l < K; ++l) sum += a[i * A1 + l * A2] * b[l * B1 + j * B2];
          c[i * C1 + j * C2] = T(alpha) * sum + (beta != 0 ? T(beta) * p[i * P1 + j * P2] : T(0));
        }
    }
  }
}

// a x = b for triangular a, for B pairs.
template <typename T, int B, int N, int W, bool Upper, int A0, int A1, int A2, int B0, int B1, int B2, int X0, int X1,
          int X2>
inline void solve(const T* a, const T* b, T* x) {
  for (int g = 0; g < B; ++g, a += A0, b += B0, x += X0)
    for (int w = 0; w < W; ++w)
      for (int step = 0; step < N; ++step) {
        const int i = Upper ? N - 1 - step : step;
        T rest = b[i * B1 + w * B2];
#pragma omp simd reduction(- : rest)
        for (int j = Upper ? i + 1 : 0; j < (Upper ? N : i); ++j) rest -= a[i * A1 + j * A2] * x[j * X1 + w * X2];
        x[i * X1 + w * X2] = rest / a[i * A1 + i * A2];
      }
}

}  // namespace
"""

_HEAD = r"""
// Takes up to `n` steps. Returns the steps taken, of which the last has a loss that is not finite if they are fewer than
// n; or minus the number of the step in which a library call failed.
extern "C" int64_t vipack_run(Context* c, int64_t n, const char* const* feeds, double* losses) {
  char* const arena = c->arena;
  void** const in = c->in;
  auto* const generator = at::check_generator<at::CPUGeneratorImpl>(at::detail::getDefaultCPUGenerator());
  for (int64_t k = 0; k < n; ++k) {"""

_LOCK = r"""    {{
      std::lock_guard<std::mutex> lock(generator->mutex_);
      {draws}
    }}"""

_TAIL = r"""    losses[k] = static_cast<double>(*loss);
    if (!std::isfinite(losses[k])) return k + 1;
  }
  return n;
}
"""

# One fit of several that has diverged does not stop the others.
_TAIL_OF_COPIES = r"""    for (int r = 0; r < COPIES; ++r) losses[k * COPIES + r] = static_cast<double>(loss[r]);
  }
  return n;
}
"""
