"""What a run tells callbacks while it goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from vipack.diagnostics.collapse import LatentActivity
from vipack.display import Readable
from vipack.errors import UsageError
from vipack.hints import checked_class
from vipack.program import Parameters
from vipack.types import Estimate

__all__ = ["Callback", "Every", "Progress", "RunView", "callbacks_of"]


class RunView(Protocol):
    """What callbacks may ask of a run, and is computed when they do."""

    def rates(self) -> tuple[float, ...]:
        """See :meth:`Progress.rates`."""

    def activity(self) -> LatentActivity | None:
        """See :meth:`Progress.activity`."""


@dataclass(frozen=True, repr=False)
class Progress(Readable):
    """Where a run stands.

    Attributes:
        step: steps done.
        epoch: epochs completed.
        loss: mean loss of the last 100 steps, nats.
        losses: of every step so far, nats; do not change it.
        seconds: trained so far.
        validation: the last ELBO of an observation held out, in nats, with ``fit(..., validation=...)``.
    """

    step: int
    epoch: int
    loss: float
    losses: Sequence[float]
    seconds: float
    _fit_parameters: Parameters
    validation: Estimate | None = None
    _run: RunView | None = None

    def __str__(self) -> str:
        return f"step {self.step}, epoch {self.epoch}, loss {self.loss:,.2f}, {self.seconds:.1f} s"

    def rates(self) -> tuple[float, ...]:
        """The learning rates of the next step, the largest first; empty where the optimizer does not tell."""
        return () if self._run is None else self._run.rates()

    def activity(self) -> LatentActivity | None:
        """What the latents of 200 observations say of them, dimension by dimension; None for models whose latents are shared."""
        return None if self._run is None else self._run.activity()

    def params(self) -> Mapping[str, Tensor]:
        """Copies of the parameters as they stand, constrained, by name; not buffers, for which see :meth:`to_pyro`."""
        return self._fit_parameters.constrained()

    def to_pyro(self) -> None:
        """Copy parameters and buffers as they stand into Pyro's global store and the modules they came from.

        So a callback can evaluate a network with its batch normalisation as trained so far. The run is not disturbed: it
        goes on with parameters and buffers of its own.
        """
        self._fit_parameters.write_back()


Callback = Callable[[Progress], object]


@checked_class
@dataclass(frozen=True)
class Every:
    """Call `callback` after every `num_steps` steps exactly; plain callbacks are called a few times a second.

    A callback that returns True, or a string that says why, stops the run.
    """

    num_steps: int
    callback: Callback

    def __post_init__(self) -> None:
        if not isinstance(self.num_steps, int) or self.num_steps < 1:
            raise UsageError(f"Every: num_steps must be a positive integer, found {self.num_steps!r}.")

    def __call__(self, progress: Progress) -> object:
        """Pass on the call."""
        return self.callback(progress)


def callbacks_of(callbacks: object) -> tuple[Callback, ...]:
    """One callback or several as a tuple.

    Raises:
        UsageError: something that cannot be called.
    """
    chosen = tuple(callbacks) if isinstance(callbacks, tuple | list) else (callbacks,)
    for callback in chosen:
        if not callable(callback):
            raise UsageError(f"callbacks: expected functions of a Progress, found {callback!r}.")
    return chosen
