"""One at a time: Pyro's handlers, its parameter store, the default dtype and the generators are one for a whole process.

Whatever runs a program or changes one of these holds :func:`alone` meanwhile, so that fits in several threads wait for
each other and are what they would be one after another. A thread that holds it may take it again, as callbacks do that
fit something themselves. While a callback or a loader waits for another thread, the fit that called it stands still, and
lends that thread its turn.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import Any, ParamSpec, TypeVar

__all__ = ["alone", "calling_out", "one_at_a_time"]

P = ParamSpec("P")
R = TypeVar("R")

_FIRST_LOOK, _LOOK_SECONDS = 0.002, 0.25  # until what the others do is looked at, doubling from the one to the other
_STILL_SECONDS = (
    1.0  # in which a thread has not left its wait, after which it is taken to wait for one that waits for it
)
_HERE = str(Path(__file__).parent) + os.sep
_CALLERS = tuple(
    _HERE + os.path.join("training", name) for name in ("loop.py", "callbacks.py", "loaders.py", "data.py")
)
_WAITS = ("threading.py", "queue.py", os.path.join("futures", "_base.py"), os.path.join("multiprocessing", "pool.py"))

# Entering and leaving a free lock are one instruction each: Ctrl-C cannot come between them and leave it locked.
_lock = threading.RLock()
_gate = threading.Condition()
_guests: list[_Turn] = []  # that run while the thread before them stands still; the last one runs
_out: dict[int, int] = {}  # thread -> how many of the user's functions, one in the other, it has called


def alone() -> AbstractContextManager[Any]:
    """What to hold while a program runs: ``with alone(): ...``; it waits where another thread holds it."""
    lock = _lock
    if not lock.acquire(blocking=False):
        return _Turn()
    try:
        if _guests:  # who holds it goes on when its guests have left
            _wait_for_guests()
    finally:
        lock.release()
    return lock


def one_at_a_time(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, which holds :func:`alone` while it runs."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with alone():
            return function(*args, **kwargs)

    return run


@contextlib.contextmanager
def calling_out() -> Iterator[None]:
    """Call what is the user's, where no program runs and nothing of the process's is changed but its generators.

    If that waits for a thread that waits for its turn, the thread gets it, and this block ends when it has done.
    """
    thread = threading.get_ident()
    _out[thread] = _out.get(thread, 0) + 1
    try:
        yield
    finally:
        _out[thread] -= 1
        if not _out[thread]:
            del _out[thread]
        if _guests:
            _wait_for_guests()


class _Turn:
    """Waits until the lock is free, or until the thread that runs waits for another and lends its turn."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self._lock: Any = None
        self._is_guest = False

    def __enter__(self) -> None:
        lock, still, since, pause = _lock, None, 0.0, _FIRST_LOOK
        while not lock.acquire(timeout=0 if self._runs_already() else pause):  # Ctrl-C is heard meanwhile
            pause = min(2 * pause, _LOOK_SECONDS)
            with _gate:
                if self._runs_already():
                    _wait_for_guests()
                    return
                wait, now = _standing_still(_guests[-1].thread if _guests else None), time.monotonic()
                if wait != still:
                    still, since = wait, now
                if wait is not None and (wait[2] or now - since >= _STILL_SECONDS):
                    _guests.append(self)
                    self._is_guest = True
                    return
        self._lock = lock

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.release()
        elif self._is_guest:
            with _gate:
                _guests.remove(self)
                _gate.notify_all()

    def _runs_already(self) -> bool:
        return any(guest.thread == self.thread for guest in _guests)


def _wait_for_guests() -> None:
    """Until this thread is the one that runs: the last guest, or the one that holds the lock."""
    own = threading.get_ident()
    with _gate:
        while _guests and _guests[-1].thread != own:
            _gate.wait(_LOOK_SECONDS)


def _free_in_a_child() -> None:
    """A forked child has one thread, which need not be the one that held the lock. What it held itself, it lets go as
    it returns from where it was; that is the old lock."""
    global _lock, _gate
    _lock, _gate = threading.RLock(), threading.Condition()
    _guests.clear()
    _out.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_in_a_child)


def _standing_still(runner: int | None) -> tuple[FrameType, int, bool] | None:
    """Where the thread that runs waits for others in what it has called out, and whether surely for this very thread.

    Args:
        runner: that thread, if it is a guest; else it is the one that holds the lock, without which none calls out.
    """
    own = threading.current_thread()
    tasks = [
        f.f_locals.get("self") for f in _frames(own.ident) if f.f_code.co_name == "run"
    ]  # an executor's, or its own
    for thread in list(_out) if runner is None else [runner]:
        if thread == own.ident or thread not in _out or (runner is None and any(g.thread == thread for g in _guests)):
            continue
        waited_for: list[object] = []
        frames = list(_frames(thread))
        if not frames or not _waits(frames):
            continue
        for frame in frames:
            name = frame.f_code.co_filename
            if name.startswith(_HERE) and name != __file__:
                if name not in _CALLERS:
                    break  # it waits inside a program
                mine = any(each is own or any(getattr(t, "future", t) is each for t in tasks) for each in waited_for)
                return frames[0], frames[0].f_lasti, mine
            if name.endswith(_WAITS):
                waited_for.append(frame.f_locals.get("self"))
    return None


def _waits(frames: list[FrameType]) -> bool:
    """Whether a thread, whose innermost frame comes first, waits for another: also in asyncio's loop, for a thread of its."""
    name = frames[0].f_code.co_filename
    loops = any(frame.f_code.co_filename.endswith(os.path.join("asyncio", "base_events.py")) for frame in frames)
    return name.endswith(_WAITS) or (loops and name.endswith("selectors.py"))


def _frames(ident: int | None) -> Iterator[FrameType]:
    """Of one thread, the innermost first."""
    frame = None if ident is None else sys._current_frames().get(ident)
    while frame is not None:
        yield frame
        frame = frame.f_back
