"""Whole runs rather than single steps: ``python -m benchmarks.engine_problems.runs PART`` prints JSON."""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

__all__ = ["PARTS"]

PARTS = ("auto", "cold", "growth", "memory", "restarts", "loops", "first", "uncaptured")
_UNCAPTURED = (
    "item", "numpy", "random", "np.random", "counter", "history", "clock", "nn_baseline", "decaying baseline",
    "function as loss",
)  # fmt: skip
_LENGTHS = (100, 1_000, 10_000, 100_000)
_TIERS = ("auto", "eager", "traced", "interpreted", "compiled")
_LIMITS = {"eager": 1_000, "traced": 10_000}  # steps; in longer runs these are far behind the others
_ROUNDS = 3
_FIRST = (
    "eight schools, AutoNormal",
    "logistic regression 2000x50",
    "varying intercepts 10000/100",
    "marginalised LDA, 20 topics",
    "VAE batch 128",
)
_CORPUS = {"eight schools": "eight_schools", "logistic 2000x50": "logistic"}


def auto() -> Mapping[str, Any]:
    """Seconds of a fit in each tier, in processes of their own, with a cold and a warm cache."""
    found: dict[str, Any] = {}
    for title, model in _CORPUS.items():
        with tempfile.TemporaryDirectory() as warm:
            _fit_seconds(model, "interpreted", 100, warm)
            _fit_seconds(model, "compiled", 100, warm)
            for steps, cache in itertools.product(_LENGTHS, (None, warm)):
                tiers = [tier for tier in _TIERS if steps <= _LIMITS.get(tier, steps)]
                rounds: dict[str, list[float]] = {tier: [] for tier in tiers}
                for _ in range(_ROUNDS):
                    for tier in tiers:
                        rounds[tier].append(_timed(model, tier, steps, cache))
                state = "cold" if cache is None else "warm"
                found[f"{title}, {steps} steps, {state}"] = {t: statistics.median(v) for t, v in rounds.items()}
    return found


def cold() -> Mapping[str, Any]:
    """Seconds from the call to 100 compiled steps of eight schools: an empty cache, and then a second process."""
    first, second = [], []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            first.append(_fit_seconds("eight_schools", "compiled", 100, folder))
            second.append(_fit_seconds("eight_schools", "compiled", 100, folder))
    return {"eight schools": {"cold": statistics.median(first), "second process": statistics.median(second)}}


def growth() -> Mapping[str, Any]:
    """Microseconds a step as rows grow at a fixed batch, and as latents grow."""
    found: dict[str, Any] = {}
    for rows in (1_000, 10_000, 100_000, 1_000_000):
        found[f"rows {rows}, batch 100"] = {"us": 1e6 * _step_seconds(f"rows={rows}")}
    for latents in (10, 100, 1_000, 10_000, 100_000):
        seconds = _step_seconds(f"latents={latents}")
        found[f"latents {latents}"] = {"us": 1e6 * seconds, "ns a latent": 1e9 * seconds / latents}
    return found


def memory() -> Mapping[str, Any]:
    """Megabytes resident after 10,000 steps and after 200,000 more."""
    return {tier: _child("memory", tier) for tier in ("traced", "compiled")}


def restarts() -> Mapping[str, Any]:
    """Seconds of a fit from 8 starts over those of one."""
    found: dict[str, Any] = {}
    for tier, steps in (("traced", 2_000), ("compiled", 20_000), ("compiled", 200_000)):
        one = _child("restarts", tier, steps, 1)
        many = _child("restarts", tier, steps, 8)
        found[f"{tier}, {steps} steps"] = {
            "1": one["seconds"],
            "8": many["seconds"],
            "ratio": many["seconds"] / one["seconds"],
        }
    return found


def loops() -> Mapping[str, Any]:
    """Models with a loop over time: seconds of 1,000 steps by `auto`, and what it chose; plain loops and scans."""
    return {name: _child("loop", *name.split()) for name in (
        "python 50", "python 200", "python 1000", "scan 50", "scan 200", "scan 1000", "scan 2000")}  # fmt: skip


def first() -> Mapping[str, Any]:
    """The first 1,000 calls of ``vi.SVI.step`` with an empty cache, as parts of what ``pyro.infer.SVI`` takes for them."""
    found: dict[str, Any] = {}
    for name in _FIRST:
        rounds: dict[str, list[dict[str, Any]]] = {"pyro": [], "vipack": []}
        for _ in range(_ROUNDS):  # in turns, so that a slow spell of the machine meets both
            for library, results in rounds.items():
                with tempfile.TemporaryDirectory() as empty:
                    results.append(_child(name, library, 1_000, cache=empty, module="first"))
        took = {(lib, kind): [r[kind] for r in results] for lib, results in rounds.items() for kind in ("wall", "cpu")}
        medians = {key: statistics.median(values) for key, values in took.items()}
        found[name] = {kind: medians["vipack", kind] / medians["pyro", kind] for kind in ("wall", "cpu")}
        found[name] |= {"Pyro s": medians["pyro", "wall"], "steps": rounds["vipack"][0]["steps"]}
    return found


def uncaptured() -> Mapping[str, Any]:
    """Runs of ``vi.SVI`` on programs that no graph can repeat, as parts of the processor time that Pyro takes."""
    return {name: _child(name, module="uncaptured") for name in _UNCAPTURED}


def _timed(model: str, tier: str, steps: int, cache: str | None) -> float:
    """With that cache, or an empty one."""
    if cache is not None:
        return _fit_seconds(model, tier, steps, cache)
    with tempfile.TemporaryDirectory() as empty:
        return _fit_seconds(model, tier, steps, empty)


def _fit_seconds(model: str, tier: str, steps: int, folder: str) -> float:
    return float(_child("fit", model, tier, steps, cache=folder)["seconds"])


def _step_seconds(what: str) -> float:
    return float(_child("step", what)["seconds"])


def _child(*arguments: object, cache: str | None = None, module: str = "one_run") -> Any:
    environment = os.environ | ({"VIPACK_CACHE": cache} if cache else {})
    command = [sys.executable, "-m", f"benchmarks.engine_problems.{module}", *map(str, arguments)]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    print(" ".join(map(str, arguments)), finished.stdout.strip(), file=sys.stderr)
    return json.loads(finished.stdout.strip().splitlines()[-1])


def main() -> int:
    """Run one part."""
    functions = (auto, cold, growth, memory, restarts, loops, first, uncaptured)
    part = {function.__name__: function for function in functions}[sys.argv[1]]
    started = time.perf_counter()
    found = dict(part())
    print(f"{sys.argv[1]}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
