"""``vipack.CapturedELBO``: an objective of Pyro's whose differentiable loss is a captured step's, for loops of the user's own."""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import ELBO
from pyro.optim import PyroOptim
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.optim import Optimizer

from vipack.engine.guards.arguments import ByIdentity, flatten
from vipack.engine.steps.contracts import Tier
from vipack.engine.svi import SVI
from vipack.errors import UsageError
from vipack.hints import checked
from vipack.lock import one_at_a_time
from vipack.types import EngineReport

__all__ = ["CapturedELBO"]

_MOST_PROGRAMS = 8
_LOCAL = "module_local_params"


class CapturedELBO(ELBO):  # type: ignore[misc]
    """Any ELBO of Pyro's, with a ``differentiable_loss`` at the speed of captured code.

    For those who write the training loop themselves: torch optimizers, Lightning, mixed losses. Pass it where the
    program takes an ELBO::

        loss_fn = vipack.CapturedELBO(pyro.infer.Trace_ELBO()).differentiable_loss
        loss = loss_fn(model, guide, x)
        loss.backward()

    or as a module, ``vipack.CapturedELBO(Trace_ELBO())(model, guide)``. Losses, gradients and random numbers are those of `elbo`.
    The gradient is computed with the loss; it cannot itself be differentiated. What cannot be captured is computed
    as Pyro computes it, and :attr:`engine` says why.

    Args:
        elbo: Trace_ELBO() or another of ``pyro.infer``.
        engine: "auto", "eager", "traced", "interpreted" or "compiled", as for :class:`vipack.SVI`.

    Raises:
        UsageError: `elbo` is no ELBO, or has no differentiable loss.
    """

    @checked
    def __init__(self, elbo: ELBO, *, engine: Tier = "auto") -> None:
        if not isinstance(elbo, ELBO) or not hasattr(elbo, "differentiable_loss"):
            raise UsageError(
                f"elbo: expected an objective of pyro.infer with a differentiable loss, found {type(elbo).__name__}; write "
                "vipack.CapturedELBO(pyro.infer.Trace_ELBO())."
            )
        self._elbo = elbo
        self._tier = engine
        self._programs: dict[Hashable, _Program] = {}
        self._last: EngineReport = EngineReport("eager")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._elbo, name)

    @property
    def engine(self) -> EngineReport:
        """Which tier computed the last loss, and why no faster one."""
        return self._last

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        return self._elbo._get_trace(model, guide, args, kwargs)

    def loss(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The loss (nats), as `elbo` estimates it."""
        return self._elbo.loss(model, guide, *args, **kwargs)

    def loss_and_grads(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """As `elbo` has it; for ``vipack.SVI``, which captures it, or Pyro's SVI."""
        return self._elbo.loss_and_grads(model, guide, *args, **kwargs)

    @one_at_a_time
    def differentiable_loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """The loss (nats) ``()`` with the gradients of all parameters that it depends on."""
        program = self._program_of(model, guide)
        reason = program if isinstance(program, str) else program.reason(args, kwargs)
        if reason:
            self._last = EngineReport("eager", reason=f"eager: {reason}")
            return self._elbo.differentiable_loss(model, guide, *args, **kwargs)
        assert isinstance(program, _Program)
        self._last = program.engine
        return program.loss(args, kwargs)

    def _program_of(self, model: Any, guide: Any) -> _Program | str:
        key = _known_by(model), _known_by(guide)
        program = self._programs.get(key)
        if program is None:
            if len(self._programs) >= _MOST_PROGRAMS:
                return f"more than {_MOST_PROGRAMS} models and guides were given"
            program = self._programs[key] = _Program(model, guide, self._elbo, self._tier)
        return program

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_programs": {}, "_last": EngineReport("eager")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class _Program:
    """A model and a guide, whose steps change nothing but leave gradients behind."""

    def __init__(self, model: Any, guide: Any, elbo: ELBO, tier: Tier) -> None:
        self._gradients: dict[Tensor, Tensor] = {}
        self._known: dict[Tensor, None] = {}
        self._elbo = elbo
        self._modules = [each for each in (_innermost(model), _innermost(guide)) if isinstance(each, nn.Module)]
        optim = PyroOptim(_Keep, {"into": self._gradients})
        self._svi = SVI(model, guide, optim, elbo.differentiable_loss, engine=tier)
        self._own_store: dict[str, Any] | None = None

    @property
    def engine(self) -> EngineReport:
        return self._svi.engine

    def reason(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Why the next loss is to be Pyro's own; empty where it need not be."""
        if not torch.is_grad_enabled():
            return "gradients are switched off"
        if reason := flatten(args, kwargs).reason:
            return reason
        if pyro.settings.get(_LOCAL):
            return self._reason_against_local_parameters()
        return ""

    def _reason_against_local_parameters(self) -> str:
        if len(self._modules) < 2:
            return "parameters are local to modules, and model or guide is none"
        names: dict[str, Tensor] = {}
        for module in self._modules:
            for name, value in module.named_parameters():
                if names.setdefault(name, value) is not value:
                    shown = name.removesuffix("_unconstrained")
                    return f"parameters are local to modules, and model and guide both have one named {shown!r}"
        return ""

    def loss(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        with self._local_parameters():
            if not self._known:  # who they are must be known before gradients of others can be put aside
                return self._first(args, kwargs)
            self._gradients.clear()
            with self._put_aside():
                value = self._svi.step(*args, **kwargs)
            gradients = dict(self._gradients)
            self._known.update(dict.fromkeys(gradients))
        parameters = list(gradients)
        if not parameters:
            return torch.tensor(value)
        loss: Tensor = _Loss.apply(  # type: ignore[no-untyped-call]
            value, [gradients[each] for each in parameters], *parameters
        )
        return loss

    def _first(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        with poutine.trace(param_only=True) as seen:
            loss: Tensor = self._elbo.differentiable_loss(self._svi.model, self._svi.guide, *args, **kwargs)
        values = [site["value"] for site in seen.trace.nodes.values()]
        self._known.update((getattr(value, "unconstrained", lambda value=value: value)(), None) for value in values)
        return loss

    @contextlib.contextmanager
    def _put_aside(self) -> Iterator[None]:
        """Inside the block, parameters hold no gradients; afterwards those that the user has left in them."""
        before = [(parameter, parameter.grad) for parameter in self._known]
        for parameter, _ in before:
            parameter.grad = None
        try:
            yield
        finally:
            for parameter, gradient in before:
                parameter.grad = gradient

    @contextlib.contextmanager
    def _local_parameters(self) -> Iterator[None]:
        """Where parameters are local to modules, they have names in a store of this program's own, and are the same tensors."""
        if not pyro.settings.get(_LOCAL):
            yield
            return
        with pyro.settings.context(**{_LOCAL: False}), pyro.get_param_store().scope(self._own_store) as store:
            yield
        self._own_store = store


class _Keep(Optimizer):
    """Takes no step, and keeps the gradients that it is given."""

    def __init__(self, params: Any, into: dict[Tensor, Tensor]) -> None:
        super().__init__(params, {})
        self._into = into

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Keep the gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.state[parameter]["met"] = True
                    self._into[parameter] = parameter.grad.detach().clone()


class _Loss(torch.autograd.Function):
    """A number with gradients that are known already."""

    @staticmethod
    def forward(ctx: Any, value: float, gradients: list[Tensor], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return parameters[0].new_tensor(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by: Tensor) -> Any:
        return None, None, *(gradient * by for gradient in ctx.gradients)


def _innermost(program: Any) -> Any:
    """A program without the handlers around it."""
    while isinstance(program, functools.partial):
        program = program.args[1] if len(program.args) >= 2 and isinstance(program.args[0], Messenger) else program.func
    return program


def _known_by(value: Any) -> Hashable:
    """Equal for programs that are the same but for handlers and partial functions that are made anew at each call."""
    if isinstance(value, functools.partial):
        inside = (value.func, *value.args, *(value.keywords or {}).values())
        return functools.partial, tuple(value.keywords or ()), tuple(map(_known_by, inside))
    if isinstance(value, types.MethodType):
        return value.__func__, ByIdentity(value.__self__)
    if isinstance(value, Messenger):
        return type(value), tuple((name, _known_by(each)) for name, each in sorted(vars(value).items()))
    if isinstance(value, bool | int | float | str | None):
        return type(value), value
    return ByIdentity(value)
