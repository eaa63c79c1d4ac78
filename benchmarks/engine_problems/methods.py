"""Ways to take steps on a full-data problem: vipack's tiers and its peers, each a function of a number of steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.optim
import torch
from pyro.infer import SVI as PyroSVI
from pyro.infer import JitTrace_ELBO

import vipack as vi
from benchmarks.engine_problems.placement import default_type, finish
from benchmarks.engine_problems.problem import LEARNING_RATE, Problem

__all__ = ["Run", "methods"]

Run = Callable[[int], None]  # takes so many steps


def methods(problem: Problem, device: str = "cpu") -> dict[str, Callable[[], Run]]:
    """Name -> what sets it up, compiles it and returns the stepper."""
    tiers = ("compiled", "interpreted", "traced")
    found: dict[str, Callable[[], Run]] = {f"vipack {tier}": _tier(problem, tier, device) for tier in tiers}
    found["vipack SVI.step"] = lambda: _stepwise(problem, device)
    found["Pyro SVI"] = lambda: _pyro(problem, device, jit=False)
    if problem.jit:
        found["Pyro JitTrace_ELBO"] = lambda: _pyro(problem, device, jit=True)
    found["NumPyro scan"] = lambda: _numpyro(problem)
    return found


def _tier(problem: Problem, tier: str, device: str) -> Callable[[], Run]:
    def make() -> Run:
        svi, args = _svi(problem, tier, device)
        with torch.device(device):
            svi.run(10, *args)
        if svi.engine.tier != tier:
            raise RuntimeError(f"{problem.name}: asked for {tier}, ran {svi.engine.tier}: {svi.engine.reason}")

        def run(steps: int) -> None:
            with torch.device(device):
                svi.run(steps, *args)

        return run

    return make


def _stepwise(problem: Problem, device: str) -> Run:
    svi, args = _svi(problem, "compiled", device)

    def run(steps: int) -> None:
        with default_type(device):
            for _ in range(steps):
                svi.step(*args)

    with torch.device(device):
        svi.run(10, *args)
    return run


def _svi(problem: Problem, tier: str, device: str) -> tuple[Any, tuple[torch.Tensor, ...]]:
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    model, guide, loss = problem.pyro()
    args = tuple(torch.from_numpy(a).to(device) for a in problem.arrays)
    with torch.device(device):
        guide(*args)
    svi = vi.SVI(model, guide, pyro.optim.Adam({"lr": LEARNING_RATE}), loss, engine=tier)
    return svi, args


def _pyro(problem: Problem, device: str, *, jit: bool) -> Run:
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    model, guide, loss = problem.pyro()
    args = tuple(torch.from_numpy(a).to(device) for a in problem.arrays)
    with default_type(device):
        guide(*args)
        svi = PyroSVI(model, guide, pyro.optim.Adam({"lr": LEARNING_RATE}), JitTrace_ELBO() if jit else loss)
        svi.step(*args)

    def run(steps: int) -> None:
        with default_type(device):
            for _ in range(steps):
                svi.step(*args)
            finish(device)

    return run


def _numpyro(problem: Problem) -> Run:
    import functools

    import jax
    import numpyro
    from numpyro.infer import SVI as NumPyroSVI

    model, guide, loss = problem.numpyro()
    args = tuple(jax.numpy.asarray(a) for a in problem.arrays)
    svi = NumPyroSVI(model, guide, numpyro.optim.Adam(LEARNING_RATE), loss)
    state = svi.init(jax.random.PRNGKey(0), *args)

    @functools.partial(jax.jit, static_argnums=1)
    def scan(state: Any, steps: int) -> Any:
        return jax.lax.scan(lambda carry, _: svi.update(carry, *args), state, None, length=steps)

    held = [state]

    def run(steps: int) -> None:
        held[0], losses = scan(held[0], steps)
        losses.block_until_ready()

    return run
