"""The sum of gradients over the processes of a data-parallel run, as one operator of torch's that every tier calls."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from vipack.engine.graph.csr_operators import OPERATOR_MODULES

__all__ = ["ALL_REDUCE", "OWN_WEIGHT", "Exchange", "Reducer", "Summing", "summed"]


class Summing(Protocol):
    """A vector of each process, and their sum.

    Attributes:
        own: ``(size,)``, where this process writes before each call of :meth:`total`; another memory after it.
    """

    own: Tensor

    def total(self) -> Tensor:
        """``(V, size)``, vectors that add up to the sum over all processes, the same in each."""
        ...


class Exchange(Protocol):
    """What the processes of a run tell each other; every one of them makes the same calls in the same order.

    Attributes:
        rank: of this process, from 0 on.
        size: how many processes there are.
    """

    rank: int
    size: int

    def num_vectors(self, num_bytes: int) -> int:
        """How many vectors the sum of one of so many bytes is given as."""
        ...

    def summing(self, size: int, like: Tensor) -> Summing:
        """A vector of `size` numbers to be added up again and again, of the type of `like`, and where it is."""
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
        self._summing: Summing | None = None
        self._vectors = torch.empty(0)

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

    def num_vectors(self, size: int, like: Tensor) -> int:
        """How many vectors the sum of one of `size` numbers of this type is given as; they are added up where they are used."""
        return self.exchange.num_vectors(size * like.dtype.itemsize) if like.device.type == "cpu" else 1

    def __call__(self, gradients: Sequence[Tensor], loss: Tensor) -> Tensor:
        """``(V, G + 1)``, which add up to the gradients one after the other, and the loss, over all processes."""
        size = sum(gradient.numel() for gradient in gradients) + 1
        with torch.no_grad():
            if self._alone:
                vectors = self._of_one(size, loss)
                self._write(vectors[0], gradients, loss, 1.0)
                return vectors
            summing = self._summing_of(size, loss)
            self._write(summing.own, gradients, loss, self.weight)
            began = time.perf_counter()
            vectors = summing.total()
            self.seconds += time.perf_counter() - began
            self.losses.append(float(vectors[:, -1].sum()))
        return vectors

    def own_weight(self) -> float:
        """By which gradients of what belongs to rows of this process are multiplied."""
        return 1.0 if self._alone else self.weight

    def fail(self, num_gradients: int) -> None:
        """Take part in a step that this process could not compute: the loss is NaN for all."""
        with torch.no_grad():
            like = self._vectors if self._summing is None else self._summing.own
            summing = self._summing_of(num_gradients + 1, like)
            summing.own.fill_(torch.nan)
            summing.total()
            self.losses.append(torch.nan)

    def _write(self, vector: Tensor, gradients: Sequence[Tensor], loss: Tensor, weight: float) -> None:
        start = 0
        for gradient in gradients:
            end = start + gradient.numel()
            torch.mul(gradient, weight, out=vector[start:end].view(gradient.shape))
            start = end
        vector[start] = loss * weight

    # Memory for all steps: new pages for a long vector cost as much as adding it up.

    def _summing_of(self, size: int, like: Tensor) -> Summing:
        summing = self._summing
        if summing is None or summing.own.numel() != size or summing.own.dtype != like.dtype:
            with torch.inference_mode(False):
                self._summing = summing = self.exchange.summing(size, like)
        return summing

    def _of_one(self, size: int, like: Tensor) -> Tensor:
        shape = self.num_vectors(size, like), size
        if self._vectors.shape != shape or self._vectors.dtype != like.dtype:
            with torch.inference_mode(False):
                self._vectors = torch.zeros(shape, dtype=like.dtype, device=like.device)
        return self._vectors


def summed(reducer: Reducer, gradients: Sequence[Tensor], loss: Tensor) -> tuple[list[Tensor], Tensor]:
    """Gradients in their shapes, and the loss, over all processes, as operators of a graph."""
    sizes = [gradient.numel() for gradient in gradients]
    vectors = ALL_REDUCE(reducer.num_vectors(sum(sizes) + 1, loss), list(gradients), loss)
    *pieces, loss = vectors.sum(0).split([*sizes, 1])
    return [piece.view(gradient.shape) for piece, gradient in zip(pieces, gradients, strict=True)], loss.view(())


_ACTIVE: list[Reducer] = []  # the innermost last; who trains holds vipack's lock


def _reduce(number: int, gradients: list[Tensor], loss: Tensor) -> Tensor:
    return _ACTIVE[-1](gradients, loss)


def _shaped(number: int, gradients: list[Tensor], loss: Tensor) -> Tensor:
    return loss.new_empty(number, sum(gradient.numel() for gradient in gradients) + 1)


def _weigh(loss: Tensor) -> Tensor:
    return torch.full_like(loss, _ACTIVE[-1].own_weight())


torch.library.define("vipack::all_reduce", "(int number, Tensor[] gradients, Tensor loss) -> Tensor")
torch.library.impl("vipack::all_reduce", "CompositeExplicitAutograd", _reduce)
torch.library.register_fake("vipack::all_reduce", _shaped)
torch.library.define("vipack::own_weight", "(Tensor loss) -> Tensor")
torch.library.impl("vipack::own_weight", "CompositeExplicitAutograd", _weigh)
torch.library.register_fake("vipack::own_weight", torch.empty_like)
ALL_REDUCE = torch.ops.vipack.all_reduce.default
OWN_WEIGHT = torch.ops.vipack.own_weight.default
OPERATOR_MODULES[ALL_REDUCE] = OPERATOR_MODULES[OWN_WEIGHT] = __name__
