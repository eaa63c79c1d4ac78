"""Variational simulation-based calibration: one guide fitted to many simulated data sets, side by side."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vipack.diagnostics.calibration import Calibration, calibration
from vipack.diagnostics.moments import columns_of, columns_of_sets
from vipack.diagnostics.rounding import constant
from vipack.diagnostics.sources import positive
from vipack.distributed import (
    DataParallel,
    Processes,
    alone_or_together,
    check_alike,
    data_parallel_of,
    shared_out,
    started_processes,
)
from vipack.engine.capture.capture import tensors_of
from vipack.engine.capture.tracing import CaptureError
from vipack.engine.steps.contracts import Tier
from vipack.engine.vectorized_restarts import RestartsEngine
from vipack.entry import training_entry
from vipack.errors import DataError
from vipack.posterior import Posterior
from vipack.program import Arguments, Program, seeded
from vipack.program.evaluation.simulation import simulate
from vipack.training.arrays import fingerprint_of
from vipack.training.prepare import Prepared, Problem, prepare
from vipack.training.restarts import start_of
from vipack.training.scheduled import refuse_schedules
from vipack.training.trainer import Plan, Trainer

__all__ = ["vsbc"]

_MOST_COPIES = 50  # fits side by side, whose noise is drawn together; so few that several processes have some to do


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
    distributed: bool | DataParallel | None = None,
) -> Calibration:
    """Draw parameters and data from the model, fit the guide to each data set, and see where the parameters fall.

    The fits run side by side in one graph where the program allows it, and else one after another.

    Args:
        model, guide, data, fixed, steps, loss, optim, seed, engine, dtype: as of :func:`vipack.fit`; of `data` the observed
            arrays give their shapes alone, and all others, such as covariates, are kept.
        num_simulations: M; 200 show a spread that is off by a fifth.
        num_draws: of each fit, by which ``P_q(theta < true theta)`` is counted.
        distributed: True, or a ``DataParallel``, deals the simulations out to the processes that ``torchrun`` has started; every
            process gets the answer that one would have found.

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
    processes = started_processes(data_parallel_of(distributed))
    with alone_or_together(processes):
        prepared = prepare(problem, guide, seed=seed, loss=loss)
        prepared.check.raise_if_bad()
        simulations = _simulated(prepared, num_simulations, seed)
        if processes is not None:
            _check_alike(processes, prepared, simulations, seed=seed, steps=steps, num_draws=num_draws)
        plan = Plan(steps, seed, (), (), False, None, engine)

        def answers(blocks: Sequence[range]) -> list[tuple[list[dict[str, float]], str]]:
            every: list[tuple[list[dict[str, float]], str]] = []
            for block in blocks:
                own = simulations.of(block)
                # Each block has training noise of its own, and each fit draws: errors that all share would look like a bias.
                noise = replace(plan, seed=(seed + block.start) % 2**32)
                fits, how = _trained(problem, guide, prepared, noise, optim, own)
                table = [
                    _probabilities(Posterior(fit(), call), truth, num_draws, (seed + number) % 2**32)
                    for number, fit, call, truth in zip(block, fits, own.calls, own.truths, strict=True)
                ]
                every.append((table, how))
            return every

        answered = shared_out(processes, _blocks(num_simulations), answers, "fitting to simulated data")
    rows, how = [row for table, _ in answered for row in table], answered[-1][1]
    # Where every fit and every truth has the same value there is nothing to calibrate.
    names = tuple(name for name in rows[0] if not all(np.isnan(row[name]) for row in rows))
    table = np.array([[0.5 if np.isnan(row[name]) else row[name] for name in names] for row in rows])
    return calibration(names, table, seconds=time.perf_counter() - started, engine=how)


Fit = Callable[[], Program]


class _Simulations(NamedTuple):
    """Data sets from the model.

    Attributes:
        truths: the latents of each, and
        calls: its data.
        stacked: those of the calls' tensors that differ, by index, with a dimension for the simulations.
    """

    truths: list[dict[str, Tensor]]
    calls: list[Arguments]
    stacked: dict[int, Tensor]

    def of(self, numbers: Sequence[int]) -> _Simulations:
        """Some of them, one after another."""
        chosen = slice(numbers[0], numbers[-1] + 1)
        stacked = {index: values[chosen] for index, values in self.stacked.items()}
        return _Simulations(self.truths[chosen], self.calls[chosen], stacked)


def _blocks(number: int) -> list[range]:
    """Simulations that run side by side, the same however many processes there are."""
    bounds = np.linspace(0, number, -(-number // _MOST_COPIES) + 1).astype(int).tolist()
    return [range(first, end) for first, end in itertools.pairwise(bounds)]


def _check_alike(processes: Processes, prepared: Prepared, simulations: _Simulations, **options: int) -> None:
    """
    Raises:
        ProcessError: on every process, where they are about other simulations.
    """
    named = [(str(index), values) for index, values in simulations.stacked.items()]
    own = {**options, "values": prepared.program.parameters.digest(), "data": fingerprint_of(named)}
    phrases = {
        "data": "the simulated data differ, as where the model or the data are others there",
        "values": "the parameters begin from different values",
        "seed": "the seeds differ",
    }
    check_alike(processes, own, phrases, about="calibration", cure="Every process must run the same script.")


def _trained(
    problem: Problem,
    guide: Any,
    prepared: Prepared,
    plan: Plan,
    optim: Any,
    simulations: _Simulations,
) -> tuple[list[Fit], str]:
    """For each data set what gives its fit, and how they are trained: side by side where they can be."""
    calls = simulations.calls
    trainer = Trainer(prepare(problem, guide, seed=plan.seed, loss=prepared.loss), plan, optim)
    try:
        engine = RestartsEngine(
            trainer.program,
            trainer.loss,
            trainer.optimizer,
            trainer.state.batches,
            [start_of(prepared)] * len(calls),
            trainer.tier,
            simulations.stacked,
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


def _simulated(prepared: Prepared, count: int, seed: int) -> _Simulations:
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
    return _Simulations(truths, calls, {index: torch.stack(values) for index, values in simulated.items()})


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
