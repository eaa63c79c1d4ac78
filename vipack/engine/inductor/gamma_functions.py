"""digamma in kernels: of a vector at once, where Inductor's code takes its numbers one by one."""

from __future__ import annotations

import re

__all__ = ["at_once"]


def at_once(source: str) -> str:
    """A kernel's source that calls ``digamma_of_lanes`` of inductor/gamma_functions.h."""
    return re.sub(r"\b(\w+)\.digamma\(\)", r"digamma_of_lanes(\1)", source)
