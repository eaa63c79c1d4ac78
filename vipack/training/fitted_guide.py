"""The guide of a fit, for use in plain Pyro."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from torch import Tensor

from vipack.program import Arguments, Program

__all__ = ["FittedGuide", "name_of"]


class FittedGuide:
    """A guide with the parameters of one fit, callable in plain Pyro like the guide it was made from.

    It runs wherever a guide does (``Predictive``, ``poutine.trace``), reads nothing from Pyro's global store and leaves
    nothing there. Attributes and methods of an automatic guide, such as ``median()`` and ``quantiles()``, work too.
    """

    def __init__(
        self, program: Program, values: dict[str, Tensor] | None = None, buffers: dict[str, Tensor] | None = None
    ) -> None:
        self._program = program
        self._values, self._buffers = values, buffers  # None: the fit's, as they stand

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Draw from the guide."""
        return self._bound(self._program.guide)(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_program":  # what copy and pickle ask for is not the guide's to answer
            raise AttributeError(name)
        with self._running():
            value = getattr(self._program.guide, name)
        return self._bound(value) if callable(value) and not isinstance(value, type) else value

    def __copy__(self) -> FittedGuide:
        return FittedGuide(self._program, self._values, self._buffers)

    def __deepcopy__(self, memo: dict[int, Any]) -> FittedGuide:
        """The guide as it stands now, whatever the fit does later."""
        parameters = self._program.parameters
        values = parameters.detached() if self._values is None else self._values
        buffers = parameters.buffers() if self._buffers is None else self._buffers
        own = {name: value.detach().clone().requires_grad_(value.requires_grad) for name, value in values.items()}
        return FittedGuide(self._program, own, {name: buffer.clone() for name, buffer in buffers.items()})

    def __repr__(self) -> str:
        return f"FittedGuide({name_of(self._program)})"

    def _bound(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            with self._running():
                return function(*args, **kwargs)

        return run

    def _running(self) -> contextlib.AbstractContextManager[None]:
        # Whatever rows the caller passes are all there are: no minibatch of the fit's, and every plate whole.
        values = self._program.parameters.detached() if self._values is None else self._values
        return self._program.bound(Arguments(), values=values, buffers=self._buffers, training=False)


def name_of(program: Program) -> str:
    """The name of the guide's function or class."""
    return str(getattr(program.guide, "__name__", type(program.guide).__name__))
