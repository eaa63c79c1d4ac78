"""Which of the user's code a run executes, and what of it a graph would not repeat."""

from __future__ import annotations

import builtins
import contextlib
import datetime
import functools
import io
import logging
import os
import sys
import time
import types
from collections.abc import Iterator
from typing import Any

from torch import nn

from vipack.compat.patching import patched

__all__ = ["Execution", "is_library", "module_of", "recorded"]

_LIBRARIES = (
    "torch", "pyro", "numpy", "scipy", "vipack", "zuko", "opt_einsum", "pandas", "tqdm", "sympy", "xarray", "arviz",
    # What stands around a program: it keeps state of its own, which no program reads.
    "pytest", "_pytest", "pluggy", "hypothesis", "coverage", "IPython", "ipykernel", "debugpy", "pydevd",
)  # fmt: skip
_MACHINERY = (
    "importlib",
    "logging",
    "warnings",
    "weakref",
    "gc",
    "threading",
)  # of Python's: calls what others have hung in
_CLOCK = "the program reads the clock ({})"
_CLOCKS = {
    function: _CLOCK.format(name)
    for name in dir(time)
    if isinstance(function := getattr(time, name), types.BuiltinFunctionType)
    and name.removesuffix("_ns") in ("time", "perf_counter", "monotonic", "process_time", "thread_time", "ctime")
}
_REFUSED: dict[Any, str] = {
    **_CLOCKS,
    print: "the program prints, which a graph would not do again",
    open: "the program opens a file at every run",
    input: "the program asks for input",
    os.urandom: "the program draws from the system's generator, which a graph cannot repeat",
}
_NAMESPACES = {vars, globals, locals, eval, exec}
_REFUSED_MODULES = {
    "uuid": "the program draws from the system's generator, which a graph cannot repeat",
    "secrets": "the program draws from the system's generator, which a graph cannot repeat",
    "subprocess": "the program starts other programs, which a graph would not do again",
}
_LOGGING = logging.Logger.handle.__code__
_HOLDING = (nn.Module, list, dict, set, types.FunctionType)


class Execution:
    """What was seen of a run.

    Attributes:
        codes: of the functions that ran and belong to no library.
        arguments: what these were called with that may hold variables.
        attributes: objects and names that they reached by ``getattr`` or ``hasattr``.
        namespaces: whether they read whole namespaces, as by ``vars`` or ``eval``.
        reason: why a graph cannot repeat the run; empty where it can.
    """

    def __init__(self) -> None:
        self.codes: set[types.CodeType] = set()
        self.arguments: dict[int, Any] = {}
        self.attributes: list[tuple[Any, str]] = []
        self.namespaces = False
        self.reason = ""
        self._library: set[types.CodeType] = set()
        self._outer: types.FrameType | None = None  # which began to record

    def __call__(self, frame: types.FrameType, event: str, detail: Any) -> None:
        """What ``sys.setprofile`` calls."""
        try:
            self._meet(frame, event, detail)
        except Exception as error:  # a proxy, say, that raises whatever it is asked
            self._refuse(f"{frame.f_code.co_name} holds something that cannot be looked into ({type(error).__name__})")

    def _meet(self, frame: types.FrameType, event: str, detail: Any) -> None:
        code = frame.f_code
        if event == "call":
            if code in self._library:
                return
            if code not in self.codes:
                module = frame.f_globals.get("__name__")
                if is_library(module):
                    self._meet_library(frame, code, str(module))
                    return
                if self._is_hung_in(frame):
                    return
                self.codes.add(code)
            for value in frame.f_locals.values():
                if isinstance(value, _HOLDING) or not is_library(module_of(type(value))):
                    self.arguments[id(value)] = value
        elif event == "c_call" and code in self.codes:
            self._meet_builtin(detail)

    def includes(self, other: Execution) -> bool:
        """Whether another run shows nothing that this one did not."""
        shown = other.codes <= self.codes and other.namespaces <= self.namespaces and (not other.reason or self.reason)
        return bool(shown)

    def joined(self, other: Execution) -> Execution:
        """Both runs as one."""
        both = Execution()
        both.codes = self.codes | other.codes
        both.arguments = {**self.arguments, **other.arguments}
        both.attributes = self.attributes + other.attributes
        both.namespaces = self.namespaces or other.namespaces
        both.reason = self.reason or other.reason
        return both

    def _meet_library(self, frame: types.FrameType, code: types.CodeType, module: str) -> None:
        if code is _LOGGING:
            if _caller_is_users(frame, "logging"):
                self._refuse("the program logs a message, which a graph would not do again")
            return
        reason = _REFUSED_MODULES.get(module)
        if reason is None:
            self._library.add(code)
        elif _caller_is_users(frame, module):
            self._refuse(reason)

    def _is_hung_in(self, frame: types.FrameType) -> bool:
        """Whether a function was called by an import, a log or the like, and not by the program."""
        caller = frame.f_back
        while caller is not None and caller is not self._outer and caller.f_code not in self.codes:
            if str(caller.f_globals.get("__name__")).partition(".")[0] in _MACHINERY:
                return True
            caller = caller.f_back
        return False

    def _meet_builtin(self, function: Any) -> None:
        owner = getattr(function, "__self__", None)
        if isinstance(owner, type) and issubclass(owner, datetime.date):
            if function.__name__ in ("now", "utcnow", "today"):
                self._refuse(_CLOCK.format(f"{owner.__name__}.{function.__name__}"))
        elif isinstance(owner, io.IOBase):
            if function.__name__ in ("write", "writelines"):
                self._refuse("the program writes to a file, which a graph would not do again")
        elif isinstance(owner, types.ModuleType | None):
            if function in _NAMESPACES:
                self.namespaces = True
            self._refuse(_REFUSED.get(function, ""))

    def _refuse(self, reason: str) -> None:
        self.reason = self.reason or reason


@contextlib.contextmanager
def recorded() -> Iterator[Execution | None]:
    """What runs inside the block, in this thread; None where a profiler is at work that cannot be put back."""
    before = sys.getprofile()
    if before is not None and not callable(before):
        yield None
        return
    execution = Execution()
    execution._outer = sys._getframe(2)

    def noting(original: Any) -> Any:
        @functools.wraps(original)
        def note(owner: Any, name: Any, *default: Any) -> Any:
            if sys._getframe(1).f_code in execution.codes and isinstance(name, str):
                execution.attributes.append((owner, name))
            return original(owner, name, *default)

        return note

    with patched(builtins, getattr=noting(getattr), hasattr=noting(hasattr)):
        sys.setprofile(execution)
        try:
            yield execution
        finally:
            sys.setprofile(before)
            execution._outer = None


def module_of(kind: Any) -> Any:
    """The module that a class, or another object, says it comes from; None where it does not say."""
    try:
        return kind.__module__
    except Exception:  # some have none, and a metaclass may raise what it likes
        return None


def is_library(module: Any) -> bool:
    """Whether a module of this name is torch's, Pyro's or Python's own, which keep state of their own."""
    return isinstance(module, str) and _is_library(module)


@functools.cache
def _is_library(module: str) -> bool:
    top = module.partition(".")[0]
    known = top in _LIBRARIES or top in sys.stdlib_module_names or top.startswith("namedtuple_")
    return known and top != "__main__"


def _caller_is_users(frame: types.FrameType, module: str) -> bool:
    """Whether the first frame outside of `module` belongs to no library."""
    caller = frame.f_back
    while caller is not None and str(caller.f_globals.get("__name__")).startswith(module):
        caller = caller.f_back
    return caller is not None and not is_library(caller.f_globals.get("__name__"))
