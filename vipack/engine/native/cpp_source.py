"""C++ of the engine: files beside the modules that use them, read as one text."""

from __future__ import annotations

import re
from importlib.resources import files

__all__ = ["read_source"]

_OWN = re.compile(r'^#include "(vipack/.*)"\n', re.MULTILINE)
_ONCE = re.compile(r"^#pragma once\n", re.MULTILINE)


def read_source(*names: str) -> str:
    """The text of some files, with each header of vipack's own written out where it is first included.

    What is compiled is one text, which a cache key can hold the digest of.

    Args:
        names: paths from the folder that vipack lies in, as in ``vipack/engine/native/bridge.cpp``.
    """
    seen: set[str] = set()
    return "\n".join(_written_out(name, seen) for name in names if name not in seen)


def _written_out(name: str, seen: set[str]) -> str:
    seen.add(name)
    text = files("vipack").joinpath(*name.split("/")[1:]).read_text(encoding="utf-8")

    def header(match: re.Match[str]) -> str:
        return "" if match[1] in seen else _written_out(match[1], seen)

    return _OWN.sub(header, _ONCE.sub("", text))
