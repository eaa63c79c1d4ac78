"""The training loop: step, watch, save, and stop for a recorded reason."""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from vipack.engine.compiled.compiler import progress_note
from vipack.engine.steps.contracts import Engine, NonFiniteStep
from vipack.errors import ModelError, NonFiniteError, VipackError
from vipack.lock import calling_out
from vipack.program import Parameters, RandomState
from vipack.progress import ProgressBar, interrupts
from vipack.training.callbacks import Callback, Every, Progress
from vipack.training.checkpoint import Checkpoint, due
from vipack.training.distributed.team import Team
from vipack.training.stopping import SmallGain, StopRule, TimeLimit, asked
from vipack.training.streams import BatchStream
from vipack.training.validation import EarlyStopping, Validation, ValidationPoint
from vipack.types import Estimate, Stopped, StopReason

__all__ = ["Run", "RunState"]

_REPORT_SECONDS = 0.05  # between looks at signals and callbacks
_TOGETHER_SECONDS = 0.25  # the same, where all processes tell each other what they have seen
_LOOK_STEPS = 100  # the least between looks of the stop rules and copies of the best state, and what a mean is over


@dataclass
class RunState:
    """Everything that a run needs to go on bit for bit, beside parameters and optimizer.

    Attributes:
        losses: of every step, nats.
        best: parameters at the lowest mean loss so far, to go back to after a divergence.
        stopped: why the last run ended; None while one is under way.
        validation: the evaluations on observations held out.
        best_valid: parameters and buffers at the best of them.
    """

    random: RandomState
    batches: BatchStream
    losses: array[float] = field(default_factory=lambda: array("d"))
    seconds: float = 0.0
    best: dict[str, dict[str, Tensor]] | None = None
    best_loss: float = math.inf
    best_step: int = 0
    stopped: Stopped | None = None
    validation: list[ValidationPoint] = field(default_factory=list)
    best_valid: dict[str, dict[str, Tensor]] | None = None

    @property
    def step(self) -> int:
        """Steps done."""
        return len(self.losses)


