"""Which rows plates hold: those of a minibatch with the scale N/B that makes it honest, all of them, or those of new data.

Three ways of writing the batch plate all work, in model and guide alike: ``plate(name, len(x))``, ``plate(name, N)`` and
``plate(name, N, subsample_size=len(x))``. Without the scale a global latent's posterior comes out too wide by about
``sqrt(N / B)``, with no warning from anyone.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from vipack.compat.messengers import PLATE_ROWS, choosing_rows, is_subsample, seen_before_broadcast
from vipack.errors import PlateError

__all__ = [
    "BatchPlate",
    "PlateCall",
    "evaluated_plates",
    "is_scaled",
    "own_batch_shapes",
    "own_scale",
    "recorded_plates",
    "rows_within",
    "subsampled",
]

OWN_BATCH_SHAPE = "_vipack_own_batch_shape"  # in a message's infer, inside own_batch_shapes()


@dataclass(frozen=True)
class BatchPlate:
    """The plate named `name` has one row for each of the data set's `num_rows` rows.

    Attributes:
        name: None where no plate declares the rows, and the program scales by itself all that depends on them.
        by_program: whether the program scales sites by N/B itself, as with ``poutine.scale(scale=N / len(x))``.
        factors: sites that bear N/B in their own numbers, as ``pyro.factor(name, N / len(x) * log_p.sum())``.
    """

    name: str | None
    num_rows: int
    by_program: bool = False
    factors: frozenset[str] = frozenset()


class PlateCall(NamedTuple):
    """How a program opens a plate: ``pyro.plate(name, size, subsample_size, subsample)``.

    Attributes:
        rows: the rows that the plate came to hold; inside a model that is replayed, the guide's.
    """

    size: int
    subsample_size: int | None
    subsample: Any
    rows: Any


Choose = Callable[[str, Any, Any, Any], tuple[Any, Any, Any]]


@contextlib.contextmanager
def subsampled(plate: BatchPlate, indices: Tensor) -> Iterator[None]:
    """Run programs on the rows `indices` ``(B,)`` of the data: the batch plate holds them and scales by N/B."""

    def rows(name: str, size: Any, subsample_size: Any, subsample: Any) -> tuple[Any, Any, Any]:
        if name == plate.name and size == plate.num_rows and subsample is None:
            return size, None, indices
        return size, subsample_size, subsample

    with _plate_rows(rows), _Scale(plate, indices):
        yield


@contextlib.contextmanager
def evaluated_plates(
    plate: BatchPlate | None, written: Mapping[str, PlateCall], lengths: Collection[int]
) -> Iterator[None]:
    """Run programs with every plate whole, whatever ``subsample_size`` they ask for, unless that is the size of new data.

    ``plate("row", N, subsample_size=len(x))`` has as many rows as the data at hand, and so has the batch plate written as
    ``plate("row", N)``; ``plate("row", len(x), subsample_size=100)``, by which a model takes minibatches of its own, has
    all of them.

    Args:
        plate: the batch plate, if there is one.
        written: how the program opened its plates on the data that it was fitted to.
        lengths: of the tensors that the program is called with.
    """

    def rows(name: str, size: Any, subsample_size: Any, subsample: Any) -> tuple[Any, Any, Any]:
        is_batch = plate is not None and name == plate.name and size == plate.num_rows
        if is_batch and subsample is None and subsample_size is None and len(lengths) == 1:
            (own,) = lengths
            return own, None, torch.arange(own)
        if subsample is not None or subsample_size is None or subsample_size == size:
            return size, subsample_size, subsample
        fitted = written.get(name)
        whole = fitted is not None and fitted.size == size and fitted.subsample_size in (None, size)
        if whole or is_batch:
            # Not whole any more, so that its size follows the data.
            return subsample_size, None, torch.arange(subsample_size)
        if subsample_size in lengths and size not in lengths:
            # The data are some of the rows that the plate stands for, and count for all of them.
            return max(size, subsample_size), None, torch.arange(subsample_size)
        return size, None, None

    with _plate_rows(rows):
        yield


@contextlib.contextmanager
def recorded_plates() -> Iterator[dict[str, list[PlateCall]]]:
    """How programs open their plates inside the block, call by call."""
    calls: dict[str, list[PlateCall]] = {}

    def keep(name: str, size: Any, subsample_size: Any, subsample: Any, result: Any) -> None:
        if size is not None:
            calls.setdefault(name, []).append(PlateCall(size, subsample_size, subsample, result[2]))

    with _plate_rows(lambda name, *written: written, keep):
        yield calls


@contextlib.contextmanager
def own_batch_shapes() -> Iterator[None]:
    """Let each message keep, under ``infer[OWN_BATCH_SHAPE]``, the batch shape that a distribution has by itself.

    Plates expand distributions before any handler outside of the program can see them.
    """

    def keep(msg: dict[str, Any]) -> None:
        if msg["type"] == "sample" and hasattr(msg["fn"], "batch_shape"):
            msg["infer"].setdefault(OWN_BATCH_SHAPE, tuple(msg["fn"].batch_shape))

    with seen_before_broadcast(keep):
        yield


@contextlib.contextmanager
def _plate_rows(choose: Choose, keep: Callable[..., None] | None = None) -> Iterator[None]:
    """Let `choose` decide which rows each plate takes, of how many, and `keep` see what came of it.

    Pyro offers no message for this: a plate compares the rows it is handed with the ``subsample_size`` it was written
    with and refuses a different number, so the choice has to be made before that comparison.
    """

    def subsample(original: Callable[..., Any], name: str, *call: Any) -> Any:
        written, elsewhere = call[:3], call[3:]
        result = original(name, *choose(name, *written), *elsewhere)
        if keep is not None:
            keep(name, *written, result)
        return result

    with choosing_rows(subsample):
        yield


def own_scale(node: Mapping[str, Any]) -> float | None:
    """What a program scales a site by, apart from what its plates do; None for a tensor of scales."""
    scale = node["scale"]
    if isinstance(scale, Tensor):
        if scale.numel() != 1:
            return None
        scale = scale.item()
    for frame in node["cond_indep_stack"]:
        scale = scale * frame.size / (frame.full_size or frame.size)
    return float(scale)


def rows_within(
    value: Tensor, node: Mapping[str, Any], plate: BatchPlate, start: int, size: int, *, events: bool
) -> Tensor:
    """The slice of a site's value or density at `size` rows of the plate from `start` on, where it has a dimension for them.

    Args:
        events: whether `value` has the dimensions of events too, as a draw has and a density has not.
    """
    frames = (frame for frame in node["cond_indep_stack"] if frame.name == plate.name and frame.vectorized)
    frame = next(frames, None)
    dim = 0 if frame is None else frame.dim - (node["fn"].event_dim if events else 0)
    if frame is None or value.dim() < -dim or value.shape[dim] == 1:
        return value
    return value.narrow(dim, start, size)


def is_scaled(node: Mapping[str, Any], num_rows: int, batch_size: int) -> bool:
    """Whether a program scales a site of `batch_size` rows by N/B itself."""
    scale = own_scale(node)
    return scale is not None and math.isclose(scale, num_rows / batch_size, rel_tol=1e-6)


class _Scale(Messenger):  # type: ignore[misc]
    """Scales log p and log q in the batch plate by N/B, unless the user's plate, or the program, does so already."""

    def __init__(self, plate: BatchPlate, indices: Tensor) -> None:
        super().__init__()
        self._plate = plate
        self._indices = indices
        self._batch_size = len(indices)

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if not PLATE_ROWS.there and msg["name"] == self._plate.name and is_subsample(msg["fn"]):
            # The call gives the rows; a plate of that size fits them.
            if msg["value"] is None and msg["fn"].subsample_size == self._batch_size:
                msg["value"], msg["done"] = self._indices, True
            return
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
            by_itself = self._plate.by_program and is_scaled(msg, self._plate.num_rows, self._batch_size)
            if not by_itself and msg["name"] not in self._plate.factors:
                msg["scale"] = msg["scale"] * (self._plate.num_rows / self._batch_size)
            return
