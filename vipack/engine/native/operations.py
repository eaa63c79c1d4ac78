"""What a step in native code is made of, compiled or interpreted: memory, calls of torch's operators, and the loop around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Base", "LibraryCall", "LoopSpec"]


@dataclass(frozen=True)
class Base:
    """Memory that tensors lie in.

    Attributes:
        kind: "input" of the step, "buffer" or "constant" of its program, or "result" of a library call.
        index: the input's position, the buffer's or constant's number, or the number of the library call.
        item: which of a library call's results.
    """

    kind: str
    index: int
    item: int = 0


@dataclass(frozen=True)
class LibraryCall:
    """A call of an operator such as ``aten::mm.out``; arguments are tensors, numbers, strings, None or lists of them.

    Attributes:
        number: under which views of its results refer to it.
        results: tensors that its results are copied to, None for one that nobody reads; empty where views refer to the results themselves.
    """

    operator: str
    overload: str
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    number: int
    results: tuple[Any, ...] = ()


@dataclass(frozen=True)
class LoopSpec:
    """What a loop in C++ does around its step.

    Attributes:
        normals: positions of the inputs that the loop fills with standard normals, in the order of the draws.
        fed: positions of the inputs that get new contents for every step from the caller's arrays.
        copies: R, for R fits side by side, whose losses a step returns as a vector; None for one.
    """

    normals: tuple[int, ...]
    fed: tuple[int, ...]
    copies: int | None = None
