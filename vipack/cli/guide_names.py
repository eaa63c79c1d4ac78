"""The names of guides, which only the command line has: in Python, pass the guide itself."""

from __future__ import annotations

import functools
from typing import Any

from vipack.errors import UsageError
from vipack.hints import name_hint

__all__ = ["GUIDE_NAMES", "LADDER", "guide_named"]

LADDER = "ladder"  # no guide, but what finds and trains one by itself

# name -> class in pyro.infer.autoguide, and its options
GUIDE_NAMES: dict[str, tuple[str, dict[str, Any]]] = {
    "meanfield": ("AutoNormal", {}),
    "lowrank": ("AutoLowRankMultivariateNormal", {}),
    "fullrank": ("AutoMultivariateNormal", {}),
    "structured": ("AutoStructured", {}),
    "iaf": ("AutoIAFNormal", {"num_transforms": 2}),
    "delta": ("AutoDelta", {}),
}


def guide_named(name: str) -> Any:
    """The automatic guide called `name`; the class's own name, capitals, hyphens and underscores do as well.

    Raises:
        UsageError: there is none of that name.
    """
    import pyro.infer.autoguide as autoguide

    wanted = name.lower().replace("-", "").replace("_", "")
    for key, (builder, options) in GUIDE_NAMES.items():
        if wanted in (key, builder.lower()):
            guide = getattr(autoguide, builder)
            return functools.partial(guide, **options) if options else guide
    known = ", ".join(f"{key} ({builder})" for key, (builder, _) in GUIDE_NAMES.items())
    hint = name_hint(name, [LADDER, *GUIDE_NAMES, *(builder for builder, _ in GUIDE_NAMES.values())])
    raise UsageError(
        f"guide {name!r}: not known; {hint or ''}{' ' * bool(hint)}the names are {LADDER}, {known}; or give FILE.py:NAME."
    )