@dataclass(frozen=True)
class Run:
    """A run of training; calling it trains until there is a reason to stop.

    Attributes:
        validation: evaluates observations held out, and the steps between its evaluations.
        team: the processes of the run, where there are several; they take the same steps and end for the same reason.
    """

    engine: Engine
    expected_steps: int
    parameters: Parameters
    rules: tuple[StopRule, ...]
    callbacks: tuple[Callback, ...]
    progress: bool | None
    checkpoint: Checkpoint | None
    save: Callable[[], None]
    label: str = ""
    validation: tuple[Validation, int] | None = None
    team: Team | None = None

    def __call__(self, state: RunState, last_step: int, *, look_first: bool = False) -> Stopped:
        """Train until `last_step` steps are done or a rule, a callback, Ctrl-C or a divergence ends it.

        Args:
            look_first: ask the rules before the first step too, as the run that was cut off here would have done.

        Raises:
            NonFiniteError: the very first step has no finite loss, so that there is nothing to go back to.
            ModelError: the model or guide raised.
        """
        state.stopped = self._ask_rules(state) if look_first else None
        if state.stopped is None:
            state.stopped = self._train(state, last_step)
        return state.stopped

    def _train(self, state: RunState, last_step: int) -> Stopped:
        bar = ProgressBar(last_step, state.step, self.progress, self.label)
        saved = (state.step, time.monotonic())
        pace = 1
        self.engine.refresh()
        if state.best is None:
            state.best = self.parameters.state()
        try:
            with interrupts() as interrupted, state.random.active():
                while state.step < last_step:
                    number = min(pace, last_step - state.step, self._to_next_stop(state.step))
                    started = time.perf_counter()
                    try:
                        losses = self._advance(state, number)
                    except NonFiniteStep as error:
                        del state.losses[state.step - error.withdrawn :]
                        state.losses.extend(error.losses)
                        state.seconds += time.perf_counter() - started
                        return self._diverged(state, error)
                    spent = time.perf_counter() - started
                    state.losses.extend(losses)
                    state.seconds += spent
                    pace = _next_pace(number, spent, _REPORT_SECONDS if self.team is None else _TOGETHER_SECONDS)
                    save = self.checkpoint is not None and due(self.checkpoint, state.step, *saved)
                    signals = interrupted  # a callback may add one
                    if self.team is not None:
                        pace, state.seconds, save, signalled = self.team.settle(
                            pace, state.seconds, save, bool(interrupted)
                        )
                        signals = [True] * signalled
                    self._remember_best(state)
                    # Of the last steps rather than of those since the last look, whose number is a matter of speed.
                    mean = math.fsum(state.losses[-_LOOK_STEPS:]) / min(_LOOK_STEPS, state.step)
                    self._validate(state)
                    bar.update(state.step, mean, _note(state))
                    state.stopped = self._look(state, mean, signals)
                    if state.stopped is None and state.step == last_step:
                        state.stopped = Stopped(StopReason.STEPS, f"{state.step} steps")
                    if self.checkpoint is not None and (state.stopped or save):
                        self._save(state)
                        saved = (state.step, time.monotonic())
                    if state.stopped is not None:
                        return state.stopped
        finally:
            bar.close()
            self.engine.rest()
        return Stopped(StopReason.STEPS, f"{state.step} steps")

    def _advance(self, state: RunState, number: int) -> list[float]:
        try:
            return self.engine.advance(state.batches, number, self._expected(state, number))
        except (NonFiniteStep, VipackError):
            raise
        except Exception as error:
            message = str(error).strip().partition("\n")[0] or "no message"
            raise ModelError(
                f"soon after step {state.step} the model, the guide or the loss raised {type(error).__name__}: {message}; "
                "they ran well before training, so look at what is new: another batch, vectorized particles, or "
                "parameters that have moved."
            ) from error

    def _expected(self, state: RunState, number: int) -> int:
        """How many steps the run is likely to take from here, the clock considered."""
        left = max(number, self.expected_steps - state.step)
        for rule in self.rules:
            if isinstance(rule, TimeLimit) and state.step:
                left = min(left, int((rule.seconds - state.seconds) * state.step / max(state.seconds, 1e-9)))
        return left

    def _to_next_stop(self, step: int) -> int:
        """Steps until something must be done at an exact step."""
        periods = [callback.num_steps for callback in self.callbacks if isinstance(callback, Every)]
        if self.checkpoint is not None and self.checkpoint.every_steps is not None:
            periods.append(self.checkpoint.every_steps)
        if self.validation is not None:
            periods.append(self.validation[1])
        periods += [rule.period for rule in self.rules if isinstance(rule, SmallGain)]
        return min([_next_look(step) - step, *(period - step % period for period in periods)])

    def _look(self, state: RunState, mean: float, interrupted: list[bool]) -> Stopped | None:
        said = self._call_back(state, mean)
        if self.team is not None and self.callbacks:
            said = self.team.all_answers(said)
        answers = [answer for answer in said if answer is True or isinstance(answer, str)]
        if answers:
            detail = answers[0] if isinstance(answers[0], str) else f"after {state.step} steps"
            return Stopped(StopReason.CALLBACK, detail)
        if interrupted:
            return Stopped(StopReason.INTERRUPTED, f"Ctrl-C after {state.step} steps; the fit so far is kept")
        return self._ask_rules(state)

    def _validate(self, state: RunState) -> None:
        """Evaluate the observations held out, at the same steps whatever the machine's speed."""
        if self.validation is None or state.step % self.validation[1]:
            return
        started = time.perf_counter()
        with state.random.suspended():
            estimate = self.validation[0]()
        if self.team is not None:
            estimate = self.team.of_first(estimate)
        state.seconds += time.perf_counter() - started
        if all(estimate.value > point.elbo for point in state.validation):
            state.best_valid = self.parameters.state()
        point = ValidationPoint(state.step, state.batches.epoch, state.seconds, estimate.value, estimate.se)
        state.validation.append(point)

    def _call_back(self, state: RunState, mean: float) -> list[object]:
        answers = []
        for callback in self.callbacks:
            if isinstance(callback, Every) and state.step % callback.num_steps:
                continue
            latest = Estimate(*state.validation[-1][-2:]) if state.validation else None
            progress = Progress(
                state.step, state.batches.epoch, mean, state.losses, state.seconds, self.parameters, latest
            )
            # A callback's own draws must not shift the run's, nor those of a fit in another thread that it waits for.
            with state.random.suspended(), calling_out():
                answers.append(callback(progress))
        if answers:
            self.engine.refresh()
        return answers

    def _ask_rules(self, state: RunState) -> Stopped | None:
        """At the same steps whatever the machine's speed, but for the clock, which is looked at each time."""
        for rule in self.rules:
            if isinstance(rule, EarlyStopping):
                early = rule.ask(state.validation)
                if early is not None:
                    return early
            elif isinstance(rule, TimeLimit) or (
                _is_look(state.step) if not isinstance(rule, SmallGain) else state.step % rule.period == 0
            ):
                stopped = asked(rule, state.losses, state.seconds)
                if stopped is not None:
                    return stopped
        return None

    def _remember_best(self, state: RunState) -> None:
        """At the same steps whatever the machine's speed, so that a run's outcome does not depend on it."""
        if not _is_look(state.step):
            return
        mean = math.fsum(state.losses[-_LOOK_STEPS:]) / _LOOK_STEPS
        if not mean < state.best_loss:
            return
        finite = all(bool(p.isfinite().all()) for p in self.parameters.tensors())
        if finite if self.team is None else self.team.all_true(finite):
            state.best, state.best_loss, state.best_step = self.parameters.state(), mean, state.step

    def _diverged(self, state: RunState, error: NonFiniteStep) -> Stopped:
        if state.step == 0:
            raise NonFiniteError(
                f"step 1: {error.cause}; start elsewhere (init_loc_fn of an automatic guide), or look at the data's scale."
            ) from error.cause
        detail = f"at step {state.step + 1} {error.cause}; the parameters are those of step {state.best_step}"
        assert state.best is not None
        self.parameters.load_state(state.best)
        return Stopped(StopReason.DIVERGED, detail)

    def _save(self, state: RunState) -> None:
        state.random.keep()
        self.save()


def _note(state: RunState) -> str:
    """What the bar says beside the loss."""
    latest = f"held-out ELBO {state.validation[-1].elbo:,.2f} an observation" if state.validation else ""
    return ", ".join(filter(None, [latest, progress_note()]))


def _next_look(step: int) -> int:
    """The first step after `step` at which the rules are asked: every hundred, and later every tenth of the run."""
    period = _LOOK_STEPS * max(1, step // 1_000)
    return (step // period + 1) * period


def _is_look(step: int) -> bool:
    return step > 0 and _next_look(step - 1) == step


def _next_pace(number: int, spent: float, between: float) -> int:
    """How many steps fill the seconds between two looks."""
    return max(1, min(2 * number, int(number * between / max(spent, 1e-9))))
