"""Latent Dirichlet allocation learned from batches on the disk, each process from documents of its own."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from vipack.topics import LDA

WORDS, TOPICS, BATCH, TOKENS = 10_000, 50, 2_048, 100
_WARM = 2  # steps in which passes are compiled and pages read


def write(folder: Path, documents: int) -> None:
    """Counts as CSR in three .npy files, some 90 different words a document, the same for every run."""
    rng = np.random.default_rng(0)
    popularity = 1.0 / np.arange(1, WORDS + 1)
    popularity /= popularity.sum()
    columns, values, ends = [], [], [0]
    for first in range(0, documents, 10_000):
        count = min(10_000, documents - first)
        drawn = rng.choice(WORDS, (count, TOKENS), p=popularity)
        rows = np.repeat(np.arange(count), TOKENS)
        block = scipy.sparse.csr_matrix((np.ones(drawn.size, np.float32), (rows, drawn.ravel())), (count, WORDS))
        columns.append(block.indices.astype(np.int32))
        values.append(block.data)
        ends += (ends[-1] + block.indptr[1:]).tolist()
    np.save(folder / "indices.npy", np.concatenate(columns))
    np.save(folder / "data.npy", np.concatenate(values))
    np.save(folder / "indptr.npy", np.array(ends))


def batches(folder: Path, size: int, rank: int, processes: int, marks: list[tuple[float, float]]) -> Iterator[Any]:
    """Rows of one process's half of the documents, read as they are asked for, in an order of its own."""
    columns, values = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("indices", "data"))
    ends = np.load(folder / "indptr.npy")
    documents = len(ends) - 1
    first, last = (documents * part // processes // size * size for part in (rank, rank + 1))
    rng = np.random.default_rng(rank)
    while True:
        for start in rng.permutation(np.arange(first, last - size + 1, size)):
            begin, end = ends[start], ends[start + size]
            marks.append((time.perf_counter(), time.process_time()))
            yield scipy.sparse.csr_matrix(
                (np.array(values[begin:end]), np.array(columns[begin:end]), ends[start : start + size + 1] - begin),
                (size, WORDS),
            )


def topics(options: argparse.Namespace) -> dict[str, tuple[Callable[[], tuple[float, float]], bool]]:
    """`options.documents` documents, 2,048 a step in all."""
    import torch.distributed

    rank = torch.distributed.get_rank()
    folder = [tempfile.mkdtemp() if rank == 0 else ""]
    if rank == 0:
        write(Path(folder[0]), options.documents)
    torch.distributed.broadcast_object_list(folder)

    def take(processes: int) -> tuple[float, float]:
        marks: list[tuple[float, float]] = []
        number = _WARM + max(5, options.steps // 20)
        every = batches(Path(folder[0]), BATCH // processes, rank if processes > 1 else 0, processes, marks)
        some = (batch for batch, _ in zip(every, range(number + 1), strict=False))
        model = LDA(TOPICS, total_documents=options.documents)
        model.fit_batches(some, distributed=processes > 1)
        wall, cpu = (marks[number][k] - marks[_WARM][k] for k in (0, 1))
        return wall / (number - _WARM), cpu / (number - _WARM)

    return {"one process": (lambda: take(1), False), "two processes": (lambda: take(2), True)}
