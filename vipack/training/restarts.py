"""Training from several starts, side by side where the program allows it, and keeping the best ELBO."""

from __future__ import annotations

import functools
import inspect
from array import array
from typing import Any

import numpy as np
from pyro.infer.autoguide import init_to_uniform

from vipack.diagnostics import elbo
from vipack.diagnostics.sources import positive
from vipack.engine.capture.tracing import CaptureError
from vipack.engine.vectorized_restarts import RestartsEngine, Start
from vipack.errors import UsageError
from vipack.training.fit_record import posterior_of_rows
from vipack.training.prepare import Prepared, Problem, prepare
from vipack.training.trainer import Plan, Trainer
from vipack.types import StopReason

__all__ = ["check_restarts", "start_of", "train_restarts"]

_DRAWS = 500  # for the ELBO that decides


def check_restarts(restarts: object, checkpoint: object) -> int:
    """
    Raises:
        UsageError: not a positive integer, or together with a checkpoint.
    """
    count = positive("restarts", restarts)
    if count > 1 and checkpoint is not None:
        raise UsageError(f"restarts={restarts}: several starts cannot be saved as they go; leave checkpoint out.")
    return count


def train_restarts(problem: Problem, first: Prepared, guide: Any, plan: Plan, optim: Any, starts: range) -> Trainer:
    """Train some starts, number r of which has the seed ``seed + r``, and keep the one with the highest ELBO.

    The first start is that of a single fit; the others begin at random points where the guide lets its beginning be
    chosen (``init_loc_fn``), and else wherever their seeds lead. Where they diverge, each is trained by itself, which
    recovers as a single fit does.
    """
    scattered = _scattered(guide)
    every = [
        prepare(problem, scattered, seed=(plan.seed + r) % 2**32, loss=first.loss, checked=first.check) if r else first
        for r in starts
    ]
    trainer = Trainer(first, plan, optim)
    try:
        engine = RestartsEngine(
            trainer.program,
            trainer.loss,
            trainer.optimizer,
            trainer.state.batches,
            [start_of(prepared) for prepared in every],
            trainer.tier,
        )
    except CaptureError as error:
        return _one_by_one(every, plan, optim, str(error))
    single, before = trainer.engine, trainer.program.parameters.state()
    trainer.engine, trainer.recovers = engine, False
    trainer.train()
    if trainer.stopped.reason is StopReason.DIVERGED:
        trainer.program.parameters.load_state(before)
        return _one_by_one(every, plan, optim, "they diverged side by side")
    trainer.recovers = True
    bounds = []
    for start in range(len(every)):
        engine.publish(start)
        bounds.append(_bound_of(trainer))
    best = int(np.argmax(bounds))
    engine.publish(best)
    trainer.state.losses = array("d", engine.losses[:, best].tolist())
    trainer.restarts = tuple(bounds)
    single.report.__dict__.update(engine.report.__dict__)
    trainer.engine = single
    return trainer


def _one_by_one(starts: list[Prepared], plan: Plan, optim: Any, reason: str) -> Trainer:
    """Starts that cannot run side by side, one after another."""
    trainers = [Trainer(prepared, plan, optim) for prepared in starts]
    for trainer in trainers:
        trainer.train()
    bounds = [_bound_of(trainer) for trainer in trainers]
    best = trainers[int(np.argmax(bounds))]
    best.restarts = tuple(bounds)
    best.engine.report.reason = f"starts were trained one after another: {reason}"
    return best


def _bound_of(trainer: Trainer) -> float:
    """The ELBO (nats) on all data; minus infinity where it is not finite."""
    posterior = posterior_of_rows(trainer.program, trainer.rows)
    value = elbo(posterior.draws(_DRAWS, seed=0).log_weights).value
    return value if np.isfinite(value) else -np.inf


def start_of(prepared: Prepared) -> Start:
    """Copies of the parameters that training begins from."""
    return {name: value.detach().clone() for name, value in prepared.program.parameters.unconstrained.items()}


def _scattered(guide: Any) -> Any:
    """`guide`, beginning at a random point where that can be chosen."""
    builder = guide.func if isinstance(guide, functools.partial) else guide
    chosen = guide.keywords if isinstance(guide, functools.partial) else {}
    if (
        isinstance(builder, type)
        and "init_loc_fn" in inspect.signature(builder).parameters
        and "init_loc_fn" not in chosen
    ):
        return functools.partial(guide, init_loc_fn=init_to_uniform)
    return guide
