"""From a step's graph to Inductor's generated program, without compiling it.

This runs in a process of its own (see build.py): Inductor takes a second to import and
several to lower a graph, and may change settings of the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from vipack.compat.inductor import generated_code, laid_out, results_kept, standalone, turned_round_apart

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

    Raises:
        MissingNameError: this torch has not got what that takes.
    """
    patches = {
        **_patches(num_threads),
        "force_disable_caches": True,
        "size_asserts": True,  # they say what layout a library call's result is taken to have
        "alignment_asserts": False,
        "memory_planning": False,
        "cpp.enable_tiling_heuristics": not strided,
    }
    with (
        torch.no_grad(),
        generated_code() as programs,
        results_kept(lambda users, operations: users >= _MANY and operations > _FEW),
        laid_out(_rows_innermost),
        turned_round_apart(lambda numbers: numbers >= _MANY_TO_TURN),
    ):
        standalone(module, examples, patches)
    if len(programs) != 1:
        raise RuntimeError(f"Inductor generated {len(programs)} programs for one graph")
    return programs[0]


def save_artifact(module: fx.GraphModule, examples: Sequence[Tensor], num_threads: int, path: Path) -> None:
    """Compile `module` the ordinary way, into a folder that :func:`vipack.compat.inductor.load_artifact` reads."""
    with torch.no_grad():
        artifact = standalone(module, examples, _patches(num_threads))
    artifact.save(path=str(path), format="unpacked")


def _patches(num_threads: int) -> dict[str, Any]:
    # Draws inside the graph come from torch's own generator, as in every other tier.
    return {"cpp.threads": num_threads, "fallback_random": True}


def _rows_innermost(sizes: list[int], filled: list[int]) -> list[int] | None:
    """Let what has many rows of a few numbers lie column by column, so that loops over rows can be vectorized."""
    inner = next((dim for dim in filled if sizes[dim] > 1), None)
    longest = max(filled, key=lambda dim: sizes[dim], default=0)
    if inner is None or sizes[inner] >= _LANES or sizes[longest] < 4 * _LANES:
        return None
    return [longest, *(dim for dim in filled if dim != longest)]
