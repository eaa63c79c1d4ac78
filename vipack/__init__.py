"""Variational inference for Pyro models: fit fast, compare guides, know when to trust the answer."""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING, Any

from vipack.hints import name_hint
from vipack.version import __version__

if TYPE_CHECKING:
    from vipack import datasets, diagnostics, errors, guides, objectives, plots, schedules, topics, transforms, vae
    from vipack.diagnostics import compare
    from vipack.engine.captured_elbo import CapturedELBO
    from vipack.engine.svi import SVI
    from vipack.program import scan
    from vipack.sources import stream
    from vipack.training import (
        Checkpoint,
        Converged,
        DataParallel,
        EarlyStopping,
        Every,
        Fit,
        TensorBoard,
        TimeLimit,
        check,
        fit,
        load,
        vsbc,
    )

__all__ = [
    "SVI",
    "CapturedELBO",
    "Checkpoint",
    "Converged",
    "DataParallel",
    "EarlyStopping",
    "Every",
    "Fit",
    "TensorBoard",
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
    "schedules",
    "stream",
    "topics",
    "transforms",
    "vae",
    "vsbc",
]

# Names are looked up on first use: `vipack --help` need not import torch, and the ArviZ adapter runs without it.
_HOMES = {
    **dict.fromkeys(
        [
            "Checkpoint",
            "Converged",
            "DataParallel",
            "EarlyStopping",
            "Every",
            "Fit",
            "TensorBoard",
            "TimeLimit",
            "check",
            "fit",
            "load",
            "vsbc",
        ],
        "vipack.training",
    ),
    "compare": "vipack.diagnostics",
    "CapturedELBO": "vipack.engine.captured_elbo",
    "SVI": "vipack.engine.svi",
    "scan": "vipack.program",
    "stream": "vipack.sources",
}
_ROOMS = (
    "datasets",
    "diagnostics",
    "errors",
    "guides",
    "objectives",
    "plots",
    "schedules",
    "topics",
    "transforms",
    "vae",
)


if not TYPE_CHECKING:  # a type checker knows the names above, and is to find the others wrong

    def __getattr__(name: str) -> Any:
        if name in _ROOMS:
            return importlib.import_module(f"vipack.{name}")
        if name in _HOMES:
            return getattr(importlib.import_module(_HOMES[name]), name)
        raise AttributeError(f"module 'vipack' has no attribute {name!r}; {_meant(name)}", name=name)


def _meant(name: str) -> str:
    """Where `name` is to be found, or what it was meant to be."""
    if name.startswith("_"):
        return "its names are in vipack.__all__"
    with contextlib.suppress(ImportError):  # the ArviZ adapter runs without torch
        for room in _ROOMS:
            if name in getattr(importlib.import_module(f"vipack.{room}"), "__all__", ()):
                return f"it is vipack.{room}.{name}"
        for module in ("pyro", "pyro.infer", "pyro.infer.autoguide", "pyro.distributions", "pyro.optim"):
            if hasattr(importlib.import_module(module), name):
                return f"it is Pyro's: from {module} import {name}"
    return name_hint(name, __all__) or f"it has {', '.join(__all__)}"


def __dir__() -> list[str]:
    return __all__
