"""``vipack.SVI``: pyro.infer.SVI with the same constructor and methods, compiled inside."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
import pyro
import pyro.infer.svi
import torch
from torch import Tensor

from vipack.compat.messengers import handlers
from vipack.engine.capture.annealed import AnnealedNumbers
from vipack.engine.capture.losses import functions_of, objective_of
from vipack.engine.capture.outlook import Effort, Outlook
from vipack.engine.eager import explain_missing
from vipack.engine.guards.arguments import FlatCall, flatten
from vipack.engine.guards.execution import Execution, recorded
from vipack.engine.guards.surroundings import reason_to_stay_with_pyro, surroundings
from vipack.engine.optimizers.fit_optimizer import PyroOptimizer
from vipack.engine.shared_parameters import SharedParameters
from vipack.engine.steps.contracts import NonFiniteStep, SingleSteps, Tier
from vipack.engine.steps.feeding import RepeatedBatch
from vipack.engine.steps.runner import GraphRunner
from vipack.engine.tiers import TRACE_STEPS, TieredEngine
from vipack.errors import UsageError
from vipack.hints import checked
from vipack.lock import one_at_a_time
from vipack.program import Arguments, Program, TorchState
from vipack.types import EngineReport

__all__ = ["SVI"]

_PLAIN_STEPS = 2  # that create parameters and optimizers, before there is anything to capture
_LONGEST_REST = 64  # steps of Pyro's own between two looks whether a reason to stay with it still holds
_MORE = 3  # times as many steps as before, until a program that no graph can repeat is looked at again
_SOON = 15.0  # seconds of eager steps, after which a capture is tried before there were many
_FOR_GOOD = 1 << 62
_NOT_SAVED = (
    "_engine", "_ready", "_execution", "_objective", "_outlook", "_begun_with", "_parameters", "_numbers", "_actual", "_around",
    "_names", "_last",
)  # fmt: skip


class SVI(pyro.infer.svi.SVI):  # type: ignore[misc]
    """``pyro.infer.SVI`` at the speed of compiled code; change the import and nothing else.

    Pyro's global parameter store, the modules and the optimizer are current after every step, and the random numbers are
    those that ``pyro.infer.SVI`` would draw. The next step sees whatever was changed since the last one, as there:
    arguments, data (however they are written to), parameters, options of the optimizer, modes, hooks, variables that the
    program reads, handlers around the step. What cannot be captured runs as Pyro runs it; ``svi.engine`` says why.

    Args:
        model, guide, optim, loss: as for ``pyro.infer.SVI``. A schedule in `optim` is the user's to step, as there.
        loss_and_grads, num_samples, num_steps: likewise.
        engine: "auto", "eager", "traced", "interpreted" or "compiled", as for ``vipack.fit``. With "auto" and single steps, a
            run is expected to last as long again as it has lasted.
    """

    @checked
    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        optim: pyro.optim.PyroOptim,
        loss: Any,
        loss_and_grads: Callable[..., Any] | None = None,
        num_samples: int = 0,
        num_steps: int = 0,
        *,
        engine: Tier = "auto",
    ) -> None:
        super().__init__(model, guide, optim, loss, loss_and_grads, num_samples, num_steps)
        self._tier = engine
        self._report = EngineReport("eager")
        self._usual_reason: str | None = None  # while some steps are Pyro's own for another
        self._effort = Effort()
        self._begin_anew()

    def _begin_anew(self) -> None:
        """As before the first step: what is known of the program is no longer so."""
        self._engine: TieredEngine | None = None
        self._ready: GraphRunner | None = None
        self._plain_steps = 0
        self._several_losses = False  # of which Pyro returns a tuple, as ReweightedWakeSleep's
        self._outlook: Outlook | None = None
        self._rest = self._last_rest = 0  # steps to come that are Pyro's own without a look
        self._until_gradients = False  # or until gradients are switched on again, as after a look at held-out data
        self._early = False  # because there were few so far
        self._execution: Execution | None = None
        self._begun_with = self.model, self.guide, self.optim, self.loss_and_grads
        self._objective = objective_of(self.loss, self.loss_and_grads)
        self._parameters = SharedParameters()
        self._numbers = AnnealedNumbers()

    def __repr__(self) -> str:
        model, guide = (getattr(each, "__name__", type(each).__name__) for each in (self.model, self.guide))
        return f"SVI({model}, {guide}; {self.engine})"

    @property
    def engine(self) -> EngineReport:
        """Which tier ran, and why no faster one."""
        return self._report

    @one_at_a_time
    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Take a gradient step and return the loss before it (nats), as ``pyro.infer.SVI.step`` does."""
        if self._rests():
            return self._step_at_rest(args, kwargs)
        if self._ready is not None and self._is_last_call(args, kwargs) and self._is_unchanged():
            loss = self._once(self._ready)
            if loss is not None:
                return loss
        return self._advance(1, args, kwargs)[0]

    @one_at_a_time
    def run(self, *args: Any, **kwargs: Any) -> Any:
        """``run(num_steps, *args, **kwargs)``: take so many steps on the same arguments.

        Returns:
            Their losses ``(num_steps,)`` in nats.

        Raises:
            UsageError: the number of steps is not a positive integer.
        """
        if self.num_steps or self.num_samples:  # told to the constructor, which Pyro still takes
            return super().run(*args, **kwargs)
        num_steps, args = kwargs.pop("num_steps", None) if not args else args[0], args[1:]
        if isinstance(num_steps, bool) or not isinstance(num_steps, int) or num_steps < 1:
            raise UsageError(f"num_steps: expected a positive integer, found {num_steps!r}; call run(1_000, *args).")
        return np.asarray(self._advance(num_steps, args, kwargs), dtype=np.float64)

    @one_at_a_time
    def evaluate_loss(self, *args: Any, **kwargs: Any) -> Any:
        """Estimate the loss (nats) and take no step, as ``pyro.infer.SVI.evaluate_loss`` does."""
        return super().evaluate_loss(*args, **kwargs)

    # --- steps

    def _advance(self, num_steps: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        losses: list[Any] = []
        call, arguments = None, Arguments(args, kwargs)
        if self._early and num_steps >= TRACE_STEPS:
            self._rest = 0
        while len(losses) < num_steps:
            if self._rests():
                losses.append(self._step_at_rest(args, kwargs))
                continue
            call = call or flatten(args, kwargs)
            reason = self._reason_for_pyro(call)
            if not reason and not self._is_new():
                break
            self._numbers.lifted(call, args, kwargs)  # which remembers them
            losses.append(self._plain_step(arguments, watched=not reason))
            self._rest_after(reason, num_steps - len(losses))
        left = num_steps - len(losses)
        if call is None or left == 0:
            return losses
        engine = self._engine or self._make_engine()
        self._parameters.look()
        around = surroundings()
        batches = RepeatedBatch(arguments, (call.key, around, self._parameters.trainable()))
        tensors, self._actual = call.tensors, arguments
        lifted = self._numbers.lifted(call, args, kwargs)
        if self._numbers.unsettled and left == 1:
            return [*losses, self._plain_step(arguments, watched=False)]
        if lifted is not None:
            other = RepeatedBatch(lifted[0], (lifted[2], around, self._parameters.trainable()))
            if engine.refuses(other.key):
                self._numbers.refuse(lifted[2])
            else:
                batches, tensors = other, lifted[1]
        engine.give(batches.key, tensors)
        expected = left if left > 1 else sum(self._report.steps.values())
        try:
            new = engine.advance(batches, left, expected)
        except NonFiniteStep as error:
            new = [*error.losses, float("nan")]
        if math.isnan(new[-1]):
            warnings.warn("Encountered NaN: loss", stacklevel=3)  # as Pyro does, which goes on with it
        self._remember(engine, batches.key, around, call, args, kwargs)
        if engine.rests():
            self._rest_longer()
        else:
            self._last_rest = 0
        return losses + new

    def _reason_for_pyro(self, call: FlatCall) -> str:
        """Why the next step must be Pyro's own; empty where it need not be."""
        if not self._same_program() or self._parameters.replaced():
            self._begin_anew()
        reason = call.reason or reason_to_stay_with_pyro() or self._parameters.reason()
        if self._several_losses:
            reason = "the loss is a tuple of several numbers"
        if reason and self._tier != "eager":
            if self._usual_reason is None:
                self._usual_reason = self._report.reason
            self._report.reason = f"eager: {reason}"
        elif self._usual_reason is not None:
            self._report.reason, self._usual_reason = self._usual_reason, None
        return reason

    def _is_new(self) -> bool:
        """Whether the next step is Pyro's own all the same, since too little is known of the program."""
        if self._plain_steps == 0 or self._tier != "auto":
            return self._plain_steps < _PLAIN_STEPS
        return self._outlook is None or not self._outlook.complete

    def _plain_step(self, arguments: Arguments, *, watched: bool) -> Any:
        self._ready = None
        self._plain_steps += 1
        if self._tier == "auto":
            loss = self._outlook_on(arguments) if watched and self._plain_steps > 1 else self._pyro_step(arguments)
        elif self._plain_steps == _PLAIN_STEPS and self._tier != "eager":
            with recorded() as self._execution:
                loss = self._pyro_step(arguments)
        else:
            loss = self._pyro_step(arguments)
        self._several_losses = isinstance(loss, tuple)
        self._count_plain()
        return loss

    def _outlook_on(self, arguments: Arguments) -> Any:
        if self._outlook is None:
            others = [v for v in (*arguments.args, *arguments.kwargs.values()) if not isinstance(v, Tensor)]
            self._outlook = Outlook(self.model, self.guide, *functions_of(self._objective), *others, *handlers())
        loss = self._outlook.observe(lambda: self._pyro_step(arguments))
        self._execution = self._outlook.execution
        return loss

    def _count_plain(self) -> None:
        self._report.tier = "eager"
        self._report.steps["eager"] = self._report.steps.get("eager", 0) + 1

    # --- steps of Pyro's own, without a look at anything but model, guide, optimizer and loss

    def _rests(self) -> bool:
        if self._until_gradients and torch.is_grad_enabled():
            self._until_gradients, self._rest = False, 0
        return self._rest > 0 and self._same_program()

    def _step_at_rest(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        started = time.perf_counter()
        try:
            loss = super().step(*args, **kwargs)
        except ValueError as error:
            explain_missing(error, args, kwargs)
            raise
        if not self._until_gradients:  # without gradients, a step takes less
            self._effort.count(time.perf_counter() - started)
        self._rest -= 1
        if self._early and self._effort.eager > _SOON:
            self._rest = 0
        self._count_plain()
        return loss

    def _rest_after(self, reason: str, left: int) -> None:
        """After a step of Pyro's own: how many more are to follow before the next look.

        Args:
            reason: why it had to be Pyro's.
            left: steps to come in this call.
        """
        num_steps = sum(self._report.steps.values())
        self._early = False
        self._until_gradients = bool(reason) and not torch.is_grad_enabled()
        if self._tier == "eager":
            self._rest = _FOR_GOOD
        elif self._tier == "auto" and reason:
            self._rest_longer()
        elif self._tier == "auto" and self._outlook is None:
            self._early = left < TRACE_STEPS
            self._rest = max(0, TRACE_STEPS - _PLAIN_STEPS - num_steps) if self._early else 0
        elif self._outlook is not None and self._outlook.complete and self._outlook.reason:
            self._report.reason = f"eager: {self._outlook.reason}"
            self._outlook, self._rest = None, max(TRACE_STEPS, _MORE * num_steps)

    def _rest_longer(self) -> None:
        self._rest = self._last_rest = min(2 * self._last_rest or 1, _LONGEST_REST)

    def _pyro_step(self, arguments: Arguments) -> Any:
        try:
            with self._parameters.noted():
                return super().step(*arguments.args, **arguments.kwargs)
        except ValueError as error:
            explain_missing(error, arguments.args, arguments.kwargs)
            raise

    def _once(self, runner: GraphRunner) -> float | None:
        """A step of the loop on the tensors of the step before; None where Pyro would have raised, and nothing is changed."""
        runner.refresh()
        if not runner.valid:
            return None
        before = (TorchState.current(), runner.mark()) if runner.step.checked else None
        loss = runner.once()
        if not math.isfinite(loss):
            if before is not None and not runner.well:
                generators, mark = before
                generators.install()
                runner.undo(mark)
                return None
            if math.isnan(loss):
                warnings.warn("Encountered NaN: loss", stacklevel=3)
        self._report.tier = tier = runner.native_tier
        self._report.steps[tier] = self._report.steps.get(tier, 0) + 1
        return loss

    def _make_engine(self) -> TieredEngine:
        """The engine over the store's own parameters."""
        dtype, device = torch.get_default_dtype(), self._parameters.device
        program = Program(self.model, self.guide, dtype=dtype, device=device, fills=False)
        program.parameters = self._parameters.of_type(dtype)
        optimizer = PyroOptimizer(self.optim, program.parameters, shared=True)
        self._report.reason = ""
        single = SingleSteps(lambda _: self._pyro_step(self._actual), self._execution, self._effort, self._report)
        self._engine = TieredEngine(program, self._objective, optimizer, self._tier, single)
        return self._engine

    # --- what the next step may find changed

    def _same_program(self) -> bool:
        model, guide, optim, loss = self._begun_with
        return self.model is model and self.guide is guide and self.optim is optim and self.loss_and_grads is loss

    def _is_unchanged(self) -> bool:
        """Whether the step of the last call is still the one to take."""
        assert self._engine is not None
        return (
            self._same_program()
            and surroundings() == self._around
            and self._parameters.unchanged()
            and self._engine.unchanged()
        )

    def _is_last_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        given = args
        if kwargs:
            if tuple(kwargs) != self._names:
                return False
            given = (*args, *kwargs.values())
        if len(given) != len(self._last):
            return False
        for one, (other, shape, dtype) in zip(given, self._last, strict=True):
            if one is not other:
                return False
            if shape is not None and (one.shape != shape or one.dtype is not dtype or one.requires_grad):
                return False
        return True

    def _remember(
        self,
        engine: TieredEngine,
        key: Hashable,
        around: tuple[Hashable, ...],
        call: FlatCall,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        """Once compiled, a step on the same tensors needs no more than a call of the loop."""
        runner = engine.runner(key)
        ready = call.immutable and runner is not None and runner.native is not None and engine.settled(key)
        self._ready = runner if ready else None
        self._around, self._names = around, tuple(kwargs)
        self._last = [
            (value, value.shape, value.dtype) if isinstance(value, Tensor) else (value, None, None)
            for value in (*args, *kwargs.values())
        ]

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        for name in _NOT_SAVED:
            state.pop(name, None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin_anew()
