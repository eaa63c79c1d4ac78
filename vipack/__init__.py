"""Variational inference for Pyro models: fit fast, compare guides, know when to trust the answer."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vipack.version import __version__

if TYPE_CHECKING:
    from vipack import datasets, diagnostics, errors, guides, objectives, plots
    from vipack.diagnostics import compare
    from vipack.engine.svi import SVI
    from vipack.program import scan
    from vipack.training import Checkpoint, Converged, Every, Fit, TimeLimit, check, fit, load, vsbc

__all__ = [
    "SVI",
    "Checkpoint",
    "Converged",
    "Every",
    "Fit",
    "TimeLimit",
    "__version__",
    "check",
    "compare",
    "datasets",
    "diagnostics",
    "errors",
    "fit",
    "guides",
    "load",
    "objectives",
    "plots",
    "scan",
    "vsbc",
]

# Names are looked up on first use: `vipack --help` need not import torch, and the ArviZ adapter runs without it.
_HOMES = {
    **dict.fromkeys(
        ["Checkpoint", "Converged", "Every", "Fit", "TimeLimit", "check", "fit", "load", "vsbc"], "vipack.training"
    ),
    "compare": "vipack.diagnostics",
    "SVI": "vipack.engine.svi",
    "scan": "vipack.program",
}
_ROOMS = ("datasets", "diagnostics", "errors", "guides", "objectives", "plots")


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"vipack.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'vipack' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__
