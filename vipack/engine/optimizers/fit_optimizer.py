"""Pyro's and torch's optimizers behind one call, fresh for each fit and with a state that can be saved."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro.optim import PyroLRScheduler, PyroOptim
from pyro.optim.optim import is_scheduler
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from vipack.compat.optimizer_state import (
    clip_options,
    fresh,
    has_step_hooks,
    load_into,
    makes_optimizers,
    optimizer_of,
    set_waiting,
    waiting,
)
from vipack.engine.optimizers.default_optimizer import LEARNING_RATE, CosineRate, DefaultOptimizer
from vipack.errors import OptimizerError
from vipack.program import Parameters

__all__ = ["FitOptimizer", "Handle", "make_optimizer", "unused"]

Factory = Callable[[Iterable[Tensor]], Any]


@dataclass(frozen=True, eq=False)
class Handle:
    """One parameter, and the torch optimizer, options and schedule that update it.

    Attributes:
        clip: ``(largest norm, largest value)`` of its gradient, None where it is not clipped.
        kept: what a ``pyro.optim`` optimizer keeps for the parameter: a torch optimizer, or a schedule around one.
    """

    parameter: Tensor
    optimizer: Optimizer
    group: dict[str, Any]
    scheduler: LRScheduler | ReduceLROnPlateau | None
    clip: tuple[float | None, float | None] = (None, None)
    kept: Any = None


class FitOptimizer(PyroOptim):  # type: ignore[misc]
    """What a fit needs of an optimizer; ``pyro.infer.SVI`` calls it with the parameters of a step.

    Both kinds keep the state for the fit's own tensors only, so that one optimizer object may serve many fits.
    """

    loss = math.nan  # of the step under way, for schedules that look at it

    def update(self, params: set[Tensor]) -> None:
        """Change `params` by their gradients; a schedule moves on one step."""
        raise NotImplementedError

    def cool(self, step: int, num_steps: int) -> bool:
        """From `step` on, let the learning rate fall over `num_steps`; False if the schedule is the user's own."""
        return False

    def handles(self, parameters: Iterable[Tensor]) -> list[Handle] | None:
        """How each of some parameters is updated; None where that is more than a torch optimizer's step."""
        raise NotImplementedError

    def holds(self, handles: Iterable[Handle]) -> bool:
        """Whether parameters still are updated by these."""
        return True

    def has_stepped(self) -> bool:
        """Whether it holds the state of earlier steps."""
        raise NotImplementedError

    def has_met(self, parameter: Tensor) -> bool:
        """Whether it holds the state of earlier steps for a parameter, if it keeps any."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """Plain tensors and numbers."""
        raise NotImplementedError

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state`."""
        raise NotImplementedError

    def __call__(self, params: Iterable[Tensor], *args: Any, **kwargs: Any) -> None:
        """The call that ``pyro.infer.SVI`` makes."""
        self.update(set(params))

    def _run(self, action: Callable[[], Any]) -> Any:
        """What `action` of the user's optimizer gives.

        Raises:
            OptimizerError: it raised, as for an option that the optimizer does not have.
        """
        try:
            return action()
        except Exception as error:
            raise OptimizerError(
                f"optim: it raised {type(error).__name__}: {' '.join(str(error).split())[:300].rstrip('.')}; look at its options, "
                "which are those of the torch.optim class of that name, as in pyro.optim.Adam({'lr': 0.01}) or "
                "functools.partial(torch.optim.Adam, lr=0.01)."
            ) from error


