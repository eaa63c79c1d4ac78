"""Running user code once: the pair of traces, and the user's own exceptions explained by site and source line."""

from __future__ import annotations

import contextlib
import inspect
import linecache
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from vipack.errors import GuideError, ModelError, SignatureError, SiteError, VipackError

__all__ = ["Arguments", "check_signature", "explained", "trace_model", "trace_pair"]

_LIBRARIES = tuple(str(Path(file).parent) for file in (pyro.__file__, torch.__file__, Path(__file__).parent) if file)


@dataclass(frozen=True)
class Arguments:
    """What the model and the guide are called with; `indices` are the data's rows ``(B,)`` in it, None for all."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    indices: Tensor | None = None

    def __str__(self) -> str:
        parts = [_describe(value) for value in self.args]
        parts += [f"{name}={_describe(value)}" for name, value in self.kwargs.items()]
        return ", ".join(parts) or "no arguments"


def trace_pair(model: Callable[..., Any], guide: Callable[..., Any], arguments: Arguments) -> tuple[Trace, Trace]:
    """Traces of one draw of the guide and of the model replayed against it, in that order."""
    messenger = poutine.unwrap(guide)
    if isinstance(messenger, Messenger):  # a GuideMessenger runs the model itself
        guide(*arguments.args, **arguments.kwargs)
        model_trace, guide_trace = messenger.get_traces()
        return guide_trace, model_trace
    guide_trace = poutine.trace(guide).get_trace(*arguments.args, **arguments.kwargs)
    return guide_trace, trace_model(poutine.replay(model, trace=guide_trace), arguments)


def trace_model(model: Callable[..., Any], arguments: Arguments) -> Trace:
    """One trace of the model."""
    return poutine.trace(model).get_trace(*arguments.args, **arguments.kwargs)


@contextlib.contextmanager
def explained(what: str, arguments: Arguments) -> Iterator[None]:
    """Turn an exception of the user's `what` (model or guide) into one that says where it was and what it was given.

    Raises:
        SiteError: two statements share a name.
        GuideError: an automatic guide cannot handle a site.
        ModelError: anything else.
    """
    watcher = _LastSite()
    try:
        with watcher:
            yield
    except VipackError:
        raise
    except Exception as error:
        text = _first_lines(error)
        if "Multiple" in text and "sites named" in text:
            raise SiteError(f"{text}; every statement of a program needs a name of its own, so rename one.") from error
        if "Continuous inference cannot handle" in text:
            raise GuideError(text) from error
        where = f"after site {watcher.name!r}" if watcher.name else "before its first site"
        raise ModelError(
            f"the {what} raised {type(error).__name__} {where}{_source(error)}: {text}; it was called with {arguments}. "
            f"Call it by hand with the same arguments to see the whole traceback."
        ) from error


def check_signature(what: str, program: Callable[..., Any], arguments: Arguments) -> None:
    """
    Raises:
        SignatureError: `arguments` do not fit the callable's signature.
    """
    target = program.forward if isinstance(program, torch.nn.Module) else poutine.unwrap(program)
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*arguments.args, **arguments.kwargs)
    except TypeError as error:
        raise SignatureError(
            f"the {what} takes {signature}, but data and fixed make the call ({arguments}): {error}; "
            "a tuple in data is positional arguments, a dict keyword arguments, and fixed adds keyword arguments."
        ) from error


class _LastSite(Messenger):  # type: ignore[misc]
    """Remembers the sample site that was last reached."""

    name: str | None = None

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        self.name = msg["name"]


def _source(error: BaseException) -> str:
    """``, at file.py:12: `line` `` of the innermost frame that belongs to the user."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(_LIBRARIES) and frame.name != "__call__":
            line = linecache.getline(frame.filename, frame.lineno or 0).strip()
            quoted = f": `{line}`" if line else ""
            return f", at {Path(frame.filename).name}:{frame.lineno}{quoted}"
    return ""


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"tensor{tuple(value.shape)}"
    return type(value).__name__ if value is not None else "None"


def _first_lines(error: Exception, limit: int = 400) -> str:
    text = " ".join(str(error).split()) or "no message"
    return text if len(text) <= limit else text[: limit - 3] + "..."
