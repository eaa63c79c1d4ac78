"""What long work shows people, a bar, and how they end it, Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from tqdm.auto import tqdm

from vipack.errors import UsageError

__all__ = ["Interrupted", "Progress", "ProgressBar", "interrupts", "progress_of", "shown"]


def progress_of(progress: object) -> bool | None:
    """Whether to show a bar; None where there is a terminal or a notebook.

    Raises:
        UsageError: something else.
    """
    if progress is None or isinstance(progress, bool):
        return progress
    raise UsageError(f"progress: expected True, False or None (a bar in a terminal or a notebook), found {progress!r}.")


class ProgressBar:
    """A tqdm bar with loss and rate, a widget in a notebook; elsewhere, without a terminal, it is silent unless `show` is True."""

    def __init__(self, total: int, done: int, show: bool | None, label: str = "", *, leave: bool = True) -> None:
        widget = any(kind.__module__ == "tqdm.notebook" for kind in tqdm.__mro__)  # whose output is no terminal
        self._loss = ""
        disable = None if show is None and not widget else show is False
        self._bar = tqdm(
            total=total, initial=done, disable=disable, unit="step", dynamic_ncols=True, leave=leave, desc=label or None
        )

    def update(self, step: int, loss: float, note: str = "") -> None:
        """Show `step` steps done and the latest mean loss, and a `note`."""
        self._loss = f"loss {loss:,.2f}"
        self._bar.set_postfix_str(f"{self._loss}, {note}" if note else self._loss, refresh=False)
        self._bar.update(step - self._bar.n)

    def advance(self, steps: int = 1) -> None:
        """Show more steps done."""
        self._bar.update(steps)

    def close(self) -> None:
        """Leave the last line standing, without a note, which is of the moment."""
        if self._loss:
            self._bar.set_postfix_str(self._loss, refresh=False)
        self._bar.close()


class Interrupted(Exception):
    """Ctrl-C ended a piece of work between two of its steps."""


class Progress:
    """Shows the pieces of a piece of work as they are done, and ends it at Ctrl-C.

    Args:
        show: whether to show bars; None where there is a terminal or notebook.
        interrupted: becomes true at Ctrl-C; see :func:`interrupts`.
        label: of the whole, before that of each piece.
    """

    def __init__(self, show: bool | None = False, interrupted: list[bool] | None = None, label: str = "") -> None:
        self._show = show
        self._label = label
        self._interrupted: list[bool] = [] if interrupted is None else interrupted
        self._bar: ProgressBar | None = None

    def begin(self, label: str, total: int) -> None:
        """Start on a piece of `total` steps."""
        self.close()
        self._bar = ProgressBar(total, 0, self._show, f"{self._label}{label}", leave=False)

    def __call__(self, steps: int = 1) -> None:
        """
        Args:
            steps: done since the last call.

        Raises:
            Interrupted: Ctrl-C was pressed.
        """
        if self._bar is not None:
            self._bar.advance(steps)
        if self._interrupted:
            raise Interrupted

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


@contextlib.contextmanager
def interrupts() -> Iterator[list[bool]]:
    """A list that becomes true at the first Ctrl-C; the second one raises KeyboardInterrupt as ever."""
    seen: list[bool] = []
    if threading.current_thread() is not threading.main_thread():
        yield seen
        return
    previous: Any = signal.getsignal(signal.SIGINT)

    def remember(number: int, frame: Any) -> None:
        if seen:
            signal.signal(signal.SIGINT, previous)
            raise KeyboardInterrupt
        seen.append(True)

    signal.signal(signal.SIGINT, remember)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, previous)


@contextlib.contextmanager
def shown(progress: bool | None) -> Iterator[Progress]:
    """A bar, which Ctrl-C ends.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """
    with interrupts() as interrupted:
        bar = Progress(progress_of(progress), interrupted)
        try:
            yield bar
        except Interrupted:
            raise KeyboardInterrupt from None
        finally:
            bar.close()
