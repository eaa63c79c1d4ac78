"""A loop in C++ bound to memory: thousands of steps in one call, from Python."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from vipack.engine.native.bridge import Bridge, NativeError

__all__ = ["BoundLoop"]


class BoundLoop:
    """A compiled function that takes steps, with all that it works on.

    Args:
        run: ``(setting, number of steps, feeds, losses) -> steps taken``, or a negative number where a library call failed.
        setting: its first argument; what that points to must live as long as this.
        bridge: describes the library calls, where there are any; freed with this.
    """

    def __init__(self, run: Callable[..., int], setting: ctypes.Structure, bridge: Bridge | None) -> None:
        self._run, self._setting, self._bridge = run, setting, bridge

    def __call__(self, feeds: Sequence[Tensor], losses: np.ndarray) -> int:
        """Take a step for each of `losses` ``(K,)`` (float64, filled here).

        Args:
            feeds: for each input that changes from step to step, its contents ``(K, ...)``, contiguous, in its dtype.

        Returns:
            Steps taken; the last of them has a loss that is not finite if they are fewer than K.

        Raises:
            NativeError: one of torch's operators raised.
            KeyboardInterrupt: Ctrl-C.
        """
        pointers = (ctypes.c_void_p * max(1, len(feeds)))(*[feed.data_ptr() for feed in feeds])
        num_steps = self._run(ctypes.byref(self._setting), len(losses), pointers, losses.ctypes.data)
        if num_steps < 0:
            message = self._bridge.error() if self._bridge else "a library call failed"
            if message.startswith("KeyboardInterrupt"):  # Ctrl-C met an operator that is written in Python
                raise KeyboardInterrupt
            raise NativeError(message)
        return int(num_steps)

    def __del__(self) -> None:
        bridge = getattr(self, "_bridge", None)  # there is none where __init__ raised
        if bridge is not None:
            bridge.free()
