"""Types of numbers, and what torch, C++ and the interpreter call them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["BYTES_IN_C", "CTYPES", "FLOATING", "ITEM_SIZES", "SCALAR_TYPES", "SUFFIXES"]


@dataclass(frozen=True)
class _Type:
    """One type.

    Attributes:
        scalar_type: its number in ``c10::ScalarType``.
        size: bytes of an element.
        names_in_c: what generated code calls it.
        suffix: of the interpreter's kernels; empty where there are none, nor loops that compute with it.
    """

    scalar_type: int
    size: int
    names_in_c: tuple[str, ...]
    suffix: str = ""


_TYPES = {
    "uint8": _Type(0, 1, ("uint8_t",)),
    "int8": _Type(1, 1, ("int8_t",)),
    "int16": _Type(2, 2, ("int16_t",)),
    "int32": _Type(3, 4, ("int32_t", "int"), "i32"),
    "int64": _Type(4, 8, ("int64_t", "long"), "i64"),
    "float16": _Type(5, 2, ("at::Half", "half")),
    "float32": _Type(6, 4, ("float",), "f32"),
    "float64": _Type(7, 8, ("double",), "f64"),
    "bool": _Type(11, 1, ("bool",), "bool"),
    "bfloat16": _Type(15, 2, ("at::BFloat16", "bfloat16")),
}

SCALAR_TYPES = {name: kind.scalar_type for name, kind in _TYPES.items()}
ITEM_SIZES = {name: kind.size for name, kind in _TYPES.items()}
BYTES_IN_C = {in_c: kind.size for kind in _TYPES.values() for in_c in kind.names_in_c}
CTYPES = {
    name: kind.names_in_c[0] for name, kind in _TYPES.items() if kind.suffix
}  # that kernels and loops compute with
FLOATING = {name: CTYPES[name] for name in ("float32", "float64")}
SUFFIXES: dict[torch.dtype, str] = {getattr(torch, name): kind.suffix for name, kind in _TYPES.items() if kind.suffix}
