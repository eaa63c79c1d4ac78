"""What the interpreter is compiled from."""

from __future__ import annotations

from vipack.engine.native.cpp_source import read_source

__all__ = ["FLAGS", "KERNELS", "source"]

KERNELS = "interpreter.so"

# Inductor turns the compiler's own vectors off; with them, -O3 takes twice the time of -O2 to compile.
FLAGS = ("-O2", "-ftree-loop-vectorize")


def source() -> str:
    """The C++ of the interpreter, whole."""
    return read_source("vipack/engine/interpreter/kernels.cpp")
