"""The sum of gradients over the processes of a data-parallel run, as one operator of torch's that every tier calls."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from vipack.engine.graph.csr_operators import OPERATOR_MODULES

__all__ = ["ALL_REDUCE", "Exchange", "Reducer", "unpacked"]

_EXTRA = 2  # numbers behind the gradients in the flat buffer: the loss, and the sum of the weights


class Exchange(Protocol):
    """What the processes of a run tell each other; every one of them makes the same calls in the same order.

    Attributes:
        rank: of this process, from 0 on.
        size: how many processes there are.
    """

    rank: int
    size: int

    def sum(self, flat: Tensor) -> None:
        """Add up a vector over all processes, in place."""
        ...

    def gather(self, value: object) -> list[object]:
        """What every process has given, by rank."""
        ...

    def busy(self, doing: str) -> contextlib.AbstractContextManager[None]:
        """Inside, the others wait for this process as long as it lives."""
        ...


class Reducer:
    """Gradients and loss of one step, as the mean over the processes, weighted by their shares of the rows.

    A step of W processes then is a step on all their batches together: with weights ``w_r = N_r / N`` and batches whose rows
    each process scales by ``N / B_r``, the mean ``sum_r w_r loss_r`` has global terms once, and each row's term with the weight
    ``N_r / B_r`` of a row that is drawn with probability ``B_r / N_r``.

    Args:
        weight: of this process, its share of the rows.
        of_rows: parameters that belong to rows of this process alone, which are weighted and not added up.

    Attributes:
        losses: of the steps since they were last cleared, over all processes.
        seconds: spent in adding up, waiting for the others included.
    """

    def __init__(self, exchange: Exchange, weight: float, of_rows: frozenset[str] = frozenset()) -> None:
        self.exchange, self.weight, self.of_rows = exchange, weight, of_rows
        self.losses: list[float] = []
        self.seconds = 0.0
        self._alone = False
        self._flat = torch.empty(0)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """The operator adds up by this inside the block."""
        _ACTIVE.append(self)
        try:
            yield
        finally:
            _ACTIVE.pop()

    @contextlib.contextmanager
    def alone(self, doing: str) -> Iterator[None]:
        """Steps inside the block are of this process only, as those that are taken on trial; the others wait meanwhile."""
        self._alone = True
        try:
            with self.exchange.busy(doing):
                yield
        finally:
            self._alone = False

    @property
    def is_alone(self) -> bool:
        """Whether steps are of this process only."""
        return self._alone

    def __call__(self, gradients: Sequence[Tensor], loss: Tensor) -> Tensor:
        """``(G + 2,)``: the gradients one after the other, the loss, and the weight by which what belongs to rows is multiplied."""
        flat = self._buffer(sum(gradient.numel() for gradient in gradients) + _EXTRA, loss)
        weight, start = (1.0 if self._alone else self.weight), 0
        with torch.no_grad():
            for gradient in gradients:
                end = start + gradient.numel()
                torch.mul(gradient, weight, out=flat[start:end].view(gradient.shape))
                start = end
            flat[start] = loss * weight
            if not self._alone:
                began = time.perf_counter()
                self.exchange.sum(flat)
                self.seconds += time.perf_counter() - began
                self.losses.append(float(flat[start]))
            flat[-1] = weight
        return flat

    def fail(self, num_gradients: int) -> None:
        """Take part in a step that this process could not compute: the loss is NaN for all."""
        with torch.no_grad():
            self._flat = torch.full_like(self._buffer(num_gradients + _EXTRA, self._flat), torch.nan)
            self.exchange.sum(self._flat)
            self.losses.append(torch.nan)

    def _buffer(self, size: int, like: Tensor) -> Tensor:
        """One block of memory for all steps: new pages for a large one cost as much as adding it up."""
        if self._flat.numel() != size or self._flat.dtype != like.dtype:
            with torch.inference_mode(False):
                self._flat = torch.zeros(size, dtype=like.dtype, device=like.device)
        return self._flat


def unpacked(flat: Tensor, gradients: Sequence[Tensor]) -> tuple[list[Tensor], Tensor, Tensor]:
    """Gradients in their shapes, the loss and the weight, of what the operator gives."""
    *pieces, loss, weight = flat.split([*(gradient.numel() for gradient in gradients), 1, 1])
    shaped = [piece.view(gradient.shape) for piece, gradient in zip(pieces, gradients, strict=True)]
    return shaped, loss.view(()), weight.view(())


_ACTIVE: list[Reducer] = []  # the innermost last; who trains holds vipack's lock


def _reduce(gradients: list[Tensor], loss: Tensor) -> Tensor:
    return _ACTIVE[-1](gradients, loss)


def _shaped(gradients: list[Tensor], loss: Tensor) -> Tensor:
    return loss.new_empty(sum(gradient.numel() for gradient in gradients) + _EXTRA)


torch.library.define("vipack::all_reduce", "(Tensor[] gradients, Tensor loss) -> Tensor")
torch.library.impl("vipack::all_reduce", "CompositeExplicitAutograd", _reduce)
torch.library.register_fake("vipack::all_reduce", _shaped)
ALL_REDUCE = torch.ops.vipack.all_reduce.default
OPERATOR_MODULES[ALL_REDUCE] = __name__
