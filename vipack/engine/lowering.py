"""From a step's graph to Inductor's generated program, without compiling it.

This touches Inductor's internals and runs in a process of its own (see build.py): Inductor takes a second to import and
several to lower a graph, and what it may do to a process is its own affair.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

__all__ = ["lower", "save_artifact"]

_MANY = 16  # rows that a small result is used at
_LANES = 16  # numbers that the widest vectors hold
_MANY_TO_TURN = 1_024
_FEW = 4  # operations, loads included, that are not worth keeping it for


def lower(module: fx.GraphModule, examples: Sequence[Tensor], num_threads: int, *, strided: bool = False) -> str:
    """The Python program that Inductor generates for `module`: C++ kernels as strings, and the calls in their order.

    Args:
        num_threads: that the kernels may use.
        strided: whether to vectorize loops over numbers that lie apart, too, as those of fits side by side do.
    """
    from torch._inductor import standalone_compile

    patches = {
        **_patches(num_threads),
        "force_disable_caches": True,
        "size_asserts": True,  # they say what layout a library call's result is taken to have
        "alignment_asserts": False,
        "memory_planning": False,
        "cpp.enable_tiling_heuristics": not strided,
    }
    options = {"config_patches": patches}
    with (
        torch.no_grad(),
        _generated_code() as programs,
        _small_results_kept(),
        _rows_innermost(),
        _turned_round_apart(),
    ):
        standalone_compile(module, list(examples), dynamic_shapes="from_example_inputs", options=options)
    if len(programs) != 1:
        raise RuntimeError(f"Inductor generated {len(programs)} programs for one graph")
    return programs[0]


def save_artifact(module: fx.GraphModule, examples: Sequence[Tensor], num_threads: int, path: Path) -> None:
    """Compile `module` the ordinary way, into a folder that ``CompiledArtifact.load`` reads."""
    from torch._inductor import standalone_compile

    options = {"config_patches": _patches(num_threads)}
    with torch.no_grad():
        made = standalone_compile(module, list(examples), dynamic_shapes="from_example_inputs", options=options)
    made.save(path=str(path), format="unpacked")


def _patches(num_threads: int) -> dict[str, Any]:
    # Draws inside the graph come from torch's own generator, as in every other tier.
    return {"cpp.threads": num_threads, "fallback_random": True}


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """While the context lasts, an attribute of Inductor's, or an entry of one of its tables, is `value`."""
    table = isinstance(owner, dict)
    before = owner[name] if table else inspect.getattr_static(owner, name)
    put = owner.__setitem__ if table else functools.partial(setattr, owner)
    put(name, value)
    try:
        yield
    finally:
        put(name, before)


def _small_results_kept() -> contextlib.AbstractContextManager[None]:
    """Compute what is small once, though it is used at many rows: Inductor puts it into the loop over the rows."""
    from torch._inductor import ir

    box: Any = ir.StorageBox
    original = box.should_realize_on_reuse

    def kept(self: Any, users: int, **options: Any) -> bool:
        worth = isinstance(self.data, ir.Pointwise) and users >= _MANY and self.data.inner_fn_opcount().num_ops > _FEW
        return worth or bool(original(self, users, **options))

    return _replaced(box, "should_realize_on_reuse", kept)


def _rows_innermost() -> contextlib.AbstractContextManager[None]:
    """Let what has many rows of a few numbers lie column by column, so that loops over rows can be vectorized."""
    from torch._inductor import ir

    buffer: Any = ir.ComputedBuffer
    original = buffer.get_fill_order

    def order(self: Any) -> Any:
        found = original(self)
        sizes = self.get_size()
        if isinstance(self.layout, ir.FlexibleLayout) and all(str(size).isdigit() for size in sizes):
            numbers = [int(size) for size in sizes]
            filled = list(found) if found else list(reversed(range(len(numbers))))
            inner = next((dim for dim in filled if numbers[dim] > 1), None)
            longest = max(filled, key=lambda dim: numbers[dim], default=0)
            if inner is not None and numbers[inner] < _LANES and numbers[longest] >= 4 * _LANES:
                return [longest, *(dim for dim in filled if dim != longest)]
        return found

    return _replaced(buffer, "get_fill_order", order)


def _turned_round_apart() -> contextlib.AbstractContextManager[None]:
    """Leave it to the library to turn many numbers round: in a loop with others, these would be read from the wrong end."""
    from torch._inductor import lowering

    made: Any = lowering.lowerings
    rev: Any = torch.ops.prims.rev.default
    original, apart = made[rev], lowering.fallback_handler(torch.ops.aten.flip.default, add_to_fallback_set=False)

    def turned(x: Any, dims: Sequence[int]) -> Any:
        many = math.prod(int(size) for size in x.get_size()) >= _MANY_TO_TURN
        return apart(x, list(dims)) if many else original(x, dims)

    return _replaced(made, rev, turned)


@contextlib.contextmanager
def _generated_code() -> Iterator[list[str]]:
    """Collect generated programs, and let their kernels be mere names: they are compiled later, all together."""
    from torch._inductor import async_compile, graph

    programs: list[str] = []
    with (
        _replaced(graph.GraphLowering, "save_output_code", programs.append),
        _replaced(async_compile.AsyncCompile, "cpp_pybinding", lambda self, argtypes, source_code: None),
    ):
        yield programs
