"""From a user's objects to a fit on many processes, which is an ordinary one in each of them afterwards."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from vipack.distributed import DataParallel, Processes
from vipack.engine.lockstep import LockstepEngine
from vipack.errors import UsageError
from vipack.training.checkpoint import Checkpoint, clean_temporaries, read_file, unharmed
from vipack.training.data import LoadedRows, Rows
from vipack.training.distributed.row_parameters import check_optimizer, parameters_of_rows
from vipack.training.distributed.same_fit import check_same_fit
from vipack.training.distributed.shards import shard_of
from vipack.training.distributed.team import Team, fresh_batches
from vipack.training.fingerprints import compare_fingerprints
from vipack.training.own_loss import own_loss
from vipack.training.prepare import Prepared, Problem, device_of, prepare
from vipack.training.reading_data import read_data
from vipack.training.trainer import Plan, Trainer
from vipack.training.transformed import raw_rows

__all__ = ["prepare_together", "refuse_together", "train_together"]

_CURES = {"guide": "pass a guide, or leave distributed out"}


def refuse_together(**options: object) -> None:
    """
    Args:
        options: by name, what the user asked for that one process does by itself; None for what was not asked for.

    Raises:
        UsageError: there is one.
    """
    for name, value in options.items():
        if value:
            raise UsageError(f"distributed: {value}; {_CURES.get(name, f'leave {name} or distributed out')}.")


def prepare_together(problem: Problem, guide: Any, processes: Processes, *, seed: int, loss: Any) -> Prepared:
    """The program as for one process, whose steps see the rows of this one.

    Raises:
        DataError, UsageError: data that cannot be dealt out.
    """
    rows = problem.data
    if not isinstance(rows, Rows):
        rows = read_data(rows, problem.fixed, problem.dtype, device_of(problem.device))
    if isinstance(raw_rows(rows), LoadedRows):
        raise UsageError(
            "distributed: data is a DataLoader, which makes its own batches; pass its Dataset and batch_size=."
        )
    if not rows.indexed:
        raise UsageError(
            "distributed: data is an IterableDataset, whose rows come in its own order and cannot be dealt out; write them to a file "
            "and pass vipack.stream(path), or leave distributed out."
        )
    if rows.device.type != "cpu":
        raise UsageError(f"distributed: trains on CPUs, and device is {rows.device}; leave device or distributed out.")
    shard = shard_of(processes.rank, processes.size, rows.num_rows, problem.batch_size)
    read = dataclasses.replace(problem, data=rows, fixed=None, batch_size=shard.batch_size)
    prepared = prepare(read, guide, seed=seed, loss=loss)
    return dataclasses.replace(prepared, batch_size=problem.batch_size)


def train_together(
    prepared: Prepared,
    plan: Plan,
    optim: Any,
    processes: Processes,
    options: DataParallel,
) -> Trainer:
    """Train on all processes; the trainer that each of them gets has the same numbers, and is alone from then on.

    Raises:
        ProcessError: a process ended, hangs, or is about another fit.
    """
    rows, file = prepared.rows, plan.checkpoint
    shard = shard_of(processes.rank, processes.size, rows.num_rows, prepared.batch_size)
    loss = own_loss(prepared.loss, plan.seed)
    with processes.busy("reading the program"):
        of_rows = parameters_of_rows(prepared.program, loss, rows, shard.batch_size, plan.seed)
    team = Team(processes, shard, of_rows, same_noise=options.same_noise)
    if processes.rank:
        plan = dataclasses.replace(plan, progress=False)
    trainer = Trainer(prepared, plan, optim, team)
    check_optimizer(of_rows, trainer.optimizer, prepared.program)
    more = {
        "rows of parameters": sorted(of_rows),
        "same_noise": options.same_noise,
        "torch": torch.__version__,
        "tier": trainer.tier,
    }
    check_same_fit(processes, trainer, more)
    trainer.train(again=file is not None and _go_on(trainer, team, file))
    team.complete(trainer)
    if plan.tier == "auto":
        _say_if_slower(trainer, team)
    return _alone(trainer, optim, processes)


def _say_if_slower(trainer: Trainer, team: Team) -> None:
    """Let the report say where one process would have been faster, which takes at most W times what is computed here."""
    engine, size = trainer.engine, team.processes.size
    assert isinstance(engine, LockstepEngine)
    every = team.processes.numbers(engine.seconds, engine.seconds - team.reducer.seconds)
    total, computing = float(every[0, 0]), float(every[:, 1].max())
    if trainer.state.step and 0 < size * computing < total:
        each = 1e6 / trainer.state.step
        note = (
            f"{size} processes take at least {total / (size * computing):.1f} times as long as one would: of {each * total:,.0f} "
            f"microseconds a step only {each * computing:,.0f} are computing; leave distributed out, or take larger batches"
        )
        engine.report.reason = "; ".join(filter(None, [engine.report.reason, note]))


def _go_on(trainer: Trainer, team: Team, file: Checkpoint) -> bool:
    """Go on from the checkpoint, which process 0 reads, if there is one of this very fit; whether there was."""
    content = None
    if team.rank == 0:
        clean_temporaries(file.path)
        content = read_file(file.path) if Path(file.path).exists() else None
    content = team.processes.gather(content)[0]
    if content is None:
        return False
    keys = ("sites", "parameters", "dtype", "loss", "optimizer", "seed", "batch_size", "data")
    with unharmed(file.path):
        compare_fingerprints(content["fingerprint"], trainer.fingerprint(), file.path, keys)
        trainer.load_content(team.own_stand(content, trainer.plan.seed))
        assert isinstance(trainer.engine, LockstepEngine)
        tier = content.get("processes", {}).get("tier")
        if tier:
            trainer.engine.settle_on(tier)
    return True


def _alone(trainer: Trainer, optim: Any, processes: Processes) -> Trainer:
    """A trainer of this process alone with the state of the run, the same in all."""
    content = dict(trainer.content())
    content["random"] = processes.gather(trainer.state.random.state() if processes.rank == 0 else None)[0]
    content["batches"] = fresh_batches(content["batches"], trainer.plan.seed)
    plan = dataclasses.replace(trainer.plan, checkpoint=None, progress=trainer.plan.progress)
    single = Trainer(trainer.prepared, plan, optim)
    single.load_content(content)
    single.engine.report.__dict__.update(trainer.engine.report.__dict__)
    return single
