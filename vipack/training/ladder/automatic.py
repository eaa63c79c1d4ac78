"""What a fit without a guide does: the ladder where the whole log joint can be had, one guide by SVI where it cannot."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyro.infer.autoguide as autoguide
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from pyro.poutine.util import site_is_subsample

from vipack.diagnostics import elbo
from vipack.errors import NonFiniteError, UsageError, VipackError, warn
from vipack.objectives import StickingTheLanding
from vipack.posterior import Posterior
from vipack.program import Program, seeded
from vipack.program.densities.values import unvalidated
from vipack.program.evaluation.logjoint import LogJoint
from vipack.program.running.flat import flat_priors_sampled
from vipack.program.running.runs import mixes_types, trace_prior
from vipack.training.ladder.effort import DENSE_UP_TO
from vipack.training.ladder.ladder import train_ladder
from vipack.training.ladder.rungs import Family, guide_of
from vipack.training.ladder.stages import Stage, Stages
from vipack.training.prepare import Prepared, Problem, no_guide, prepare
from vipack.training.trainer import Plan, Trainer

__all__ = ["train_without_guide"]

_LOW_RANK_UP_TO = 2_000  # dimensions; beyond it a guide by SVI has independent latents


def train_without_guide(problem: Problem, plan: Plan, *, symmetric: bool = False) -> Trainer:
    """Train the guide that suits the program best.

    Args:
        problem: without a ``dtype`` it is fitted in float64, in which stages are told apart by thousandths of a nat, unless
            the program holds float32 tensors that cannot be computed with in it.
        symmetric: as of :func:`train_ladder`.

    Raises:
        VipackError: anything wrong with model, data or options.
    """
    note, dtype = "", problem.dtype
    typed = replace(problem, dtype=torch.float64 if dtype is None else dtype)
    try:
        read = _read(typed, plan)
    except (VipackError, RuntimeError) as error:
        if dtype is not None or not mixes_types(error):
            raise
        typed, note = replace(problem, dtype=torch.float32), "; in float32, the type of tensors that the model holds"
        try:
            read = _read(typed, plan)
        except (VipackError, RuntimeError):
            raise error from error.__cause__
    for warning in read.first.check.warnings:
        warn(warning)
    if read.joint is None:
        if symmetric:
            raise UsageError(f'symmetric="all": symmetries cannot be tested here, since {read.reason}; leave it out.')
        return _by_svi(typed, read.first, plan, read.reason, note)
    return train_ladder(typed, read.joint, plan, note, symmetric=symmetric)


@dataclass(frozen=True)
class _Read:
    """A program as it was read; it has a log joint, or a reason why there is none."""

    first: Prepared
    joint: LogJoint | None
    reason: str


def _read(problem: Problem, plan: Plan) -> _Read:
    """
    Raises:
        VipackError: what is wrong with the program.
        RuntimeError: its gradient cannot be taken.
    """
    first = prepare(problem, autoguide.AutoNormal, seed=plan.seed, loss=StickingTheLanding(2))
    serious = [error for error in first.check.errors if not isinstance(error, NonFiniteError)]
    if serious:
        first.check.raise_if_bad()
    bare = Program(first.program.model, no_guide, dtype=first.rows.dtype, device=first.rows.device)
    reason = _no_ladder(first, bare)
    if reason:
        first.check.raise_if_bad()
        return _Read(first, None, reason)
    with seeded(plan.seed):
        joint = LogJoint(bare, first.rows.full())
        value = joint(joint.initial(0.05).requires_grad_(True))
        if value.requires_grad:
            value.backward()
    return _Read(first, joint, "")


def _no_ladder(first: Prepared, bare: Program) -> str:
    """Why there is no log joint of all data that depends on the latents alone; empty if there is one."""
    if first.batch_size is not None or not first.rows.indexed:
        return "minibatches show a part of log p(x, z) at a time"
    call = first.rows.full()
    with seeded(0), bare.bound(call), unvalidated(), flat_priors_sampled(), torch.no_grad():
        trace = trace_prior(bare.model, call)
    if any(
        site["type"] == "sample" and site_is_subsample(site) and len(site["value"]) < site["fn"].size
        for site in trace.nodes.values()
    ):
        return "the model draws minibatches itself"
    if bare.parameters.unconstrained:
        return "the model has parameters of its own, which are trained with the guide"
    return ""


def _by_svi(problem: Problem, first: Prepared, plan: Plan, reason: str, note: str) -> Trainer:
    started = time.perf_counter()
    table = first.check.table
    assert table is not None
    latents = table.of_kind("latent")
    size = sum(torch.Size([*site.batch_shape, *site.event_shape]).numel() for site in latents)
    local = first.batch_size is not None and any(site.plates for site in latents)
    if local or size > _LOW_RANK_UP_TO:
        family = Family("AutoNormal", size)
    elif size > DENSE_UP_TO:
        family = Family("AutoLowRankMultivariateNormal", size, rank=20)
    else:
        family = Family("AutoMultivariateNormal", size)
    loss: Any = TraceEnum_ELBO() if table.of_kind("enumerated") else Trace_ELBO()
    prepared = prepare(problem, guide_of(family), seed=plan.seed, loss=loss)
    prepared.check.raise_if_bad()
    trainer = Trainer(prepared, plan, None)
    trainer.train()
    bound = elbo(Posterior(trainer.program, trainer.rows.full()).draws(1_000, seed=plan.seed, keep=False).log_weights)
    spent = time.perf_counter() - started
    trainer.family = asdict(family)
    trainer.stages = Stages.of(
        [
            Stage("paths", None, None, 0, 0.0, False, f"skipped: {reason}"),
            Stage(
                "gaussian",
                bound,
                None,
                trainer.state.step,
                spent,
                True,
                f"{family.name}, by stochastic gradients{note}",
            ),
            Stage("flow", None, None, 0, 0.0, False, f"skipped: {reason}"),
        ]
    )
    return trainer
