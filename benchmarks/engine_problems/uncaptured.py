"""Programs that no graph can repeat, under vipack and under Pyro: ``python -m benchmarks.engine_problems.uncaptured KIND``.

Both take turns of 50 steps in one process. Processor time, and wall time beside it.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO, TraceGraph_ELBO

import vipack as vi

__all__ = ["KINDS"]

_SHORT, _LONG, _TURN = 400, 5_000, 50
_LIBRARIES = {
    "pyro": SVI,
    "vipack": vi.SVI,
}  # looked up here, since vipack imports what a name needs when it is asked for
_Y = torch.randn(50, generator=torch.Generator().manual_seed(0))

Parts = tuple[Callable[..., None], Callable[..., None], Any]  # model, guide, loss


def _weighted(make: Callable[[], Callable[[torch.Tensor], float]]) -> Callable[[str], Parts]:
    def parts(own: str) -> Parts:
        weight = make()

        def model(y: torch.Tensor) -> None:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.plate("row", len(y)):
                pyro.sample("y", dist.Normal(weight(z) * z, 1.0), obs=y)

        def guide(y: torch.Tensor) -> None:
            loc = pyro.param(f"loc_{own}", torch.tensor(0.5))
            scale = pyro.param(f"scale_{own}", torch.tensor(0.5), constraint=dist.constraints.positive)
            pyro.sample("z", dist.Normal(loc, scale))

        return model, guide, Trace_ELBO()

    return parts


def _counter() -> Callable[[torch.Tensor], float]:
    count = [0]

    def weight(_: torch.Tensor) -> float:
        count[0] += 1
        return min(1.0, count[0] / 40)

    return weight


def _history() -> Callable[[torch.Tensor], float]:
    seen: list[float] = []

    def weight(z: torch.Tensor) -> float:
        seen.append(z.item())
        return 1.0

    return weight


def _numpy_random() -> Callable[[torch.Tensor], float]:
    generator = np.random.default_rng(0)
    return lambda _: float(generator.uniform())


def _discrete(own: str, baseline: Callable[[], dict[str, Any]]) -> Parts:
    def model(y: torch.Tensor) -> None:
        k = pyro.sample("k", dist.Bernoulli(0.4))
        with pyro.plate("row", len(y)):
            pyro.sample("y", dist.Normal(2 * k - 1.0, 1.0), obs=y)

    def guide(y: torch.Tensor) -> None:
        logit = pyro.param(f"logit_{own}", torch.tensor(0.0))
        pyro.sample("k", dist.Bernoulli(logits=logit), infer={"baseline": baseline()})

    return model, guide, TraceGraph_ELBO()


def _nn_baseline(own: str) -> Parts:
    net = torch.nn.Linear(2, 1)

    def baseline() -> dict[str, Any]:
        pyro.module(f"net_{own}", net)
        return {"nn_baseline": lambda value: net(value).sum(), "nn_baseline_input": torch.ones(2)}

    return _discrete(own, baseline)


def _function_loss(own: str) -> Parts:
    model, guide, _ = _weighted(lambda: lambda _: 1.0)(own)
    return model, guide, lambda *args: Trace_ELBO().differentiable_loss(*args)


KINDS: dict[str, Callable[[str], Parts]] = {
    "item": _weighted(lambda: lambda z: 1 + abs(z.item())),
    "numpy": _weighted(lambda: lambda z: 1.0 + float(np.abs(z.detach().numpy()))),
    "random": _weighted(lambda: lambda _: random.random()),
    "np.random": _weighted(_numpy_random),
    "counter": _weighted(_counter),
    "history": _weighted(_history),
    "clock": _weighted(lambda: lambda _: 1.0 + 0.0 * time.time()),
    "nn_baseline": _nn_baseline,
    "decaying baseline": lambda own: _discrete(own, lambda: {"use_decaying_avg_baseline": True}),
    "function as loss": _function_loss,
}


class _Turns:
    """Steps of one library, and the seconds that each turn took."""

    def __init__(self, kind: str, library: str, number: int) -> None:
        self.cpu: list[float] = []
        self.wall: list[float] = []
        started = time.process_time(), time.perf_counter()
        model, guide, loss = KINDS[kind](f"{library}_{number}")
        self.svi = _LIBRARIES[library](model, guide, pyro.optim.Adam({"lr": 0.01}), loss)
        self._note(*started)

    def take(self) -> None:
        started = time.process_time(), time.perf_counter()
        for _ in range(_TURN):
            self.svi.step(_Y)
        self._note(*started)

    def _note(self, cpu: float, wall: float) -> None:
        self.cpu.append(time.process_time() - cpu)
        self.wall.append(time.perf_counter() - wall)


def measure(kind: str) -> dict[str, Any]:
    """Time under vipack as parts of that under Pyro: a first run of 400 steps, later ones, and one of 5,000."""
    for _ in range(2):  # what Pyro and torch import at their first steps is no part of the figures
        _Turns("history", "pyro", -1).take()
    cold = _pair(kind, 0, _SHORT)
    warm = [_pair(kind, number, _SHORT) for number in (1, 2, 3)]
    long = _pair(kind, 4, _LONG)
    later = slice(1 + _LONG // _TURN // 2, None)
    steady = [own / peer for own, peer in zip(long[1].cpu[later], long[0].cpu[later], strict=True)]
    return {
        "cold 400": _ratio(cold),
        "warm 400": statistics.median(map(_ratio, warm)),
        "5000": _ratio(long),
        "5000, wall": sum(long[1].wall) / sum(long[0].wall),
        "steady": statistics.median(steady),
        "us": 1e6 * statistics.median(long[0].cpu[later]) / _TURN,
        "tier": long[1].svi.engine.tier,
    }


def _pair(kind: str, number: int, steps: int) -> tuple[_Turns, _Turns]:
    peer, own = _Turns(kind, "pyro", number), _Turns(kind, "vipack", number)
    for turn in range(steps // _TURN):
        for each in (peer, own) if turn % 2 else (own, peer):
            each.take()
    return peer, own


def _ratio(pair: tuple[_Turns, _Turns]) -> float:
    return sum(pair[1].cpu) / sum(pair[0].cpu)


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    print(json.dumps(measure(sys.argv[1])))
