"""One run in a process of its own, for :mod:`benchmarks.engine_problems.runs`; prints JSON."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import warnings
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import plate, sample
from pyro.infer.autoguide import AutoNormal

import vipack as vi
from benchmarks.engine_problems import problems

_NAMES = {"eight_schools": "eight schools, AutoNormal", "logistic": "logistic regression 2000x50"}


def fit(model: str, tier: str, steps: str) -> dict[str, Any]:
    """Seconds that the call of vi.fit takes."""
    problem = problems()[_NAMES[model]]
    program, _, _ = problem.pyro()
    arrays = tuple(torch.from_numpy(a) for a in problem.arrays)
    started = time.perf_counter()
    found = vi.fit(program, AutoNormal, data=arrays, steps=int(steps), engine=tier, progress=False)
    return {"seconds": time.perf_counter() - started, "tier": found.engine.tier, "reason": found.engine.reason}


def step(what: str) -> dict[str, Any]:
    """Seconds a compiled step of a model of some size."""
    name, number = what.split("=")
    program, data, batch = _regression(int(number)) if name == "rows" else _means(int(number))
    found = vi.fit(program, AutoNormal, data=data, steps=50, engine="compiled", progress=False, batch_size=batch)
    steps = 20_000 if name == "rows" else max(200, 20_000_000 // (500 + int(number)))
    found.resume(steps=steps // 4)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        found.resume(steps=steps)
        times.append((time.perf_counter() - started) / steps)
    return {"seconds": sorted(times)[2], "tier": found.engine.tier}


def memory(tier: str) -> dict[str, Any]:
    """Megabytes resident, before and after 200,000 steps."""
    problem = problems()[_NAMES["eight_schools"]]
    pyro.set_rng_seed(0)
    model, guide, loss = problem.pyro()
    args = tuple(torch.from_numpy(a) for a in problem.arrays)
    svi = vi.SVI(model, guide, pyro.optim.Adam({"lr": 0.001}), loss, engine=tier)
    svi.run(10_000, *args)
    before = _resident()
    for _ in range(20):
        svi.run(10_000, *args)
    return {"tier": svi.engine.tier, "before MB": before, "growth MB": _resident() - before}


def restarts(tier: str, steps: str, number: str) -> dict[str, Any]:
    """Seconds of a fit from so many starts."""
    problem = problems()[_NAMES["eight_schools"]]
    program, _, _ = problem.pyro()
    arrays = tuple(torch.from_numpy(a) for a in problem.arrays)
    warnings.filterwarnings("ignore")
    arguments: dict[str, Any] = {"data": arrays, "steps": int(steps), "engine": tier, "progress": False}
    vi.fit(program, AutoNormal, restarts=int(number), **arguments)  # fills the cache
    times = []
    for _ in range(3):
        started = time.perf_counter()
        vi.fit(program, AutoNormal, restarts=int(number), **arguments)
        times.append(time.perf_counter() - started)
    return {"seconds": sorted(times)[1]}


def loop(kind: str, length: str) -> dict[str, Any]:
    """Seconds of 1,000 steps by `auto` of a GARCH model, its recursion a Python loop or a scan."""
    from benchmarks.engine_problems import recursions

    model = recursions.garch_loop if kind == "python" else recursions.garch_scan
    y = recursions.returns(int(length))
    started = time.perf_counter()
    found = vi.fit(model, AutoNormal, data=y, steps=1_000, progress=False)
    return {
        "seconds": time.perf_counter() - started,
        "steps": dict(found.engine.steps),
        "capture": found.engine.capture_seconds,
        "compile": found.engine.compile_seconds,
        "reason": found.engine.reason,
    }


def _regression(rows: int) -> Any:
    x = torch.randn(rows, 5)
    y = x @ torch.ones(5) + torch.randn(rows)

    def model(x: torch.Tensor, y: torch.Tensor) -> None:
        beta = sample("beta", dist.Normal(torch.zeros(5), 1.0).to_event(1))
        with plate("rows", len(x)):
            sample("y", dist.Normal(x @ beta, 1.0), obs=y)

    return model, (x, y), 100


def _means(latents: int) -> Any:
    y = torch.randn(latents)

    def model(y: torch.Tensor) -> None:
        with plate("rows", len(y)):
            z = sample("z", dist.Normal(torch.zeros(()), torch.ones(())))
            sample("y", dist.Normal(z, 1.0), obs=y)

    return model, y, None


def _resident() -> float:
    if os.path.exists("/proc/self/statm"):
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    warnings.filterwarnings("ignore")
    print(
        json.dumps(
            {"fit": fit, "step": step, "memory": memory, "restarts": restarts, "loop": loop}[sys.argv[1]](*sys.argv[2:])
        )
    )
