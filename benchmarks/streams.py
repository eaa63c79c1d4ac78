"""A fit on rows read from a file next to the same fit on rows in memory: ``python -m benchmarks.streams`` (``--rows``, ``--root DIR``).

A regression on a table of float32 columns in a .npy file, minibatches of 10,000. Memory: the peak of a process that fits from
the file alone, above that of one that has imported vipack and built nothing. Speed: both fits in one process, in turns of a
second or so each, so that what else the machine does meets both; printed is the ratio of the steps that they take in a second.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoNormal

import vipack as vi

_AT_ONCE = 1_000_000
_SELF = [sys.executable, "-m", "benchmarks.streams"]


def model(table):
    weights = pyro.sample("weights", dist.Normal(torch.zeros(table.shape[1] - 1), 1.0).to_event(1))
    spread = pyro.sample("spread", dist.LogNormal(0.0, 1.0))
    with pyro.plate("rows", len(table)):
        pyro.sample("y", dist.Normal(table[:, :-1] @ weights, spread), obs=table[:, -1])


def write(path: Path, num_rows: int, num_columns: int) -> None:
    """The table, written in pieces; the last column is the response."""
    rng = np.random.default_rng(0)
    weights = np.linspace(-1, 1, num_columns - 1).astype(np.float32)
    table = np.lib.format.open_memmap(path, "w+", np.float32, (num_rows, num_columns))
    for start in range(0, num_rows, _AT_ONCE):
        count = min(_AT_ONCE, num_rows - start)
        rows = rng.standard_normal((count, num_columns), np.float32)
        rows[:, -1] = rows[:, :-1] @ weights + 0.5 * rows[:, -1]
        table[start : start + count] = rows
    table.flush()


def fit(data, batch_size: int, steps: int, engine: str) -> vi.Fit:
    return vi.fit(model, AutoNormal, data=data, batch_size=batch_size, steps=steps, engine=engine, progress=False)


def memory(path: Path, batch_size: int, steps: int, engine: str) -> None:
    """Fit from the file, and print a line of JSON."""
    before = _memory("VmRSS")
    fitted = fit(np.load(path, mmap_mode="r"), batch_size, steps, engine)
    print(
        json.dumps(
            {"import": before, "peak": _memory("VmHWM"), "seconds": fitted.seconds, "engine": fitted.engine.tier}
        )
    )


def speed(path: Path, batch_size: int, turns: int, engine: str) -> None:
    """Steps a second of both, in turns, and print a line of JSON."""
    data = {"memory": torch.from_numpy(np.load(path)), "file": vi.stream(path)}
    fits = {name: fit(rows, batch_size, 500, engine) for name, rows in data.items()}
    pace = {name: [] for name in fits}
    for _ in range(turns):
        for name, fitted in fits.items():
            count = max(100, round(500 / fitted.seconds)) if not pace[name] else max(100, round(pace[name][-1]))
            started = time.perf_counter()
            fitted.resume(steps=count)
            pace[name].append(count / (time.perf_counter() - started))
    ratios = [b / a for a, b in zip(pace["memory"], pace["file"], strict=True)]
    figures = {name: statistics.median(values) for name, values in pace.items()}
    print(json.dumps({**figures, "ratios": ratios, "engine": fits["file"].engine.tier}))


def _memory(field: str) -> float:
    """Of this process, in MB."""
    return int(re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--columns", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=3_000)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--engine", default="compiled")
    parser.add_argument("--root", type=Path, help="folder that keeps the file")
    parser.add_argument("--only", choices=("memory", "speed"))
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.path is not None:
        measure, number = (memory, chosen.steps) if chosen.only == "memory" else (speed, chosen.turns)
        measure(chosen.path, chosen.batch_size, number, chosen.engine)
        return
    with tempfile.TemporaryDirectory() as temporary:
        path = (chosen.root or Path(temporary)) / f"rows_{chosen.rows}_{chosen.columns}.npy"
        if not path.exists():
            write(path, chosen.rows, chosen.columns)
        print(
            f"{chosen.rows:,} rows of {chosen.columns} columns, {path.stat().st_size / 1e9:.1f} GB, batches of {chosen.batch_size:,}"
        )
        for only in (chosen.only,) if chosen.only else ("memory", "speed"):
            options = [
                "--path",
                str(path),
                "--only",
                only,
                "--batch-size",
                str(chosen.batch_size),
                "--engine",
                chosen.engine,
            ]
            command = [*_SELF, *options, "--steps", str(chosen.steps), "--turns", str(chosen.turns)]
            figures = json.loads(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            )
            if only == "memory":
                print(
                    f"peak {figures['peak']:.0f} MB, {figures['peak'] - figures['import']:.0f} above the import's {figures['import']:.0f}"
                )
            else:
                low, middle, high = np.quantile(figures["ratios"], [0.25, 0.5, 0.75])
                print(
                    f"{figures['engine']}: {figures['memory']:.0f} steps a second from memory, {figures['file']:.0f} from the file; ratio of "
                    f"turns {middle:.2f} ({low:.2f} to {high:.2f})"
                )


if __name__ == "__main__":
    main()
