"""Subnormal numbers in kernels that update large vectors: taken as zero, as XLA takes them everywhere.

Where a gradient is nothing but zeros (a unit that is off, a pixel that is never on) Adam's first moment shrinks by a tenth a
step and is subnormal after some eight hundred steps; processors then take many times longer for it. A number below 1e-38
(float32) or 1e-307 (float64) in a moment moves no parameter. Kernels that compute losses keep such numbers.
"""

from __future__ import annotations

import math
import re

from vipack.engine.inductor.plan import KernelCall, Plan, View

__all__ = ["flushed", "updates_much"]

_LARGE = 16_384  # elements from which a vector counts


def updates_much(plan: Plan) -> set[int]:
    """Numbers of the kernels that write to large inputs of the step."""
    return {
        call.kernel
        for call in plan.calls
        if isinstance(call, KernelCall)
        for value, ctype in zip(call.arguments, plan.kernels[call.kernel].argument_types, strict=True)
        if isinstance(value, View) and value.base.kind == "input" and not ctype.startswith("const")
        if math.prod(value.size or ()) >= _LARGE
    }


def flushed(source: str) -> str:
    """A kernel's source, with subnormal numbers taken as zero in each of its threads."""
    flush = "const Flush flush;"
    source = re.sub(r"(static void kernel\([^)]*\)\s*\{)", rf"\1\n    {flush}", source, count=1)
    return re.sub(r"(#pragma omp parallel num_threads\(\d+\)\s*\{)", rf"\1\n        {flush}", source)
