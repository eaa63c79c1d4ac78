"""Memory that was freed and that the C library keeps: large tensors of short lives leave holes, which few others fit in."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable
from functools import cache
from typing import Any

__all__ = ["return_free_memory"]

_SECONDS = 2.0  # of the process, at least, between two times: the pages that are needed again must be mapped anew
_last = 0.0


def return_free_memory() -> None:
    """Hand free memory back to the operating system, once in two seconds of its work at most; only glibc must be asked to.

    Aligned memory, as torch's, is often not used again by glibc before 2.38, so that a long loop over large tensors comes to
    hold several times what it uses. Smaller tensors made that worse, and tensors that glibc maps one by one take twice the time.
    """
    global _last
    now = time.process_time()
    if now - _last < _SECONDS:
        return
    trim = _trim()
    if trim is not None:
        trim(0)
    _last = now


@cache
def _trim() -> Callable[[int], Any] | None:
    """glibc's ``malloc_trim``; None with other C libraries."""
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
