"""The batch plate: the one plate whose rows a minibatch is a sample of, and the scale N/B that makes it honest.

Three ways of writing that plate all work, in model and guide alike: ``plate(name, len(x))``,
``plate(name, N)`` and ``plate(name, N, subsample_size=len(x))``. Without the scale a global latent's posterior comes
out too wide by about ``sqrt(N / B)``, with no warning from anyone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import SubsampleMessenger
from torch import Tensor

from vipack.errors import PlateError

__all__ = ["BatchPlate", "full_plates", "subsampled"]


@dataclass(frozen=True)
class BatchPlate:
    """The plate named `name` has one row for each of the data set's `num_rows` rows."""

    name: str
    num_rows: int


@contextlib.contextmanager
def subsampled(plate: BatchPlate, indices: Tensor) -> Iterator[None]:
    """Run programs on the rows `indices` ``(B,)`` of the data: the batch plate holds them and scales by N/B."""

    def rows(name: str, size: int | None, subsample_size: int | None, subsample: Any) -> tuple[int | None, Any]:
        if name == plate.name and size == plate.num_rows and subsample is None:
            return None, indices
        return subsample_size, subsample

    with _plate_rows(rows), _Scale(plate, len(indices)):
        yield


@contextlib.contextmanager
def full_plates() -> Iterator[None]:
    """Run programs with every plate whole, whatever ``subsample_size`` they ask for."""

    def rows(name: str, size: int | None, subsample_size: int | None, subsample: Any) -> tuple[int | None, Any]:
        return (None, None) if subsample is None else (subsample_size, subsample)

    with _plate_rows(rows):
        yield


@contextlib.contextmanager
def _plate_rows(choose: Any) -> Iterator[None]:
    """Let `choose` decide which rows each plate takes.

    Pyro offers no message for this: a plate compares the rows it is handed with the ``subsample_size`` it was written
    with and refuses a different number, so the choice has to be made before that comparison.
    """
    original = SubsampleMessenger._subsample

    def _subsample(
        name: str,
        size: Any = None,
        subsample_size: Any = None,
        subsample: Any = None,
        use_cuda: Any = None,
        device: Any = None,
    ) -> Any:
        subsample_size, subsample = choose(name, size, subsample_size, subsample)
        return original(name, size, subsample_size, subsample, use_cuda, device)

    SubsampleMessenger._subsample = staticmethod(_subsample)
    try:
        yield
    finally:
        SubsampleMessenger._subsample = staticmethod(original)


class _Scale(Messenger):  # type: ignore[misc]
    """Scales log p and log q in the batch plate by N/B, unless the user's plate already says size=N."""

    def __init__(self, plate: BatchPlate, batch_size: int) -> None:
        super().__init__()
        self._plate = plate
        self._batch_size = batch_size

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        for frame in msg["cond_indep_stack"]:
            if frame.name != self._plate.name:
                continue
            if frame.full_size == self._plate.num_rows and frame.size == self._batch_size:
                return  # SubsampleMessenger has scaled by full_size / size
            if frame.size != self._batch_size:
                raise PlateError(
                    f"site {msg['name']!r}: plate {frame.name!r} has size {frame.size}, but the minibatch has "
                    f"{self._batch_size} rows; size it by the data, as in pyro.plate({frame.name!r}, len(x))."
                )
            msg["scale"] = msg["scale"] * (self._plate.num_rows / self._batch_size)
            return
