"""What a library call of a loop in C++ raised is raised in Python."""

import ctypes

import numpy as np
import pytest

from vipack.engine.native.bound_loop import BoundLoop
from vipack.engine.native.bridge import NativeError


class Setting(ctypes.Structure):
    _fields_ = [("nothing", ctypes.c_int64)]


class Failed:
    """A bridge whose last call raised."""

    def __init__(self, message):
        self.message = message

    def error(self):
        return self.message

    def free(self):
        pass


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("KeyboardInterrupt: <EMPTY MESSAGE>\n\nAt:\n  operators.py(80)", KeyboardInterrupt),
        ("ValueError: boom", NativeError),
    ],
)
def test_an_operators_error_is_raised(message, error):
    loop = BoundLoop(lambda *_: -1, Setting(), Failed(message))
    with pytest.raises(error):
        loop([], np.zeros(2))
