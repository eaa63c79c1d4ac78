"""Where data parallelism stops to pay, by the alpha-beta model: ``python -m benchmarks.scale costs``.

A step of W processes on B rows in all takes

    max(B / W * a + f, B / W * b / bandwidth of the disk) + all-reduce of n bytes,

with `a` seconds of arithmetic a row and `f` of what does not depend on rows. An all-reduce takes ``2 (W - 1) alpha + 2 n (W - 1) / W / beta`` in
a ring and ``2 ceil(log2 W) (alpha + n / beta)`` in a tree; the faster one is taken. `alpha` (seconds a message) and `beta` (bytes a second) are
fitted to all-reduces of 1 KB to 16 MB between the two processes of this run, which is the loopback address; for a cluster figures of a
10 Gbit/s network are computed with beside them (alpha 50 microseconds, beta 1.25e9). `a` and `f` are measured by steps of two sizes in one process.
All that concerns more than two processes is computed, not measured.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed

SIZES = (1 << 10, 1 << 14, 1 << 18, 1 << 21, 1 << 24)  # bytes
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_000)
CLUSTER = (50e-6, 1.25e9)
DISK = 1e9  # bytes a second, for each process


@dataclass(frozen=True)
class Work:
    """What a step costs.

    Attributes:
        batch: rows of a step over all processes.
        arithmetic: seconds a row, and
        fixed: seconds a step.
        reduced: bytes that are added up.
        read: bytes a row from the disk.
    """

    batch: int
    arithmetic: float
    fixed: float
    reduced: float
    read: float

    def seconds(self, workers: int, alpha: float, beta: float) -> float:
        """Of a step of so many processes; those beyond a row each have nothing to do."""
        rows = math.ceil(self.batch / workers)
        return max(rows * self.arithmetic + self.fixed, rows * self.read / DISK) + all_reduce(
            workers, self.reduced, alpha, beta
        )


def all_reduce(workers: int, size: float, alpha: float, beta: float) -> float:
    """Seconds; see the module."""
    if workers == 1:
        return 0.0
    ring = 2 * (workers - 1) * alpha + 2 * size * (workers - 1) / workers / beta
    tree = 2 * math.ceil(math.log2(workers)) * (alpha + size / beta)
    return min(ring, tree)


def measured_network(repeats: int = 30) -> tuple[float, float]:
    """alpha and beta by least squares of medians, relative errors weighted alike."""
    rows, seconds = [], []
    for size in SIZES:
        flat = torch.zeros(size // 4)
        taken = []
        for _ in range(repeats):
            torch.distributed.barrier()
            began = time.perf_counter()
            torch.distributed.all_reduce(flat)
            taken.append(time.perf_counter() - began)
        rows.append([2.0, float(size)])  # of two processes
        seconds.append(statistics.median(taken))
    weighted = np.array(rows) / np.array(seconds)[:, None]
    (alpha, per_byte), *_ = np.linalg.lstsq(weighted, np.ones(len(rows)), rcond=None)
    return max(alpha, 1e-6), 1 / max(per_byte, 1e-12)


def works(arithmetic: Mapping[str, tuple[float, float]]) -> dict[str, Work]:
    """The benchmark's models, given seconds a row and a step of each."""
    vae = 4.0 * (784 * 400 + 400 * 400 + 400 * 100 + 50 * 400 + 400 * 400 + 400 * 784 + 4 * 400 + 100 + 784)
    shapes = {
        "vae": (256, vae, 784.0),
        "regression": (20_000, 4 * 100.0, 200.0),
        "topics": (2_048, 4 * 10_000 * 50.0, 8 * 90.0),
    }
    measured = {name: shapes[name] for name in arithmetic}
    return {name: Work(batch, *arithmetic[name], reduced, read) for name, (batch, reduced, read) in measured.items()}


def table(work: Work, alpha: float, beta: float) -> list[tuple[int, float]]:
    """How many times as fast as one process, by the number of processes."""
    one = work.seconds(1, alpha, beta)
    return [(workers, one / work.seconds(workers, alpha, beta)) for workers in WORKERS]


def report(arithmetic: Mapping[str, tuple[float, float]], network: tuple[float, float]) -> None:
    """Print all tables."""
    print(f"loopback, fitted: alpha {1e6 * network[0]:.0f} us, beta {network[1] / 1e9:.2f} GB/s")
    for name, work in works(arithmetic).items():
        print(
            f"{name}: {1e6 * work.arithmetic:.2f} us a row, {1e6 * work.fixed:.0f} us a step, {work.reduced / 1e6:.2f} MB added up, "
            f"{work.read:.0f} bytes a row"
        )
        for label, (alpha, beta) in (("loopback", network), ("10 Gbit/s", CLUSTER)):
            for batches in (1, 64):
                larger = Work(batches * work.batch, work.arithmetic, work.fixed, work.reduced, work.read)
                speeds = table(larger, alpha, beta)
                best = max(speeds, key=lambda each: each[1])
                shown = "  ".join(f"{workers}: {speed:.1f}" for workers, speed in speeds)
                print(f"  {label:10} batch {larger.batch:>9,}: best {best[1]:6.1f} times at {best[0]:>5,}  | {shown}")
