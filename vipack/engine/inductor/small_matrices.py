"""Library calls on small matrices, written out: a call through torch costs a microsecond, the arithmetic a few nanoseconds.

Each function gives a statement of C++, or None where the call is left to the library: it is large, of another type, or
does not say how its operands lie.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from vipack.engine.inductor.plan import View
from vipack.engine.native.dtypes import CTYPES, FLOATING
from vipack.engine.native.operations import LibraryCall

__all__ = ["Memory", "write_out"]

_MOST = 8192  # multiplications that are written out
_MOST_OF_VECTORS = 1 << 21  # where they are a vector's at a time
_LONGEST = 160  # row of a matrix in such loops, whose columns wait on the stack
_WIDE = 8  # columns that make a vector


class Memory(Protocol):
    """Where values lie."""

    def pointer(self, view: View, ctype: str) -> str:
        """The address of a view's first element."""

    def layout(self, call: LibraryCall, item: int = 0) -> View | None:
        """A result of a call as its readers expect it to lie; None where that is not known."""

    def result(self, call: LibraryCall, dtype: str, item: int = 0) -> View:
        """Memory for a result that the caller now does write: its readers are led there.

        Laid out as they expect; a result whose layout nobody asks for is a number.
        """


def write_out(call: LibraryCall, memory: Memory) -> str | None:
    """A statement that does the call, or None."""
    writer = _WRITERS.get((call.operator, call.overload))
    return None if writer is None else writer(call, memory)


def _product(call: LibraryCall, memory: Memory) -> str | None:
    *added, a, b = call.arguments
    out = call.keywords["out"]
    views = [*added, a, b, out]
    if not all(_known(v) and v.dtype == out.dtype for v in views) or out.dtype not in FLOATING:
        return None
    batch = a.size[0] if len(a.size) == 3 else 1
    m, k = a.size[-2:]
    n = b.size[-1]
    if batch * m * n * k > _MOST:
        return None
    alpha = float(call.keywords.get("alpha", 1))
    plus = _broadcast(added[0], out) if added else replace(out, stride=(0, 0, 0))
    beta = float(call.keywords.get("beta", 1)) if added else 0.0
    shape = _listed([batch, m, n, k, *_strides(a), *_strides(b), *_strides(out), *_strides(plus)])
    ctype = FLOATING[out.dtype]
    operands = _listed(memory.pointer(v, ctype) for v in (a, b, out, plus))
    return f"product<{ctype}, {shape}>({operands}, {beta!r}, {alpha!r});"


def _solve(call: LibraryCall, memory: Memory) -> str | None:
    a, b = call.arguments
    options = call.keywords
    if not _known(a) or not _known(b) or options.get("unitriangular", False):
        return None
    left, upper = bool(options.get("left", True)), bool(options["upper"])
    if a.dtype != b.dtype or a.dtype not in FLOATING or a.size[:-2] != b.size[:-2]:
        return None
    batch, n = math.prod(a.size[:-2]), a.size[-1]
    width = b.size[-1 if left else -2]
    expected = memory.layout(call)
    wide = width >= _WIDE and n <= _LONGEST
    if batch * n * n * width > (_MOST_OF_VECTORS if wide else 2 * _MOST):  # half of a are zeros
        return None
    if expected is None or expected.size != b.size:
        return None
    if any(_one_batch(view) is None for view in (a, b, expected)):
        return None
    views = (a, b, memory.result(call, a.dtype))
    steps = [_strides(_stack(view)) for view in views]
    if not left:  # x a = b is a' x' = b'
        steps, upper = [(batch_step, column, row) for batch_step, row, column in steps], not upper
    ctype = FLOATING[a.dtype]
    shape = _listed([batch, n, width, str(upper).lower(), *(s for step in steps for s in step)])
    name = "solve_wide" if wide else "solve"
    return f"{name}<{ctype}, {shape}>({_listed(memory.pointer(v, ctype) for v in views)});"


def _cholesky(call: LibraryCall, memory: Memory) -> str | None:
    (a,) = call.arguments
    expected = memory.layout(call)
    if not _known(a) or a.dtype not in FLOATING or call.keywords.get("upper", False) or expected is None:
        return None
    batch, n = math.prod(a.size[:-2]), a.size[-1]
    in_columns = expected.stride is not None and expected.stride[-2] == 1 and n <= _LONGEST
    if expected.size != a.size or batch * n**3 > (_MOST_OF_VECTORS if in_columns else _MOST):
        return None
    if any(_one_batch(view) is None for view in (a, expected)):
        return None
    views = (a, memory.result(call, a.dtype))
    memory.result(call, "int32", 1)  # no error: memory is zero at first, and nothing writes here
    ctype = FLOATING[a.dtype]
    shape = _listed([batch, n, *(step for view in views for step in _strides(_stack(view)))])
    return f"cholesky<{ctype}, {shape}>({_listed(memory.pointer(v, ctype) for v in views)});"


def _check(call: LibraryCall, memory: Memory) -> str | None:
    errors = call.arguments[0]
    return ";" if isinstance(errors, View) and errors.base.kind == "buffer" else None  # a factor written out has none


def _cumulative(call: LibraryCall, memory: Memory) -> str | None:
    value, wanted = call.arguments[0], call.keywords.get("dtype")
    expected = memory.layout(call)
    if not _known(value) or len(value.size) > 1 or math.prod(value.size) > _MOST:
        return None
    if expected is None or expected.size != value.size:
        return None
    default = value.dtype if value.dtype in FLOATING else "int64"
    dtype = default if wanted is None else str(wanted).removeprefix("torch.")
    if value.dtype not in CTYPES or dtype not in CTYPES:
        return None
    out = memory.result(call, dtype)
    types = f"{CTYPES[value.dtype]}, {CTYPES[dtype]}"
    shape = _listed([math.prod(value.size), *(value.stride or (0,)), *(out.stride or (0,))])
    operands = f"{memory.pointer(value, CTYPES[value.dtype])}, {memory.pointer(out, CTYPES[dtype])}"
    return f"cumulative<{str(call.operator.endswith('prod')).lower()}, {types}, {shape}>({operands});"


_WRITERS: dict[tuple[str, str], Any] = {
    ("aten::mm", "out"): _product,
    ("aten::bmm", "out"): _product,
    ("aten::addmm", "out"): _product,
    ("aten::linalg_solve_triangular", ""): _solve,
    ("aten::linalg_cholesky_ex", ""): _cholesky,
    ("aten::_linalg_check_errors", ""): _check,
    ("aten::cumsum", ""): _cumulative,
    ("aten::cumprod", ""): _cumulative,
}


def _known(value: Any) -> bool:
    return isinstance(value, View) and value.size is not None and value.stride is not None


def _listed(items: Any) -> str:
    return ", ".join(map(str, items))


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
        view, size=(*(n for n, _ in lead), *view.size[-2:]), stride=(*(s for _, s in lead), *view.stride[-2:])
    )


def _stack(view: View) -> View:
    """What :func:`_one_batch` has said can be had."""
    stack = _one_batch(view)
    assert stack is not None
    return stack


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
    size: Sequence[int] = (1,) * missing + view.size
    stride = (0,) * missing + view.stride
    stride = tuple(0 if n == 1 and m != 1 else s for n, m, s in zip(size, like.size, stride, strict=True))
    return View(view.base, view.dtype, like.size, stride, view.offset)
