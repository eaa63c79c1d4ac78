"""The source of a model and a guide, where it can be had."""

from __future__ import annotations

import functools
import inspect
import textwrap
from typing import Any

from torch import nn

from vipack.report.content import Code

__all__ = ["code_of", "name_of"]

_MOST_LINES = 250
_LIBRARIES = ("vipack", "pyro", "torch", "zuko", "functools")


def name_of(program: Any) -> str:
    """A name for people: of a function, of a method's class, of a module."""
    if isinstance(program, functools.partial):
        return name_of(program.func)
    owner = getattr(program, "__self__", None)
    if owner is not None and not inspect.ismodule(owner):
        return f"{type(owner).__name__}.{getattr(program, '__name__', 'call')}"
    return str(getattr(program, "__name__", type(program).__name__))


def code_of(what: str, program: Any) -> Code:
    """The code that `program` runs: of the function, or of the class that it is a method or an object of.

    Args:
        what: "Model" or "Guide".
    """
    title = f"{what}: {name_of(program)}"
    inner = program.func if isinstance(program, functools.partial) else program
    owner = getattr(inner, "__self__", inner)
    kind = inner if inspect.isfunction(inner) or inspect.isclass(inner) else type(owner)
    module = str(getattr(kind, "__module__", ""))
    if module.partition(".")[0] in _LIBRARIES:
        shown = repr(owner) if isinstance(owner, nn.Module) else ""
        return Code(title, _shortened(shown), f"{module}.{kind.__qualname__}, as that library has it.")
    try:
        text = textwrap.dedent(inspect.getsource(kind))
    except (OSError, TypeError):
        return Code(title, note="Its source is not at hand: it was written at a prompt, or is compiled.")
    return Code(title, _shortened(text), f"From {module}." if module not in ("", "__main__") else "")


def _shortened(text: str) -> str:
    lines = text.rstrip().splitlines()
    if len(lines) <= _MOST_LINES:
        return "\n".join(lines)
    return "\n".join([*lines[:_MOST_LINES], f"... {len(lines) - _MOST_LINES} more lines"])
