"""The first steps of one problem in a process of its own: ``python -m benchmarks.engine_problems.first PROBLEM LIBRARY STEPS``."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pyro
import torch
from pyro.infer import SVI, TraceMeanField_ELBO

import vipack as vi
from benchmarks.engine_problems import problems, vae
from benchmarks.engine_problems.problem import LEARNING_RATE

__all__: list[str] = []


def _parts(name: str) -> tuple[Any, Any, Any, Iterator[tuple[torch.Tensor, ...]]]:
    """Model, guide, loss, and the arguments of each step."""
    if name.startswith("VAE"):
        torch.manual_seed(0)
        network = vae.Network()
        batches = vae.batches(torch.from_numpy(vae.images(None)), int(name.rsplit(" ", 1)[1]))
        return network.model, network.guide, TraceMeanField_ELBO(), ((x,) for x in batches)
    problem = problems()[name]
    args = tuple(map(torch.from_numpy, problem.arrays))
    return *problem.pyro(), iter(lambda: args, None)


def measure(name: str, library: str, steps: int) -> dict[str, Any]:
    """Seconds of wall and processor time, from the constructor to the last step."""
    model, guide, loss, arguments = _parts(name)
    pyro.set_rng_seed(0)
    make: Callable[..., Any] = SVI if library == "pyro" else vi.SVI
    wall, cpu = time.perf_counter(), time.process_time()
    svi = make(model, guide, pyro.optim.Adam({"lr": LEARNING_RATE}), loss)
    for _ in range(steps):
        svi.step(*next(arguments))
    found = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    return found | ({"steps": dict(svi.engine.steps)} if library != "pyro" else {})


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    print(json.dumps(measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
