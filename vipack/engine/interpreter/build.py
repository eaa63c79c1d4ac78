"""What the interpreter is compiled from."""

from __future__ import annotations

from pathlib import Path

from vipack.engine.normals import NORMALS

__all__ = ["KERNELS", "source"]

KERNELS = "interpreter.so"


def source() -> str:
    """The C++ of the interpreter, whole."""
    text = (Path(__file__).parent / "kernels.cpp").read_text()
    return f"#include <torch/csrc/inductor/cpp_prefix.h>\n{NORMALS}\n{text}"
