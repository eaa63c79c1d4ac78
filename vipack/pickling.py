"""What a copy of a fit for another process is made of, and what cannot be in one."""

from __future__ import annotations

import pickle
import sys

from vipack.errors import UnpicklableError

__all__ = ["check_picklable"]


def check_picklable(**arguments: object) -> None:
    """
    Args:
        arguments: what the user gave, by the names of the arguments.

    Raises:
        UnpicklableError: pickle cannot store one of them; cloudpickle and dill, which store code by value, are let pass.
    """
    if _stores_code():
        return
    for name, value in arguments.items():
        try:
            pickle.Pickler(_Nowhere(), pickle.HIGHEST_PROTOCOL).dump(value)
        except Exception as error:
            reason = " ".join(str(error).split())[:200].rstrip(".")
            raise UnpicklableError(
                f"{name}: pickle cannot store it ({reason}); define what it is made of at the top level of a module, without "
                "lambdas or functions in functions, or use fit.save(path) and vi.load(path, model, guide), or cloudpickle."
            ) from error


class _Nowhere:
    """A file that keeps nothing."""

    def write(self, content: bytes) -> int:
        return len(content)


def _stores_code() -> bool:
    """Whether the pickler at work stores functions by value, rather than by the names of their modules."""
    frame = sys._getframe(1)
    while frame is not None:
        if not {"cloudpickle", "dill"}.isdisjoint(str(frame.f_globals.get("__name__")).split(".")):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False
