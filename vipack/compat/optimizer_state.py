"""Private names of torch's and Pyro's optimizers and schedules."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.optim import PyroOptim
from pyro.optim.optim import is_scheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from vipack.compat.names import named

__all__ = [
    "COUNTS",
    "advanced",
    "clip_options",
    "fresh",
    "has_step_hooks",
    "load_into",
    "makes_optimizers",
    "optimizer_of",
    "set_waiting",
    "waiting",
]


def _optimizer() -> Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)


def _pyro_optimizer() -> Any:
    return PyroOptim(torch.optim.SGD, {"lr": 0.1})


STEP_HOOKS = named(
    "torch",
    "Optimizer._optimizer_step_pre_hooks",
    lambda: (_optimizer()._optimizer_step_pre_hooks, _optimizer()._optimizer_step_post_hooks),
    without="hooks on an optimizer's step would not be seen",
    stops="graphs",
)
COUNTS = named(
    "torch",
    "LRScheduler._step_count",
    lambda: (_schedule()._step_count, _schedule()._last_lr),
    without="the default schedule takes its steps one by one in Python",
)
_OUTSIDE = "Pyro's own optimizer takes its step outside of the graph, in Python"
MAKE = named("pyro", "PyroOptim._get_optim", lambda: _pyro_optimizer()._get_optim, without=_OUTSIDE)
MAKE_CLIP = named("pyro", "PyroOptim._get_grad_clip", lambda: _pyro_optimizer()._get_grad_clip, without=_OUTSIDE)
CLIP = named("pyro", "PyroOptim._get_grad_clip_args", lambda: _pyro_optimizer()._get_grad_clip_args, without=_OUTSIDE)
WAITING = named(
    "pyro",
    "PyroOptim._state_waiting_to_be_consumed",
    lambda: _pyro_optimizer()._state_waiting_to_be_consumed,
    without=f"{_OUTSIDE}, and what was loaded for a parameter that no step has met is not saved again",
)


def _schedule() -> LambdaLR:
    return LambdaLR(_optimizer(), lambda _: 1.0)


def has_step_hooks(optimizer: Optimizer) -> bool:
    """Whether the user has hung something of their own on the optimizer's step."""
    return bool(optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks)


def advanced(scheduler: Any, index: int, rate: float, num_steps: int) -> None:
    """Let a schedule have taken steps, after which the rate of its parameter group at `index` is this one."""
    scheduler._step_count += num_steps
    scheduler._last_lr[index] = rate


def makes_optimizers() -> bool:
    """Whether the optimizer of a parameter can be made before the first step on it, as ``PyroOptim`` makes it then."""
    return MAKE.there and MAKE_CLIP.there and CLIP.there and WAITING.there


def optimizer_of(optim: Any, parameter: Tensor) -> tuple[Any, Callable[..., None] | None]:
    """The optimizer or schedule of a parameter and how its gradient is clipped; Pyro's store must name it."""
    return optim._get_optim(parameter), optim._get_grad_clip(parameter)


def clip_options(optim: Any, parameter: Tensor) -> dict[str, Any]:
    """Options by which a parameter's gradient is clipped; Pyro's store must name it."""
    options: dict[str, Any] = optim._get_grad_clip_args(parameter)
    return options


def waiting(optim: Any) -> dict[str, Any]:
    """Name -> state that was loaded for a parameter that no step has met; to be taken from."""
    states: dict[str, Any] = optim._state_waiting_to_be_consumed if WAITING.there else {}
    return states


def set_waiting(optim: Any, state: dict[str, Any]) -> None:
    """Let this be loaded for parameters that no step has met."""
    if WAITING.there:
        optim._state_waiting_to_be_consumed = state
    else:
        optim.set_state(state)


def fresh(optim: Any) -> Any:
    """`optim` as it was before it met a parameter."""
    own = copy.copy(optim)
    own.optim_objs, own.grad_clip = {}, {}
    if WAITING.there:
        own._state_waiting_to_be_consumed = {}
    return own


def load_into(optimizer: Any, state: Mapping[str, Any]) -> None:
    """Load what ``PyroOptim.get_state`` has for one parameter."""
    if is_scheduler(optimizer):
        optimizer.load_state_dict(state["scheduler"])
        optimizer.optimizer.load_state_dict(state["optimizer"])
    else:
        optimizer.load_state_dict(state)
