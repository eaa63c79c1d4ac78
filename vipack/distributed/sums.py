"""The sum of a long vector over the processes of a run: through memory that they share on one machine, else by gloo.

Gloo moves every number through the network stack, also between two processes of one machine. Where they share memory, each
writes its own vector there and reads those of the others, once gloo has passed on that all are written.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["SumByGloo", "SumInSharedMemory", "num_vectors", "share_memory", "sum_in_shared_memory"]

_FOLDER = Path("/dev/shm")  # files here are memory
_FEWEST_BYTES = 1 << 18  # of a vector; gloo passes on a shorter one as soon as it passes on that it is there
_MOST_PROCESSES = 16  # each of which reads the vectors of all, where gloo's ring moves two at most


class SumByGloo:
    """By ``torch.distributed.all_reduce``, in place; the other vectors stay zero.

    Attributes:
        own: ``(size,)``, where this process writes before each call of :meth:`total`.
    """

    def __init__(self, processes: Any, vectors: Tensor) -> None:
        self._processes, self._vectors, self.own = processes, vectors, vectors[0]

    def total(self) -> Tensor:
        """``(V, size)``, vectors that add up to the sum over all processes."""
        self._processes.sum(self.own)
        return self._vectors


class SumInSharedMemory:
    """By reading the vectors of all processes, once each has said that its own is written.

    There are two vectors for each process, written by turns: while a slower process still reads those of a step, the others
    write those of the next; none comes to the step after it before all have written these.

    Args:
        vectors: ``(2, W, size)`` in memory of all processes.

    Attributes:
        own: ``(size,)``, where this process writes before each call of :meth:`total`; another memory after it.
    """

    def __init__(self, processes: Any, vectors: Tensor) -> None:
        self._processes, self._vectors, self._turn = processes, vectors, 0
        self._written = torch.zeros(1)
        self.own = vectors[0, processes.rank]

    def total(self) -> Tensor:
        """``(W, size)``, vectors that add up to the sum over all processes, the same in each."""
        self._processes.sum(self._written)
        vectors = self._vectors[self._turn]
        self._turn = 1 - self._turn
        self.own = self._vectors[self._turn, self._processes.rank]
        return vectors


def share_memory(processes: Any) -> bool:
    """Whether all processes, which call it together, run on one machine and can share memory there."""
    if processes.size > _MOST_PROCESSES:
        return False
    return _shared(processes, 2, torch.float64) is not None


def num_vectors(processes: Any, num_bytes: int) -> int:
    """How many vectors their sum is given as, for a vector of so many bytes."""
    return processes.size if processes.shares_memory and num_bytes >= _FEWEST_BYTES else 1


def sum_in_shared_memory(processes: Any, size: int, dtype: torch.dtype) -> SumInSharedMemory | None:
    """None where there is too little memory; all processes call it together."""
    vectors = _shared(processes, 2 * processes.size * size, dtype)
    return None if vectors is None else SumInSharedMemory(processes, vectors.view(2, processes.size, size))


def _shared(processes: Any, length: int, dtype: torch.dtype) -> Tensor | None:
    path, secret = "", os.urandom(16)
    if processes.rank == 0:
        with contextlib.suppress(OSError):
            path = _new_file(length * dtype.itemsize, secret)
    try:
        path, secret = processes.gather((path, secret))[0]
        vectors = _opened(path, secret, length, dtype) if path else None
        everywhere = all(processes.gather(vectors is not None))
    finally:
        if processes.rank == 0 and path:
            with contextlib.suppress(OSError):
                os.unlink(path)  # the memory stays until the last process lets it go, however that ends
    return vectors if everywhere else None


def _new_file(num_bytes: int, secret: bytes) -> str:
    """Memory that is there, and not only promised.

    Raises:
        OSError: there is no such folder, or too little memory in it.
    """
    descriptor, path = tempfile.mkstemp(prefix="vipack-sum-", dir=_FOLDER)
    try:
        os.posix_fallocate(descriptor, 0, num_bytes)
        os.pwrite(descriptor, secret, 0)
    except OSError:
        os.unlink(path)
        raise
    finally:
        os.close(descriptor)
    return path


def _opened(path: str, secret: bytes, length: int, dtype: torch.dtype) -> Tensor | None:
    """None where it is not the file of process 0: on another machine there is none, or somebody else's."""
    try:
        with open(path, "rb") as file:
            if file.read(len(secret)) != secret:
                return None
        return torch.from_file(path, shared=True, size=length, dtype=dtype)
    except (OSError, RuntimeError):
        return None