class PyroOptimizer(FitOptimizer):
    """A ``pyro.optim`` optimizer, with its per-parameter options, clipping and schedules."""

    def __init__(self, optim: PyroOptim, parameters: Parameters, *, shared: bool = False) -> None:
        """`shared` works on the user's optimizer itself, as ``vipack.SVI`` does, and leaves its schedule to the user."""
        self._shared = shared
        self._optim = optim if shared else unused(optim)
        self._parameters = parameters

    def update(self, params: set[Tensor]) -> None:
        # In order of declaration: a set's order is that of addresses, and would make float sums depend on it.
        ordered = [p for p in self._parameters.tensors() if p in params]
        with self._named() if any(p not in self._optim.optim_objs for p in ordered) else contextlib.nullcontext():
            self._run(lambda: self._optim(ordered))
        if isinstance(self._optim, PyroLRScheduler) and not self._shared:
            plateau = any(isinstance(s, ReduceLROnPlateau) for s in self._optim.optim_objs.values())
            self._optim.step(self.loss) if plateau else self._optim.step()

    def handles(self, parameters: Iterable[Tensor]) -> list[Handle] | None:
        if not makes_optimizers():
            return None
        handles = []
        for parameter in parameters:
            kept = self._kept(parameter)
            scheduler = kept if is_scheduler(kept) and not self._shared else None
            optimizer = kept.optimizer if is_scheduler(kept) else kept
            if has_step_hooks(optimizer):
                return None
            with self._named():
                options = clip_options(self._optim, parameter)
            clip = (options.get("clip_norm"), options.get("clip_value"))
            handles.append(Handle(parameter, optimizer, optimizer.param_groups[0], scheduler, clip, kept))
        return handles

    def holds(self, handles: Iterable[Handle]) -> bool:
        kept = self._optim.optim_objs
        return all(kept.get(handle.parameter) is handle.kept for handle in handles)

    def state(self) -> dict[str, Any]:
        with self._named():
            # What was loaded waits for the first step.
            state = {**waiting(self._optim), **self._optim.get_state()}
            return {"kind": "pyro", "state": _plain(state)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        coming = _plain(state["state"])  # a copy, or steps would change what was saved
        objects = self._optim.optim_objs
        for parameter in list(objects):
            with self._named():
                saved = coming.pop(pyro.get_param_store().param_name(parameter), None)
            if saved is not None:  # by the same object, which may be known elsewhere
                load_into(objects[parameter], saved)
            else:
                del objects[parameter]
                self._optim.grad_clip.pop(parameter, None)
        set_waiting(self._optim, coming)

    def has_stepped(self) -> bool:
        return bool(self._optim.optim_objs or waiting(self._optim))

    def has_met(self, parameter: Tensor) -> bool:
        if parameter in self._optim.optim_objs:
            kept = self._optim.optim_objs[parameter]
            return _has_state(kept.optimizer if is_scheduler(kept) else kept, parameter)
        if self._shared:  # a user's optimizer meets a parameter in the step in which Pyro's would
            return False
        with self._named():
            return pyro.get_param_store().param_name(parameter) in waiting(self._optim)

    def _kept(self, parameter: Tensor) -> Any:
        """The optimizer or schedule of one parameter, made as PyroOptim makes it when it first meets the parameter."""
        optim = self._optim
        if parameter not in optim.optim_objs:
            with self._named():
                kept, clip = self._run(lambda: optimizer_of(optim, parameter))
                optim.optim_objs[parameter], optim.grad_clip[parameter] = kept, clip
                name = pyro.get_param_store().param_name(parameter)
            saved = waiting(optim).pop(name, None)
            if saved is not None:
                load_into(optim.optim_objs[parameter], saved)
        return optim.optim_objs[parameter]

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """PyroOptim asks the global store for the names of parameters."""
        named = {"params": dict(self._parameters.unconstrained), "constraints": dict(self._parameters.constraints)}
        with pyro.get_param_store().scope(named):
            yield


class TorchOptimizer(FitOptimizer):
    """A ``torch.optim`` optimizer over all parameters, with an optional schedule that moves on every step."""

    def __init__(self, factory: Factory, parameters: Parameters) -> None:
        self._factory = factory
        self._parameters = parameters
        self._optimizer: Optimizer | None = None
        self._scheduler: LRScheduler | ReduceLROnPlateau | None = None
        self._known: set[Tensor] = set()
        self._stepped = False  # some, such as SGD without momentum, keep no state that would say so

    def update(self, params: set[Tensor]) -> None:
        optimizer = self._ready()
        for parameter in self._known - params:  # not used in this step: leave it, and its moments, as they are
            parameter.grad = None
        self._run(optimizer.step)
        self._stepped = True
        if isinstance(self._scheduler, ReduceLROnPlateau):
            self._scheduler.step(self.loss)
        elif self._scheduler is not None:
            self._scheduler.step()

    def has_stepped(self) -> bool:
        return self._stepped or bool(self._ready().state)

    def has_met(self, parameter: Tensor) -> bool:
        return _has_state(self._ready(), parameter)

    def cool(self, step: int, num_steps: int) -> bool:
        self._ready()
        rates = self._scheduler.lr_lambdas if isinstance(self._scheduler, LambdaLR) else []
        for rate in rates:
            if not isinstance(rate, CosineRate):
                return False
            rate.start, rate.length = step, num_steps
        return bool(rates)

    def handles(self, parameters: Iterable[Tensor]) -> list[Handle] | None:
        optimizer = self._ready()
        if has_step_hooks(optimizer):
            return None
        wanted = {id(parameter) for parameter in parameters}
        return [
            Handle(parameter, optimizer, group, self._scheduler)
            for group in optimizer.param_groups
            for parameter in group["params"]
            if id(parameter) in wanted
        ]

    def state(self) -> dict[str, Any]:
        optimizer = self._ready()
        scheduler = self._scheduler.state_dict() if self._scheduler is not None else {}
        return {
            "kind": "torch",
            "state": _plain(optimizer.state_dict()),
            "scheduler": _plain(scheduler),
            "stepped": self._stepped,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        optimizer = self._ready()
        coming, schedule = (
            _plain(state["state"]),
            _plain(state["scheduler"]),
        )  # copies: steps must not change what was saved
        if isinstance(self._factory, DefaultOptimizer):
            self._factory.at_one_rate(optimizer, self._parameters.tensors(), coming, schedule)
        optimizer.load_state_dict(coming)
        self._stepped = state.get("stepped", False)
        if self._scheduler is not None:
            self._scheduler.load_state_dict(schedule)

    def _ready(self) -> Optimizer:
        new = [p for p in self._parameters.tensors() if p not in self._known]
        if self._optimizer is None:
            result = self._run(lambda: self._factory(new))
            self._optimizer, self._scheduler = result if isinstance(result, tuple) else (result, None)
            if not isinstance(self._optimizer, Optimizer):
                raise OptimizerError(
                    f"optim: calling it with the parameters gave a {type(self._optimizer).__name__}, expected a "
                    "torch.optim.Optimizer or a pair (optimizer, schedule); pass for example pyro.optim.Adam({'lr': 0.01}) "
                    "or functools.partial(torch.optim.Adam, lr=0.01)."
                )
        elif new and isinstance(self._factory, DefaultOptimizer):
            self._factory.extend(self._optimizer, new)
        elif new and len(self._optimizer.param_groups) == 1:  # a schedule knows the groups that it began with
            self._optimizer.param_groups[0]["params"].extend(new)
        elif new:
            self._optimizer.add_param_group({"params": new})
        self._known.update(new)
        return self._optimizer


def make_optimizer(
    optim: Any, parameters: Parameters, num_steps: int | None, rate: float | None = None
) -> FitOptimizer:
    """The optimizer of one fit.

    Args:
        optim: None for the default, a ``pyro.optim`` optimizer or schedule, a ``torch.optim`` class, or a callable that
            makes a ``torch.optim`` optimizer (or a pair of one and its schedule) from a list of parameters.
        num_steps: how long the run will be, for the default's schedule; None if not known.
        rate: the default's learning rate where it is not to be 0.02; the weights of networks keep a tenth of it.

    Raises:
        OptimizerError: anything else.
    """
    if optim is None:
        return TorchOptimizer(DefaultOptimizer(num_steps, rate or LEARNING_RATE, parameters.of_networks), parameters)
    if isinstance(optim, PyroOptim):
        return PyroOptimizer(optim, parameters)
    if isinstance(optim, Optimizer):
        raise OptimizerError(
            f"optim: this {type(optim).__name__} already holds parameters of its own; pass what makes one, as "
            f"functools.partial(torch.optim.{type(optim).__name__}, lr=...)."
        )
    if callable(optim):
        return TorchOptimizer(optim, parameters)
    raise OptimizerError(
        f"optim: expected a pyro.optim optimizer, a torch.optim class or a callable that makes one, found {optim!r}; "
        "for example pyro.optim.Adam({'lr': 0.01})."
    )


def unused(optim: Any) -> Any:
    """`optim` as it was before it met a parameter."""
    return fresh(optim) if isinstance(optim, PyroOptim) else optim


def _has_state(optimizer: Optimizer, parameter: Tensor) -> bool:
    stateless = isinstance(optimizer, torch.optim.SGD) and not any(g["momentum"] for g in optimizer.param_groups)
    return stateless or bool(optimizer.state.get(parameter))


def _plain(value: Any) -> Any:
    """Optimizer state as containers, numbers and tensors that ``torch.load(weights_only=True)`` accepts."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if not callable(item)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return float(value) if hasattr(value, "__float__") else str(value)
