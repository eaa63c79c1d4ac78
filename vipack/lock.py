"""One at a time: Pyro's handlers, its parameter store, the default dtype and the generators are one for a whole process.

Whatever runs a program or changes one of these holds :func:`alone` meanwhile, so that fits in several threads wait for
each other and are what they would be one after another. A thread that holds it may take it again, as callbacks do that
fit something themselves.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import Any, ParamSpec, TypeVar

from vipack.errors import UsageError

__all__ = ["alone", "one_at_a_time"]

P = ParamSpec("P")
R = TypeVar("R")

_LOOK_SECONDS = 0.5  # between looks at whether a wait can end
_HERE = str(Path(__file__).parent) + os.sep

# Entering and leaving are one instruction each, so that Ctrl-C cannot come between a lock and its release.
_lock = threading.RLock()


def alone() -> AbstractContextManager[Any]:
    """A lock to be held while a program runs: ``with alone(): ...``; waits where another thread holds it.

    Raises:
        UsageError: the thread that holds it waits for this one, so that neither would ever go on.
    """
    lock = _lock
    while not lock.acquire(blocking=False):
        if lock.acquire(timeout=_LOOK_SECONDS):  # Ctrl-C is heard meanwhile
            break
        _refuse_to_wait_for_oneself()
    lock.release()
    return lock


def one_at_a_time(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, which holds :func:`alone` while it runs."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with alone():
            return function(*args, **kwargs)

    return run


def _free_in_a_child() -> None:
    """A forked child has one thread, which need not be the one that held the lock. What it held itself, it lets go as
    it returns from where it was; that is the old lock."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_in_a_child)


def _refuse_to_wait_for_oneself() -> None:
    """
    Raises:
        UsageError: a thread waits, in a callback or loader that vipack called, for this thread to end.
    """
    own = threading.current_thread()
    task = next((frame.f_locals["self"].future for frame in _frames(own.ident) if _is(frame, "thread.py", "run")), None)
    for thread in list(threading.enumerate()):
        waits = False
        for frame in _frames(thread.ident) if thread is not own else ():
            waits = waits or _waits_for(frame, own, task)
            if waits and frame.f_code.co_filename.startswith(_HERE) and frame.f_code.co_filename != __file__:
                raise UsageError(
                    f"thread {own.name!r} would wait for ever: it is to run a program while a fit runs in thread "
                    f"{thread.name!r}, whose callback or loader waits for {own.name!r} in turn. Fits in threads wait for one "
                    "another; call this in the callback's own thread, or in a process."
                )


def _waits_for(frame: FrameType, own: threading.Thread, task: Any) -> bool:
    if _is(frame, "threading.py", "join") or _is(frame, "threading.py", "_wait_for_tstate_lock"):
        return frame.f_locals.get("self") is own
    if task is None:
        return False
    if _is(frame, "_base.py", "result") or _is(frame, "_base.py", "exception"):
        return frame.f_locals.get("self") is task
    if _is(frame, "_base.py", "wait") or _is(frame, "_base.py", "as_completed"):
        return task in (frame.f_locals.get("fs") or ())
    return False


def _is(frame: FrameType, file: str, function: str) -> bool:
    """Whether a frame is one of the standard library's functions that wait for threads or run tasks in them."""
    name = frame.f_code.co_filename
    folder = "concurrent" + os.sep + "futures" if file != "threading.py" else ""
    return frame.f_code.co_name == function and name.endswith(os.path.join(folder, file)) and _HERE not in name


def _frames(ident: int | None) -> Iterator[FrameType]:
    """Of one thread, the innermost first."""
    frame = None if ident is None else sys._current_frames().get(ident)
    while frame is not None:
        yield frame
        frame = frame.f_back
