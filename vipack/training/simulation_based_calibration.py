"""Variational simulation-based calibration: one guide fitted to many simulated data sets, side by side."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vipack.diagnostics.calibration import Calibration, calibration
from vipack.diagnostics.moments import columns_of, columns_of_sets
from vipack.diagnostics.rounding import constant
from vipack.diagnostics.sources import positive
from vipack.engine.capture.capture import tensors_of
from vipack.engine.capture.tracing import CaptureError
from vipack.engine.steps.contracts import Tier
from vipack.engine.vectorized_restarts import RestartsEngine
from vipack.entry import training_entry
from vipack.errors import DataError
from vipack.posterior import Posterior
from vipack.program import Arguments, Program, seeded
from vipack.program.evaluation.simulation import simulate
from vipack.training.prepare import Prepared, Problem, prepare
from vipack.training.restarts import start_of
from vipack.training.scheduled import refuse_schedules
from vipack.training.trainer import Plan, Trainer

__all__ = ["vsbc"]

_MOST_COPIES = 256  # fits side by side; more run in rounds


@training_entry
def vsbc(
    model: Callable[..., Any],
    guide: Any,
    *,
    data: Any,
    fixed: Mapping[str, Any] | None = None,
    steps: int = 1_000,
    num_simulations: int = 200,
    num_draws: int = 1_000,
    loss: Any = None,
    optim: Any = None,
    seed: int = 0,
    engine: Tier = "auto",
    dtype: torch.dtype | None = None,
) -> Calibration:
    """Draw parameters and data from the model, fit the guide to each data set, and see where the parameters fall.

    The fits run side by side in one graph where the program allows it, and else one after another.

    Args:
        model, guide, data, fixed, steps, loss, optim, seed, engine, dtype: as of :func:`vipack.fit`; of `data` the observed
            arrays give their shapes alone, and all others, such as covariates, are kept.
        num_simulations: M; 200 show a spread that is off by a fifth.
        num_draws: of each fit, by which ``P_q(theta < true theta)`` is counted.

    Raises:
        UsageError: a number is out of range.
        DataError: an observed site's value is computed from the data, so that simulated values cannot replace it.
        ModelError: a prior is improper.
        VipackError: whatever :func:`vipack.fit` raises.

    Source: Yao, Vehtari, Simpson, Gelman (2018), arXiv:1802.02538, algorithm 2.
    """
    started = time.perf_counter()
    positive("num_simulations", num_simulations, 20)
    positive("num_draws", num_draws, 50)
    positive("steps", steps, 0)
    refuse_schedules(fixed, "simulation-based calibration")
    problem = Problem(model, data, fixed, dtype=dtype)
    prepared = prepare(problem, guide, seed=seed, loss=loss)
    prepared.check.raise_if_bad()
    truths, calls, stacked = _simulated(prepared, num_simulations, seed)
    plan = Plan(steps, seed, (), (), False, None, engine)
    rows: list[dict[str, float]] = []
    how = ""
    for first in range(0, num_simulations, _MOST_COPIES):
        block = slice(first, first + _MOST_COPIES)
        data_of_block = {index: values[block] for index, values in stacked.items()}
        fits, how = _trained(problem, guide, prepared, plan, optim, data_of_block, calls[block])
        for fit, call, truth in zip(fits, calls[block], truths[block], strict=True):
            # Each fit has draws of its own: errors that all share would look like a bias.
            rows.append(_probabilities(Posterior(fit(), call), truth, num_draws, (seed + len(rows)) % 2**32))
    # Where every fit and every truth has the same value there is nothing to calibrate.
    names = tuple(name for name in rows[0] if not all(np.isnan(row[name]) for row in rows))
    table = np.array([[0.5 if np.isnan(row[name]) else row[name] for name in names] for row in rows])
    return calibration(names, table, seconds=time.perf_counter() - started, engine=how)


Fit = Callable[[], Program]


def _trained(
    problem: Problem,
    guide: Any,
    prepared: Prepared,
    plan: Plan,
    optim: Any,
    stacked: Mapping[int, Tensor],
    calls: list[Arguments],
) -> tuple[list[Fit], str]:
    """For each data set what gives its fit, and how they are trained: side by side where they can be."""
    trainer = Trainer(prepare(problem, guide, seed=plan.seed, loss=prepared.loss), plan, optim)
    try:
        engine = RestartsEngine(
            trainer.program,
            trainer.loss,
            trainer.optimizer,
            trainer.state.batches,
            [start_of(prepared)] * len(calls),
            trainer.tier,
            stacked,
        )
    except CaptureError as error:
        alone: list[Fit] = [
            functools.partial(_alone, problem, guide, prepared.loss, plan, optim, call) for call in calls
        ]
        return alone, f"one after another: {error}"
    trainer.engine = engine
    trainer.train()

    def publish(copy: int) -> Program:
        engine.publish(copy)
        return trainer.program

    return [functools.partial(publish, copy) for copy in range(len(calls))], f"side by side ({engine.report.tier})"


def _alone(problem: Problem, guide: Any, loss: Any, plan: Plan, optim: Any, call: Arguments) -> Program:
    data = call.kwargs if not call.args else call.args
    own = replace(problem, data=data, fixed=call.kwargs if call.args else None)
    prepared = prepare(own, guide, seed=plan.seed, loss=loss)
    trainer = Trainer(prepared, plan, optim)
    trainer.train()
    return trainer.program


def _simulated(
    prepared: Prepared, count: int, seed: int
) -> tuple[list[dict[str, Tensor]], list[Arguments], dict[int, Tensor]]:
    """True latents and calls of each simulation, and the tensors that differ, stacked, by index."""
    program, arguments = prepared.program, prepared.rows.full()
    tensors, rebuild = tensors_of(arguments)
    truths, calls = [], []
    simulated: dict[int, list[Tensor]] = {}
    indices: dict[str, int] | None = None
    with seeded(seed):
        for _ in range(count):
            latents, observed = simulate(program, arguments)
            if indices is None:
                indices = _indices_of(program, arguments, tensors, observed)
            filled = list(tensors)
            for name, index in indices.items():
                filled[index] = observed[name].reshape(tensors[index].shape).to(tensors[index].dtype)
                simulated.setdefault(index, []).append(filled[index])
            truths.append(latents)
            calls.append(rebuild(filled))
    return truths, calls, {index: torch.stack(values) for index, values in simulated.items()}


def _indices_of(
    program: Program, arguments: Arguments, tensors: list[Tensor], observed: Mapping[str, Tensor]
) -> dict[str, int]:
    """Which tensor of the data each observed site takes as it is."""
    posterior = Posterior(program, arguments)
    indices = {}
    for name in observed:
        value = posterior.observed[name]
        same = [i for i, tensor in enumerate(tensors) if tensor is value or tensor.data_ptr() == value.data_ptr()]
        same = [i for i in same if tensors[i].numel() == value.numel()]
        if not same:
            raise DataError(
                f"site {name!r}: its observed value is not one of the tensors in data= but computed from them, so that "
                "simulated values cannot replace it; pass it as an argument of its own, as in obs=y."
            )
        indices[name] = same[0]
    return indices


def _probabilities(posterior: Posterior, truth: Mapping[str, Tensor], num_draws: int, seed: int) -> dict[str, float]:
    """``P_q(theta < true theta)`` of each element; NaN where all draws are the truth, as a Cholesky factor's zeros are."""
    draws = columns_of_sets([posterior.draws(num_draws, seed=seed, densities=False)])
    # Discrete latents that are summed out have a true value, but no draws of the guide.
    given = columns_of({name: value[None] for name, value in truth.items()})
    column = {name: i for i, name in enumerate(given.names)}
    if not set(draws.names) <= set(column):
        raise DataError(f"the guide's latents {draws.names} are not the model's {given.names}.")
    true = given.values[:, [column[name] for name in draws.names]]
    below = (draws.values < true).mean(0)
    below[constant(np.concatenate([draws.values, true]), draws.rounding)] = np.nan
    return dict(zip(draws.names, map(float, below), strict=True))
