"""The passes of passes.cpp, compiled for a number of topics when they are first wanted, and kept on disk."""

from __future__ import annotations

import ctypes

import torch

from vipack.engine.graph.compiled_functions import functions_of

__all__ = ["MOST_TOPICS", "library"]

MOST_TOPICS = 512  # beyond it the fallback's matrices are as fast


def library(num_topics: int, dtype: torch.dtype, index: torch.dtype) -> ctypes.CDLL | None:
    """The compiled functions; None where there is no compiler, or ``VIPACK_NATIVE=0`` forbids them."""
    if not 1 <= num_topics <= MOST_TOPICS:
        return None
    return functions_of("vipack/sparse/passes.cpp", dtype, index, (f"-DTOPICS={num_topics}",))
