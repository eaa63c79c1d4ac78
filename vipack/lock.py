"""One at a time: Pyro's handlers, its parameter store, the default dtype and the generators are one for a whole process.

Whatever runs a program or changes one of these holds :func:`alone` meanwhile, so that fits in several threads wait for
each other and are what they would be one after another. A thread that holds it may take it again, as callbacks do that
fit something themselves. While a callback runs, its fit stands still and holds nothing, so that it may wait for a fit in
another thread. A model or a data set may not: their fit would wait for it, and it for their fit.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, ParamSpec, TypeVar

__all__ = ["alone", "calling_out", "one_at_a_time"]

P = ParamSpec("P")
R = TypeVar("R")

# Entering and leaving a free lock are one instruction each: Ctrl-C cannot come between them and leave it locked.
_lock: Any = threading.RLock()


def alone() -> AbstractContextManager[Any]:
    """What to hold while a program runs: ``with alone(): ...``; it waits where another thread holds it."""
    lock: AbstractContextManager[Any] = _lock
    return lock


def one_at_a_time(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, which holds :func:`alone` while it runs."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with _lock:
            return function(*args, **kwargs)

    return run


@contextlib.contextmanager
def calling_out() -> Iterator[None]:
    """Call what is the user's, where nothing of the process's is changed: it may wait for other threads that run programs."""
    lock = _lock
    if not lock._is_owned():
        yield
        return
    state = lock._release_save()  # what threading.Condition calls to wait with such a lock
    try:
        yield
    finally:
        interrupt: KeyboardInterrupt | None = None
        while True:
            try:
                lock._acquire_restore(state)
                break
            except KeyboardInterrupt as error:  # an outer holder releases the lock
                interrupt = error
        if interrupt is not None:
            raise interrupt


def _free_in_a_child() -> None:
    """A forked child has one thread, which need not be the one that held the lock. What it held itself, it lets go as
    it returns from where it was; that is the old lock."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_in_a_child)
