"""Time one problem's methods in this process, on so many threads: ``python -m benchmarks.engine_problems.measure``."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any


def main() -> int:
    """Print one line of JSON: for each method, seconds to set up and seconds a step."""
    parser = argparse.ArgumentParser()
    parser.add_argument("problem")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.3, help="that one turn of one method takes")
    parser.add_argument("--methods", default="", help="only those whose names hold one of these, by commas")
    parser.add_argument("--root", type=Path)
    options = parser.parse_args()
    if options.device == "cpu":
        _pin(options.threads)
        os.environ["JAX_PLATFORMS"] = "cpu"
    else:
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the card is shared with torch
    print(json.dumps(_measure(options)))
    return 0


def _pin(threads: int) -> None:
    """Before torch and jax are imported: both size their pools by the processors that they find."""
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    import warnings

    import torch

    warnings.filterwarnings("ignore")
    if options.device == "cpu":
        torch.set_num_threads(options.threads)
    else:
        torch.set_float32_matmul_precision("high")  # products in TF32 for all alike: JAX takes no other by default
    wanted = [w for w in options.methods.split(",") if w]
    makers = {n: m for n, m in _methods(options).items() if not wanted or any(w in n for w in wanted)}
    runs, found = {}, {}
    for name, make in makers.items():
        started = time.perf_counter()
        try:
            run = make()
            run(2)
        except Exception as error:  # a method that is not to be had here does not cost the others their figures
            found[name] = {"reason": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
            print(f"  {name}: {found[name]['reason']}", file=sys.stderr)
            continue
        found[name] = {"setup": time.perf_counter() - started}
        steps = _calibrated(run, options.seconds)
        run(steps)  # scans are compiled anew for each length
        runs[name] = (run, steps)
        print(f"  {name}: {steps} steps a turn", file=sys.stderr)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.rounds):  # interleaved, so that a slow spell of the machine meets all alike
        for name, (run, steps) in runs.items():
            started = time.perf_counter()
            run(steps)
            times[name].append((time.perf_counter() - started) / steps)
    for name, values in times.items():
        found[name] |= {"step": statistics.median(values), "low": min(values), "high": max(values)}
    return found


def _methods(options: argparse.Namespace) -> Any:
    from benchmarks.engine_problems import problems

    if options.problem.startswith("VAE"):
        from benchmarks.engine_problems import vae

        return vae.methods(vae.images(options.root), int(options.problem.rsplit(" ", 1)[1]), options.device)
    from benchmarks.engine_problems import methods

    return methods.methods(problems()[options.problem], options.device)


def _calibrated(run: Any, seconds: float) -> int:
    steps = 4
    while True:
        run(steps)
        started = time.perf_counter()
        run(steps)
        took = time.perf_counter() - started
        if took >= seconds / 4 or steps >= 2_000_000:
            return max(2, int(steps * seconds / took))
        steps *= 4


if __name__ == "__main__":
    sys.exit(main())
