"""What the interpreter is compiled from."""

from __future__ import annotations

from vipack.engine.native.cpp_source import read_source

__all__ = ["KERNELS", "source"]

KERNELS = "interpreter.so"


def source() -> str:
    """The C++ of the interpreter, whole."""
    return read_source("vipack/engine/interpreter/kernels.cpp")
