"""Where a call of the user's comes in: it takes its turn, and what is set around it for torch and Pyro stays outside.

So ``fit.sample()`` inside ``torch.no_grad()``, ``torch.inference_mode()``, autocast or a handler of Pyro's is what it is
elsewhere. ``vipack.SVI`` and ``fit.guide`` are otherwise: they are called inside programs, and heed what stands around them.

torch and Pyro are imported where they are used: the ArviZ adapter runs without them.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

from vipack.errors import UsageError
from vipack.hints import check_call
from vipack.lock import alone

__all__ = ["entry", "on_its_own", "training_entry"]

P = ParamSpec("P")
R = TypeVar("R")


def entry(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, which runs :func:`on_its_own`, one call at a time.

    Raises:
        SignatureError: it cannot be called with such arguments; what was meant is said.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        check_call(function, args, kwargs)
        with alone(), on_its_own():
            return function(*args, **kwargs)

    return run


def training_entry(function: Callable[P, R]) -> Callable[P, R]:
    """As :func:`entry`; refuses handlers of Pyro's around the call, which are meant for the program and would be lost.

    Raises:
        UsageError: such a handler stands around the call.
    """
    run = entry(function)

    @functools.wraps(function)
    def refuse(*args: P.args, **kwargs: P.kwargs) -> R:
        from vipack.compat.messengers import handlers_around

        with alone():  # the handlers are one for all threads
            handler = handlers_around()
            if handler:
                raise UsageError(
                    f"{function.__name__}: called inside a handler of Pyro's, {handler}, which is not around the program but "
                    f"around its training. Put it on the program, as in poutine.mask(model, mask=...), or call "
                    f"{function.__name__} outside of it."
                )
            return run(*args, **kwargs)

    return refuse


@contextlib.contextmanager
def on_its_own() -> Iterator[None]:
    """Gradients on, inference mode and autocast off, and no handlers of Pyro's; all is as it was afterwards."""
    import torch

    from vipack.compat.messengers import handlers, without_handlers

    with contextlib.ExitStack() as modes:
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                modes.enter_context(torch.autocast(kind, enabled=False))
        if handlers():
            modes.enter_context(without_handlers())
        yield
