"""A fit in the making: program, data, engine and optimizer together, which can train, be saved and go on."""

from __future__ import annotations

import copy
import functools
import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vipack.engine.optimizers.fit_optimizer import make_optimizer, unused
from vipack.engine.steps.contracts import Engine, EngineMaker, Tier
from vipack.entry import entry
from vipack.errors import DivergenceWarning, GuideError, OptimizerError, warn
from vipack.pickling import check_picklable
from vipack.program import RandomState, seeded
from vipack.program.checks.observed import check_observed
from vipack.training.averaging import Average
from vipack.training.callbacks import Callback, Every
from vipack.training.checkpoint import Checkpoint, write_file
from vipack.training.collapse_check import View, collapse_check
from vipack.training.data import Rows
from vipack.training.distributed.team import Team
from vipack.training.engines import make_engine, settled_tier, trained_by
from vipack.training.ladder.stages import Stages
from vipack.training.loop import Run, RunState
from vipack.training.own_loss import own_loss
from vipack.training.prepare import Prepared
from vipack.training.recovery import ATTEMPTS, Exploding, slower
from vipack.training.stopping import Converged, SmallGain, StopRule, TimeLimit
from vipack.training.training_batches import training_batches
from vipack.training.transformed import TransformedRows, plain_transforms, transformed_loss
from vipack.training.validation import EarlyStopping, Validation, ValidationPoint
from vipack.types import Stopped, StopReason

__all__ = ["Plan", "Trainer"]

_LIKELY_STEPS = 5_000  # of a run without a number of steps, for deciding which engine pays
MAX_STEPS = 20_000  # of a run that is to end when it has converged
_COOLING_SHARE = 0.5  # of the steps before, spent with a falling learning rate after convergence


@dataclass(frozen=True)
class Plan:
    """How long to train and what happens meanwhile.

    Attributes:
        steps: total; None trains until converged.
        label: of the progress bar.
        average: end with the mean of the later iterates.
        rate: the default optimizer's learning rate where it is not its own.
        validation: observations held out, whose ELBO is evaluated along the run.
    """

    steps: int | None
    seed: int
    rules: tuple[StopRule, ...]
    callbacks: tuple[Callback, ...]
    progress: bool | None
    checkpoint: Checkpoint | None
    tier: Tier | EngineMaker = "auto"
    label: str = ""
    average: bool = False
    rate: float | None = None
    validation: Rows | None = None


