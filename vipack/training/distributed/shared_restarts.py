"""Starts of one fit, shared out among processes: each trains some on all rows, and all get the best."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from vipack.distributed import Processes, own_stretch
from vipack.training.distributed.same_fit import check_same_fit
from vipack.training.prepare import Prepared, Problem
from vipack.training.restarts import train_restarts
from vipack.training.trainer import Plan, Trainer

__all__ = ["share_restarts"]


def share_restarts(
    problem: Problem, first: Prepared, guide: Any, plan: Plan, optim: Any, restarts: int, processes: Processes
) -> Trainer:
    """Train `restarts` starts, of seeds ``seed, seed + 1, ...``, and keep the one with the highest ELBO, in every process.

    The starts of one process run side by side as those of :func:`vipack.training.restarts.train_restarts` do, on the same
    batches and random numbers in each process.

    Raises:
        ProcessError: a process ended, hangs, or is about another fit.
    """
    check_same_fit(processes, Trainer(first, plan, optim), {"restarts": restarts})
    own = own_stretch(processes, restarts)
    trainer = None
    if own:
        visible = plan if processes.rank == 0 else dataclasses.replace(plan, progress=False)
        with processes.busy("training starts"):
            trainer = train_restarts(problem, first, guide, visible, optim, own)
    return _best(trainer, first, plan, optim, processes)


def _best(trainer: Trainer | None, first: Prepared, plan: Plan, optim: Any, processes: Processes) -> Trainer:
    """A trainer with the state of the best start, the same in every process."""
    bounds = processes.gather(() if trainer is None else trainer.restarts)
    owner = max(range(processes.size), key=lambda rank: max(bounds[rank], default=-np.inf))
    content = report = None
    if processes.rank == owner and trainer is not None:
        content, report = trainer.content(), trainer.engine.report
    content, report = processes.gather((content, report))[owner]
    best = Trainer(first, plan, optim)
    best.load_content(content)
    best.engine.report.__dict__.update(report.__dict__)
    best.restarts = tuple(bound for of_one in bounds for bound in of_one)
    return best
