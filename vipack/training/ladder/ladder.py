"""Fit without a guide: paths of ascent, a Gaussian, a flow, each kept only when the ELBO rises beyond its noise."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from vipack.diagnostics.peaks import ends_of
from vipack.diagnostics.proper import improper
from vipack.errors import ModelError, NonFiniteError, VipackError
from vipack.importance import mean_and_se
from vipack.posterior import Posterior
from vipack.program import seeded
from vipack.program.evaluation.ascent import climb
from vipack.program.evaluation.logjoint import LogJoint
from vipack.progress import ProgressBar, interrupts
from vipack.training.ladder.candidates import Gaussian, best_on_paths
from vipack.training.ladder.effort import DENSE_UP_TO, effort_for
from vipack.training.ladder.joining import join_copies, join_modes, more_ends
from vipack.training.ladder.rungs import Family, Rung, polish, train_rung
from vipack.training.ladder.stages import Stage, Stages
from vipack.training.ladder.surface import Surface
from vipack.training.ladder.weighted_gaussian import match_moments
from vipack.training.prepare import Problem
from vipack.training.stopping import TimeLimit
from vipack.training.trainer import Plan, Trainer
from vipack.types import Estimate, Stopped, StopReason

__all__ = ["train_ladder"]

_MEMORY = 30  # pairs of L-BFGS
_RADII = (2.0, 2.0, 0.5, 0.05)  # of the cubes in which starts are looked for, one after the other
_KHAT, _SHARE = 0.5, 0.96  # of the worst of four blocks, beyond which tails are mended
_EVEN = 0.99  # of the draws: a k-hat of weights this even says nothing
_NOTHING_LEFT = "the weights are even: nothing left to gain"
_ENDING = (StopReason.INTERRUPTED, StopReason.CALLBACK, StopReason.TIME)


def train_ladder(problem: Problem, joint: LogJoint, plan: Plan, note: str = "", *, symmetric: bool = False) -> Trainer:
    """The trainer of the best rung, with ``trainer.stages`` telling what each gained.

    Args:
        joint: of all data.
        note: what to add to the account of the first stage.
        symmetric: whether the guide is to hold all copies that symmetries of the posterior make.

    Raises:
        NonFiniteError: log p(x, z) is no number at every start.
    """
    return _Ladder(problem, joint, plan, note, symmetric).climbed()


class _Ladder:
    def __init__(self, problem: Problem, joint: LogJoint, plan: Plan, note: str, symmetric: bool) -> None:
        self._symmetric = symmetric
        self._problem = problem
        self._note_on_types = note
        self._plan = plan
        self._surface = Surface(joint)
        self._started = time.perf_counter()
        self._stages: list[Stage] = []
        self._ended: Stopped | None = None
        self._ends: tuple[Tensor, Tensor] | None = None
        with seeded(plan.seed):
            self._effort = effort_for(self._surface)

    def climbed(self) -> Trainer:
        effort = self._effort
        candidate, bound, num_steps = self._candidate()
        best = self._first_rung(candidate, bound, num_steps)
        dim = self._surface.dim
        if effort.dense:
            family = Family("gaussian", dim)
        else:
            family = Family("low-rank", dim, effort.rank) if effort.rank else Family("diagonal", dim)
        stages = ("gaussian", "flow")
        if self._ended is None and best.excellent():
            return self._finished(best, stages, _NOTHING_LEFT)
        if effort.by_draws:
            self._skip("gaussian", "a gradient of this model's long program is dear")
        else:
            best = self._try(
                "gaussian", family, best, effort.gaussian_steps, effort.gaussian_draws, effort.gaussian_rate
            )
        if not effort.dense:
            return self._finished(best, stages[1:], f"{dim} unconstrained dimensions are too many for one")
        if self._ended is None and best.excellent():
            return self._finished(best, stages[1:], _NOTHING_LEFT)
        if dim == 1 and self._ended is None:
            return self._finished(best, stages[1:], "coupling needs two dimensions")
        spared = "" if self._ended is not None else best.spared()
        if spared:
            return self._finished(best, stages[1:], spared)
        best = self._try("flow", Family("flow", dim), best, effort.flow_steps, effort.flow_draws, effort.flow_rate)
        return self._finished(self._polished(best))

    def _finished(self, best: Rung, left_out: tuple[str, ...] = (), reason: str = "") -> Trainer:
        for name in left_out:
            self._skip(name, reason)
        trainer = self._joined(best).trainer
        trainer.stages, trainer.ends = Stages.of(self._stages), self._ends
        trainer.family = asdict(self._family)
        trainer.state.seconds = time.perf_counter() - self._started
        if self._ended is not None:
            trainer.state.stopped = self._ended
        elif not trainer.state.step:  # the paths, and what is fitted by draws, take no steps of the trainer's
            trainer.state.stopped = Stopped(StopReason.STEPS, f"the ladder's: {trainer.stages.path}")
        return trainer

    # --- stage 0

    def _candidate(self) -> tuple[Gaussian, Estimate, int]:
        """The best Gaussian on the paths, its ELBO, and the steps that the paths took."""
        effort = self._effort
        bar = ProgressBar(effort.path_steps, 0, self._plan.progress, "paths")
        try:
            with interrupts() as interrupted, seeded(self._plan.seed):

                def go_on() -> bool:
                    bar.advance()
                    return not interrupted and self._left() > 0

                starts = _starts(self._surface, effort.num_starts)
                paths = climb(self._surface.gradients, starts, memory=_MEMORY, num_steps=effort.path_steps, go_on=go_on)
                self._ends = ends_of(paths)
                candidate, bound = best_on_paths(self._surface, paths, memory=_MEMORY, dense=effort.dense)
                self._check_proper(candidate)
                if effort.dense:
                    candidate, bound = match_moments(self._surface, candidate, bound)
                if interrupted:
                    self._ended = Stopped(StopReason.INTERRUPTED, "Ctrl-C on the paths of ascent")
        finally:
            bar.close()
        return candidate, bound, max(len(path.points) for path in paths) - 1

    def _check_proper(self, candidate: Gaussian) -> None:
        why = improper(self._surface.values, candidate.loc, candidate.factor, self._surface.joint.shapes)
        if why:
            raise ModelError(why)

    def _first_rung(self, candidate: Gaussian, bound: Estimate, steps: int) -> Rung:
        effort, dim = self._effort, self._surface.dim
        rung = self._rung(Family("gaussian" if effort.dense else "diagonal", dim), candidate, "paths", 0, 2)
        why = f"the best Gaussian of {effort.num_starts} paths{self._note_on_types}"
        self._note("paths", bound, None, steps, self._started, True, why)
        return rung

    # --- the stages after it

    def _try(self, name: str, family: Family, best: Rung, steps: int, draws: int, rate: float) -> Rung:
        if self._ended is not None:
            self._skip(name, f"the run had ended ({self._ended.reason.value})")
            return best
        started = time.perf_counter()
        try:
            new = self._rung(family, best.gaussian(), name, steps, draws, rate)
        except NonFiniteError as error:
            self._note(name, None, None, 0, started, False, f"could not start: {error}")
            return best
        if new.trainer.stopped.reason in _ENDING:
            self._ended = new.trainer.stopped
        gain = mean_and_se(new.log_weights - best.log_weights)
        kept = gain.value > gain.se
        why = "the ELBO rose by more than its standard error" if kept else "no gain beyond its standard error"
        if new.trainer.stopped.reason is StopReason.CONVERGED:
            why += f"; ended early: {new.trainer.stopped.detail}"
        self._note(name, mean_and_se(new.log_weights), gain, new.steps, started, kept, why)
        return new if kept else best

    def _polished(self, best: Rung) -> Rung:
        """Mend thin tails, which the ELBO hardly sees and importance weights suffer from."""
        if self._ended is not None or best.family.name != "flow":
            return best
        khat, share = best.tail()
        if share > _EVEN or (khat < _KHAT and share > _SHARE):
            self._skip(
                "polish", f"tails are thick enough (k-hat {khat:.2f}, ESS {share:.1%}, the worst of four blocks)"
            )
            return best
        started = time.perf_counter()
        before = best.trainer.program.parameters.state()
        new = polish(best, self._surface, self._effort.polish_steps)
        new_khat, new_share = new.tail()
        kept = new_share > share and new_khat < max(khat, _KHAT)
        if not kept:
            best.trainer.program.parameters.load_state(before)
        gain = mean_and_se(new.log_weights - best.log_weights)
        why = f"k-hat {khat:.2f} -> {new_khat:.2f}, ESS {share:.1%} -> {new_share:.1%} (the worst of four blocks)"
        self._note("polish", mean_and_se(new.log_weights), gain, new.steps, started, kept, why)
        return new if kept else best

    def _joined(self, best: Rung) -> Rung:
        """Modes that matter beside that of the best rung, and copies where they are asked for."""
        if (
            self._ended is None
            and self._surface.vectorized
            and self._surface.dim <= DENSE_UP_TO
            and not self._effort.by_draws
        ):
            best = self._kept_if_better("mixture", best, lambda: self._with_other_modes(best))
        if self._symmetric:
            rung, ends = best, self._ends
            assert ends is not None
            best = self._kept_if_better(
                "copies", rung, lambda: join_copies(self._problem, self._quiet(), rung, self._surface, ends)
            )
        self._family = best.family
        return best

    def _with_other_modes(self, best: Rung) -> tuple[Rung | None, str]:
        assert self._ends is not None
        posterior = Posterior(best.trainer.program, best.trainer.rows.full())
        steps = self._effort.path_steps // 2
        self._ends, starts = more_ends(self._surface, posterior, self._ends, self._plan.seed, steps)
        return join_modes(self._problem, self._quiet(), best, self._surface, self._ends, starts, self._effort)

    def _kept_if_better(self, name: str, best: Rung, join: Callable[[], tuple[Rung | None, str]]) -> Rung:
        started = time.perf_counter()
        try:
            with seeded(self._plan.seed):
                new, why = join()
        except VipackError as error:  # what was fitted already is not lost for it
            self._note(name, None, None, 0, started, False, f"failed: {error}")
            return best
        if new is None:
            if why:
                self._skip(name, why)
            return best
        gain = mean_and_se(new.log_weights - best.log_weights)
        kept = gain.value > gain.se
        self._note(name, mean_and_se(new.log_weights), gain, new.steps, started, kept, why)
        return new if kept else best

    def _quiet(self) -> Plan:
        return replace(self._plan, rules=self._rules())

    def _rung(self, family: Family, at: Gaussian, name: str, steps: int, draws: int, rate: float | None = None) -> Rung:
        plan = replace(self._plan, rules=self._rules(), label=name, rate=rate)
        return train_rung(
            self._problem,
            plan,
            family,
            at,
            self._surface,
            steps=steps,
            draws=draws,
            judged_by=self._effort.judged_by,
            by_draws=self._effort.by_draws and steps > 0,
        )

    def _rules(self) -> tuple[Any, ...]:
        """The user's rules, with a time limit that counts from the foot of the ladder."""
        spent = time.perf_counter() - self._started
        return tuple(
            TimeLimit(max(1e-3, rule.seconds - spent)) if isinstance(rule, TimeLimit) else rule
            for rule in self._plan.rules
        )

    def _left(self) -> float:
        limits = [rule.seconds for rule in self._plan.rules if isinstance(rule, TimeLimit)]
        return min(limits, default=float("inf")) - (time.perf_counter() - self._started)

    def _note(
        self,
        name: str,
        bound: Estimate | None,
        gain: Estimate | None,
        steps: int,
        started: float,
        kept: bool,
        reason: str,
    ) -> None:
        self._stages.append(Stage(name, bound, gain, steps, time.perf_counter() - started, kept, reason))

    def _skip(self, name: str, reason: str) -> None:
        self._stages.append(Stage(name, None, None, 0, 0.0, False, f"skipped: {reason}"))


def _starts(surface: Surface, count: int) -> Tensor:
    """Random points ``(R, D)`` at which log p is a number.

    Raises:
        NonFiniteError: there seem to be none.
    """
    finite: list[Tensor] = []
    for radius in _RADII:
        points = torch.stack([surface.joint.initial(radius).cpu().double() for _ in range(4 * count)])
        finite += list(points[torch.isfinite(surface.gradients(points)[0])])
        if len(finite) >= count:
            return torch.stack(finite[:count])
    if finite:
        return torch.stack(finite)
    raise NonFiniteError(
        f"log p(x, z) is -inf or NaN at all of {4 * count * len(_RADII)} random points: the data may lie outside the model's "
        "support, or the model's numbers overflow; look at the data's scale, or pass a guide that starts where it is finite."
    )