class Trainer:
    """Trains a prepared program by a plan."""

    def __init__(self, prepared: Prepared, plan: Plan, optim: Any, team: Team | None = None) -> None:
        self.team = team  # the processes of the run, where there are several
        self.prepared = prepared
        self.plan = plan
        self.program = prepared.program
        self.rows = prepared.rows
        self.loss = transformed_loss(own_loss(prepared.loss, plan.seed), self.rows)
        self._optim, self.optim_name = optim, trained_by(plan.tier, optim)
        # That of a file, where another one is at hand: name and state.
        self._missing_optimizer: tuple[str, Any] | None = None
        self.optimizer = make_optimizer(optim, self.program.parameters, plan.steps, plan.rate)
        num_steps = MAX_STEPS if plan.steps is None else plan.steps
        self.tier = settled_tier(plan.tier, num_steps, saved=plan.checkpoint is not None or team is not None)
        self.engine = self._make_engine()
        observe, shard = functools.partial(check_observed, self.program), team.shard if team else None
        self.state = RunState(
            RandomState.from_seed(plan.seed) if team is None else team.random(plan.seed),
            training_batches(self.rows, prepared.batch_size, self.loss, plan.seed, observe, shard=shard),
        )
        self.state.stopped = Stopped(StopReason.STEPS, "0 steps")
        self.restarts: tuple[float, ...] = ()  # the ELBO (nats) of each start, where there were several
        self.stages = Stages()  # of the ladder, where there was no guide, and
        self.family: dict[str, Any] | None = None  # what makes the guide that it found
        self.ends: tuple[Tensor, Tensor] | None = None  # of its paths, on R^D, and the widths there
        self._average: Average | None = None
        self.recovers = True  # from divergences; False where several starts are under way
        self._slowed = 0  # times that the learning rate was lowered after a divergence
        self._settled: Stopped | None = None  # why the learning rate began to fall, and
        self._cooling_end: int | None = None  # at which step it will have fallen
        self._collapse = collapse_check(prepared, plan.steps or _LIKELY_STEPS)
        self._validation: tuple[Validation, int] | None = None
        if plan.validation is not None:
            validation = Validation(self.program, plan.validation, plan.seed)
            self._validation = validation, validation.period(self.state.batches.per_epoch, prepared.batch_size)

    @entry
    def __getstate__(self) -> dict[str, Any]:
        """What a file holds, with what is passed to read it; callbacks and rules of the user's own are of this process."""
        check_picklable(loss=self.prepared.loss, optim=unused(self._optim), data=self.rows)
        return self._pickled()

    @entry
    def __setstate__(self, state: dict[str, Any]) -> None:
        Trainer.__init__(self, state["prepared"], state["plan"], state["optim"])
        self.load_content(state["content"])
        self.restarts = state["restarts"]
        self.engine.report.__dict__.update(state["report"].__dict__)

    @entry
    def __deepcopy__(self, memo: dict[int, Any]) -> Trainer:
        memo[id(self)] = own = Trainer.__new__(Trainer)
        own.__setstate__(copy.deepcopy(self._pickled(), memo))
        return own

    def _pickled(self) -> dict[str, Any]:
        rules = tuple(
            rule for rule in self.plan.rules if isinstance(rule, Converged | EarlyStopping | SmallGain | TimeLimit)
        )
        return {
            "prepared": self.prepared,
            "plan": replace(self.plan, rules=rules, callbacks=(), checkpoint=None),
            "optim": unused(self._optim),
            "content": self.content(),
            "restarts": self.restarts,
            "report": self.engine.report,
        }

    @property
    def stopped(self) -> Stopped:
        """Why the last run ended."""
        return self.state.stopped or Stopped(StopReason.INTERRUPTED, f"cut off after {self.state.step} steps")

    def train(self, *, again: bool = False) -> None:
        """Go on to the end of the plan.

        Args:
            again: the same fit was started once more: a run that had ended has nothing left to do.

        Raises:
            NonFiniteError: the first step has no finite loss.
            GuideError: there is nothing to train.
        """
        if again and self.stopped.reason in (StopReason.CALLBACK, StopReason.EARLY):
            self._restore_best()
            return
        look_first = again or self.stopped.reason is StopReason.INTERRUPTED
        if self.plan.steps is not None:
            self._average_from(self.plan.steps // 2)
            self.train_until(self.plan.steps, self.plan.rules, look_first=look_first)
            return
        if not isinstance(self.plan.tier, str):  # no learning rate is to fall
            self.train_until(MAX_STEPS, self.plan.rules or (SmallGain(),), look_first=look_first)
            return
        others = tuple(rule for rule in self.plan.rules if not isinstance(rule, Converged))
        if self._cooling_end is None:
            rules = self.plan.rules if len(others) < len(self.plan.rules) else (Converged(), *others)
            self.train_until(MAX_STEPS, rules, look_first=look_first)
            if self.stopped.reason not in (StopReason.CONVERGED, StopReason.STEPS):
                return
            length = math.ceil(_COOLING_SHARE * self.state.step)
            if not self.optimizer.cool(self.state.step, length):
                return
            self._settled, self._cooling_end = self.stopped, self.state.step + length
            self._average_from(self.state.step)
            look_first = False
        self.train_until(self._cooling_end, others, look_first=look_first)
        settled = self._settled
        if self.stopped.reason is StopReason.STEPS and settled is not None and settled.reason is StopReason.CONVERGED:
            self.state.stopped = settled

    def train_further(self, num_steps: int) -> None:
        """Take `num_steps` more; beyond the end of the plan the default learning rate starts to fall anew."""
        end = self._cooling_end if self.plan.steps is None else self.plan.steps
        if end is not None and self.state.step >= end:
            self.optimizer.cool(self.state.step, num_steps)
            self._average = None
            self._average_from(self.state.step + num_steps // 2)
        self.train_until(self.state.step + num_steps, self.plan.rules)

    def wind_up(self, num_steps: int) -> None:
        """End a run that has settled before its time: the learning rate falls over `num_steps`, whose later iterates are averaged."""
        settled, start = self.stopped, self.state.step
        self.plan = replace(self.plan, steps=start + num_steps)
        self.optimizer.cool(start, num_steps)
        self._average = None
        self._average_from(start + num_steps // 2)
        self.train_until(start + num_steps, self.plan.rules)
        if self.stopped.reason is StopReason.STEPS:
            self.state.stopped = settled

    def train_until(self, last_step: int, rules: tuple[StopRule, ...], *, look_first: bool = False) -> None:
        """Train until `last_step` steps are done in all, or something ends the run before.

        After a divergence the default optimizer goes on from the best state with a smaller learning rate.

        Warns:
            DivergenceWarning: the run diverged for good.
        """
        if last_step > self.state.step and self._missing_optimizer is not None:
            raise OptimizerError(
                f"the fit was trained with the optimizer {self._missing_optimizer[0]}, and {self.optim_name} is at hand: to train "
                "further, pass the former as optim= to vipack.load, or as engine= if it is one."
            )
        if last_step > self.state.step and not self.program.parameters.unconstrained:
            raise GuideError(
                "the guide and the model have no parameters, so there is nothing to train; declare some with pyro.param, "
                "or pass steps=0 to evaluate the guide as it is."
            )
        self._run(last_step, rules, look_first=look_first)
        if not self.recovers and self.stopped.reason is StopReason.DIVERGED:
            return
        while self.stopped.reason is StopReason.DIVERGED and self._slow_down(last_step):
            self._run(last_step, rules)
        if self.stopped.reason is StopReason.DIVERGED:
            self._go_to_best()
            warn(
                DivergenceWarning(
                    f"{self.stopped.detail}, the best finite state; lower the learning rate or clip gradients."
                )
            )
        elif self.stopped.reason is StopReason.STEPS and self._average is not None:
            self._average.install(self.program.parameters)
        self._restore_best()

    def _run(self, last_step: int, rules: tuple[StopRule, ...], *, look_first: bool = False) -> None:
        callbacks = self.plan.callbacks
        if self._average is not None:
            callbacks = (*callbacks, Every(self._average.period, self._average))
        if self._collapse is not None:
            callbacks = (*callbacks, self._collapse)
        if self.optim_name == "default":
            rules = (*rules, Exploding())
        run = Run(
            engine=self.engine,
            expected_steps=self.plan.steps or _LIKELY_STEPS,
            parameters=self.program.parameters,
            rules=rules,
            callbacks=callbacks,
            progress=self.plan.progress,
            checkpoint=self.plan.checkpoint,
            save=self._save_checkpoint,
            label=self.plan.label,
            validation=self._validation,
            team=self.team,
            view=View(self.program, self.rows, self.optimizer),
        )
        run(self.state, last_step, look_first=look_first)

    def _restore_best(self) -> None:
        """End with the best evaluation's state where a rule says so, unless the run is to go on."""
        wanted = any(isinstance(rule, EarlyStopping) and rule.restore_best for rule in self.plan.rules)
        best = self.state.best_valid
        if not wanted or best is None or self._validation is None or self.stopped.reason is StopReason.INTERRUPTED:
            return
        if self._validation[0]().value < max(point.elbo for point in self.state.validation):
            self.program.parameters.load_state(best)

    def _average_from(self, step: int) -> None:
        if self.plan.average and self._average is None:
            self._average = Average(step)

    def _go_to_best(self) -> None:
        assert self.state.best is not None
        self.program.parameters.load_state(self.state.best)

    def _slow_down(self, last_step: int) -> bool:
        """Go back to the best state with a smaller learning rate; False where that has been tried enough, or is the user's."""
        if self.optim_name != "default" or self._slowed == ATTEMPTS or self.state.step >= last_step:
            return False
        self._slowed += 1
        self._go_to_best()
        self.optimizer = slower(self.optimizer, self.program.parameters)
        report = self.engine.report
        self.engine = self._make_engine()
        self.engine.report.steps.update(report.steps)
        if self._average is not None:
            self._average = Average(max(self._average.start, (self.state.step + last_step) // 2))
        return True

    def _make_engine(self) -> Engine:
        reducer = None if self.team is None else self.team.reducer
        return make_engine(self.plan.tier, self.program, self.loss, self.optimizer, self.tier, reducer)

    def content(self) -> dict[str, Any]:
        """Everything but the data that a file needs to go on bit for bit."""
        return {
            "fingerprint": self.fingerprint(),
            "tier": [self.tier, self.engine.report.tier],
            "state": self.program.parameters.state(),
            "optimizer": self.optimizer.state() if self._missing_optimizer is None else self._missing_optimizer[1],
            "random": self.state.random.state(),
            "batches": self.state.batches.state(),
            "losses": torch.tensor(self.state.losses, dtype=torch.float64),
            "seconds": self.state.seconds,
            "best": self.state.best,
            "best_loss": self.state.best_loss,
            "best_step": self.state.best_step,
            "settled": None if self._settled is None else [self._settled.reason.name, self._settled.detail],
            "cooling_end": self._cooling_end,
            "planned_steps": self.plan.steps,
            "batch_plate": self.program.batch_plate.name if self.program.batch_plate else None,
            "stopped": [self.stopped.reason.name, self.stopped.detail],
            "engine_steps": dict(self.engine.report.steps),
            "average": None if self._average is None else self._average.state(),
            "slowed": self._slowed,
            "validation": [list(point) for point in self.state.validation],
            "best_valid": self.state.best_valid,
            "transforms": plain_transforms(self.rows.transforms) if isinstance(self.rows, TransformedRows) else {},
            "early_stopping": [
                [rule.patience, rule.min_delta, rule.restore_best]
                for rule in self.plan.rules
                if isinstance(rule, EarlyStopping)
            ],
            "family": self.family,
            "stages": self.stages.plain(),
            "ends": None if self.ends is None else list(self.ends),
        }

    def load_content(self, content: Mapping[str, Any]) -> None:
        """Take up the state of :meth:`content`."""
        self.program.parameters.load_state(content["state"])
        self._load_optimizer(content)
        self.state.random = RandomState.from_state(content["random"])
        with seeded(0):  # the batches of the epoch so far are made again, by a data set that may draw random numbers
            self.state.batches.load_state(content["batches"])
        self.state.losses = array("d", content["losses"].tolist())
        self.state.seconds = content["seconds"]
        self.state.best = content["best"]
        self.state.best_loss, self.state.best_step = content["best_loss"], content["best_step"]
        self._cooling_end = content["cooling_end"]
        average = content.get("average")
        self._average = None if average is None else Average.from_state(average)
        self._slowed = content.get("slowed", 0)
        self.state.validation = [ValidationPoint(*point) for point in content.get("validation", ())]
        self.state.best_valid = content.get("best_valid")
        self.family, self.stages = content.get("family"), Stages.from_plain(content.get("stages", []))
        ends = content.get("ends")
        self.ends = None if ends is None else (ends[0], ends[1])
        self._settled = _stopped_of(content["settled"])
        self.state.stopped = _stopped_of(content["stopped"])
        self.engine.report.steps.update(content["engine_steps"])
        settled, running = content["tier"]
        if self.plan.tier == "auto":
            self.tier = settled
            self.engine.go_on(settled, running)

    def _load_optimizer(self, content: Mapping[str, Any]) -> None:
        """The optimizer's state, or, where it is of another optimizer than this one, a note that it is missing."""
        saved, kind = content["fingerprint"]["optimizer"], content["optimizer"]["kind"]
        if kind == self.optimizer.state()["kind"] and (self.optim_name == saved or self.optim_name != "default"):
            try:
                self.optimizer.load_state(content["optimizer"])
                return
            except (KeyError, ValueError, TypeError, IndexError):
                if self.optim_name == saved:
                    raise
        self._missing_optimizer = saved, content["optimizer"]

    def fingerprint(self) -> dict[str, Any]:
        """What a file must agree with to be this fit's: sites, parameters, and how it was trained."""
        table = self.prepared.check.table
        sites = [] if table is None else [[s.name, s.kind, s.distribution, list(s.plates)] for s in table]
        return {
            "sites": sites,
            "parameters": {n: list(v.shape) for n, v in sorted(self.program.parameters.unconstrained.items())},
            "dtype": str(self.rows.dtype),
            "loss": type(self.prepared.loss).__name__,
            "optimizer": self.optim_name if self._missing_optimizer is None else self._missing_optimizer[0],
            "seed": self.plan.seed,
            "batch_size": self.prepared.batch_size,
            "data": self.rows.fingerprint(),
        }

    def _save_checkpoint(self) -> None:
        assert self.plan.checkpoint is not None
        write = functools.partial(write_file, self.plan.checkpoint.path)
        write(self.content()) if self.team is None else self.team.save(self, write)


def _stopped_of(saved: Sequence[str] | None) -> Stopped | None:
    return None if saved is None else Stopped(StopReason[saved[0]], saved[1])
