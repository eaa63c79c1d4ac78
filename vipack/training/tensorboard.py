"""A callback that writes what a run tells to TensorBoard's event files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vipack.errors import MissingExtraError, UsageError
from vipack.hints import checked_class
from vipack.training.callbacks import Progress

__all__ = ["TensorBoard"]


class Writer(Protocol):
    """What is asked of ``torch.utils.tensorboard.SummaryWriter``."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any:
        """Write a number of a step."""

    def flush(self) -> Any:
        """Let readers see what was written."""


@checked_class
class TensorBoard:
    """Writes curves of a run for TensorBoard: ``callbacks=vi.TensorBoard("runs/first")``, then ``tensorboard --logdir runs``.

    The tags are ``loss`` (nats, of every step), ``validation/elbo`` (nats an observation held out), ``learning_rate`` (with
    a number behind it where parameters have several) and, for models whose latents belong to observations,
    ``divergence/<latent>/<dimension>`` (mean KL in nats of each dimension over 200 observations). A run that goes on writes on
    from the steps that it has done.

    Args:
        log_dir: the folder of the event files; ignored where a writer is given.
        every: divergences are evaluated once in so many steps; 0 leaves them out.
        writer: a ``SummaryWriter`` of your own, or whatever has its ``add_scalar`` and ``flush``.

    Raises:
        MissingExtraError: TensorBoard is not installed, and no writer is given.
    """

    def __init__(
        self, log_dir: str | os.PathLike[str] = "runs", *, every: int = 500, writer: Writer | None = None
    ) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 0:
            raise UsageError(f"TensorBoard: every must be a whole number of at least 0, found {every!r}.")
        self._writer: Any = _summary_writer(log_dir) if writer is None else writer
        self._every = every
        self._written = 0  # steps whose loss is written
        self._evaluated = 0  # the step after which divergences were last looked at
        self._elbo: object = None

    def __call__(self, progress: Progress) -> None:
        """Write what is new since the last call."""
        if progress.step < self._written:  # another run, or one that went back
            self._written = self._evaluated = 0
        for step in range(self._written, progress.step):
            self._writer.add_scalar("loss", float(progress.losses[step]), step + 1)
        self._written = progress.step
        if progress.validation is not None and progress.validation != self._elbo:
            self._elbo = progress.validation
            self._writer.add_scalar("validation/elbo", progress.validation.value, progress.step)
        rates = progress.rates()
        for number, rate in enumerate(rates):
            tag = "learning_rate" if len(rates) == 1 else f"learning_rate/{number}"
            self._writer.add_scalar(tag, rate, progress.step)
        if self._every and progress.step >= self._evaluated + self._every:
            self._evaluated = progress.step
            activity = progress.activity()
            for name, values in (activity.divergence if activity is not None else {}).items():
                for dimension, value in enumerate(np.ravel(values)):
                    self._writer.add_scalar(f"divergence/{name}/{dimension}", float(value), progress.step)
        self._writer.flush()


def _summary_writer(log_dir: str | os.PathLike[str]) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError(
            "TensorBoard: the package tensorboard is not installed: pip install 'vipack[tensorboard]'; or pass writer=."
        ) from error
    return SummaryWriter(str(Path(log_dir)))
