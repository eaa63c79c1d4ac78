"""From a step's graph to Inductor's generated program, without compiling it.

This touches Inductor's internals and runs in a process of its own (see build.py): Inductor takes a second to import and
several to lower a graph, and what it may do to a process is its own affair.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

__all__ = ["lower", "save_artifact"]


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
    with torch.no_grad(), _generated_code() as programs:
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
def _generated_code() -> Iterator[list[str]]:
    """Collect generated programs, and let their kernels be mere names: they are compiled later, all together."""
    from torch._inductor import async_compile, graph

    lowering: Any = graph.GraphLowering
    kernels: Any = async_compile.AsyncCompile
    programs: list[str] = []
    saved, compiled = lowering.save_output_code, kernels.__dict__["cpp_pybinding"]

    def not_compiled(self: Any, argtypes: Any, source_code: str) -> Any:
        return None

    lowering.save_output_code = programs.append
    kernels.cpp_pybinding = not_compiled
    try:
        yield programs
    finally:
        lowering.save_output_code = saved
        kernels.cpp_pybinding = compiled
