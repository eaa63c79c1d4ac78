"""Batches of documents that several processes learn topics from: one step on a batch of each, at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vipack.distributed import Processes, SumByGloo, SumInSharedMemory
from vipack.errors import DataError
from vipack.topics.word_counts import Counts

__all__ = ["Together", "batches_together"]


class WordSums:
    """Sums over all processes of arrays of one size, in memory that is kept from step to step.

    Args:
        processes: of the run.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._sum: SumByGloo | SumInSharedMemory | None = None

    def add_up(self, values: Tensor) -> None:
        """Add up `values` over all processes, in place."""
        if self._sum is None or self._sum.own.numel() != values.numel() or self._sum.own.dtype != values.dtype:
            self._sum = self._processes.summing(values.numel(), values)
        self._sum.own.view(values.shape).copy_(values)
        vectors = self._sum.total()
        torch.sum(vectors.view(len(vectors), *values.shape), 0, out=values)


@dataclass(frozen=True)
class Together:
    """One step of all processes.

    Attributes:
        processes: of the run.
        num_documents: of the batches of all.
        sums: of arrays of one entry a topic and word, for all steps.
    """

    processes: Processes
    num_documents: int
    sums: WordSums

    def add_up(self, word_sums: Tensor, bound: float) -> float:
        """See :func:`vipack.topics.ascent_steps.ascend_topics`."""
        self.sums.add_up(word_sums)
        return float(self.processes.numbers(bound).sum())

    def start(self, topics: Tensor, eta: Tensor) -> Tensor:
        """Concentrations ``(K, V)`` to start from, of the documents of all, given those of this process's documents."""
        words = topics - eta
        self.processes.sum(words)
        return eta + words

    def sum(self, values: Any) -> Any:
        """The sum of NumPy arrays over all processes."""
        total = torch.from_numpy(values).clone()
        self.processes.sum(total)
        return total.numpy()


def batches_together(
    processes: Processes, batches: Iterable[Any], read: Callable[[Any], Counts]
) -> Iterator[tuple[Counts, Together]]:
    """A batch of this process, while each other one has one of its own, until all have come to the end of theirs.

    Raises:
        DataError: on every process, where one has fewer batches than the others, or other words.
    """
    own, number, sums = iter(batches), 0, WordSums(processes)
    while True:
        with processes.busy("reading a batch"):
            batch = next(own, None)
            counts = None if batch is None else read(batch)
        rows, words = (0, 0) if counts is None else counts.matrix.shape
        every = processes.numbers(float(counts is not None), rows, words)
        with_one = every[:, 0] > 0
        if counts is None and not with_one.any():
            return
        if not with_one.all():
            rank = int((~with_one).nonzero()[0, 0])
            raise DataError(
                f"batches: process {rank} has {number}, and others have more; give every process as many, since a step takes one of "
                "each. A file may be cut off, or the documents are dealt out unevenly."
            )
        if len(set(every[:, 2].tolist())) > 1:
            raise DataError(
                f"batches: the processes have {every[:, 2].long().tolist()} words; they need the same columns."
            )
        number += 1
        assert counts is not None
        yield counts, Together(processes, int(every[:, 1].sum()), sums)
