"""``vipack.SVI``: pyro.infer.SVI with the same constructor and methods, compiled inside."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import pyro
import pyro.infer
import torch
from pyro import poutine
from pyro.infer import ELBO
from torch import Tensor

from vipack.engine.capture import leaves_of
from vipack.engine.optimizers import PyroOptimizer
from vipack.engine.runner import GraphRunner
from vipack.engine.tiers import NonFiniteStep, Tier, TieredEngine
from vipack.errors import UsageError
from vipack.program import Arguments, Program, TorchState
from vipack.program.params import Parameters
from vipack.types import EngineReport

__all__ = ["SVI"]

_PLAIN_STEPS = 2  # that create parameters and optimizers, before there is anything to capture


class SVI(pyro.infer.SVI):  # type: ignore[misc]
    """``pyro.infer.SVI`` at the speed of compiled code; change the import and nothing else.

    Pyro's global parameter store, the modules and the optimizer are current after every step, and the random numbers are
    those that ``pyro.infer.SVI`` would draw. What cannot be captured runs as Pyro runs it; ``svi.engine`` says why.

    Args:
        model, guide, optim, loss: as for ``pyro.infer.SVI``.
        engine: "auto", "eager", "traced" or "compiled", as for ``vipack.fit``. With "auto" and single steps, a run is
            expected to last as long again as it has lasted.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        optim: pyro.optim.PyroOptim,
        loss: Any,
        loss_and_grads: Callable[..., Any] | None = None,
        *,
        engine: Tier = "auto",
    ) -> None:
        super().__init__(model, guide, optim, loss, loss_and_grads)
        self._elbo = loss if isinstance(loss, ELBO) else None
        self._tier = engine
        self._engine: TieredEngine | None = None
        self._plain_steps = 0
        self._last: tuple[Any, ...] = ()
        self._ready: GraphRunner | None = None
        self._report = EngineReport("eager", reason="" if self._elbo else "eager: the loss is not a pyro.infer ELBO")

    @property
    def engine(self) -> EngineReport:
        """Which tier ran, and why no faster one."""
        return self._report if self._engine is None else self._engine.report

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Take a gradient step and return the loss before it (nats), as ``pyro.infer.SVI.step`` does."""
        if self._ready is not None and self._same_call(args, kwargs):
            self._count_once()
            return self._ready.once()
        return self._advance(1, args, kwargs)[0]

    def run(self, num_steps: int, *args: Any, **kwargs: Any) -> np.ndarray:
        """Take `num_steps` steps on the same arguments and return their losses ``(num_steps,)`` in nats.

        Raises:
            UsageError: `num_steps` is not a positive integer.
        """
        if isinstance(num_steps, bool) or not isinstance(num_steps, int) or num_steps < 1:
            raise UsageError(f"num_steps: expected a positive integer, found {num_steps!r}; call run(1_000, *args).")
        return np.asarray(self._advance(num_steps, args, kwargs), dtype=np.float64)

    def _advance(self, num_steps: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        losses: list[Any] = []
        while len(losses) < num_steps and (self._plain_steps < _PLAIN_STEPS or self._elbo is None or self._changed()):
            losses.append(self._plain_step(Arguments(args, kwargs)))
        left = num_steps - len(losses)
        if left == 0:
            return losses
        engine = self._engine or self._make_engine(Arguments(args, kwargs))
        batches = _Calls(Arguments(args, kwargs))
        runner = engine.runner(batches.key)
        if runner is not None:
            runner.take(batches.leaves)
        expected = left if left > 1 else sum(engine.report.steps.values())
        try:
            losses += engine.advance(batches, left, expected)
        except NonFiniteStep as error:
            warnings.warn(f"Encountered NaN: {error}", stacklevel=3)  # as Pyro does, which goes on with it
            losses += [*error.losses, float("nan")]
        self._remember(engine, batches, args, kwargs)
        return losses

    def _plain_step(self, arguments: Arguments) -> Any:
        loss = super().step(*arguments.args, **arguments.kwargs)
        self._plain_steps += 1
        self._report.steps["eager"] = self._report.steps.get("eager", 0) + 1
        return loss

    def _changed(self) -> bool:
        """Whether the store no longer holds the parameters that the engine works on, as after clearing it."""
        if self._engine is None:
            return False
        store = pyro.get_param_store()
        if all(store._params.get(name) is value for name, value in self._shared.unconstrained.items()):
            return False
        self._engine, self._ready, self._plain_steps = None, None, 0
        return True

    def _make_engine(self, arguments: Arguments) -> TieredEngine:
        """The engine over the store's own parameters."""
        dtype = torch.get_default_dtype()
        modules: list[torch.nn.Module] = []
        hook = torch.nn.modules.module.register_module_forward_pre_hook(lambda module, _: modules.append(module))
        state = TorchState.current()
        try:
            with poutine.trace(param_only=True) as found, torch.no_grad():
                self.loss(self.model, self.guide, *arguments.args, **arguments.kwargs)
        finally:
            hook.remove()
            state.install()
        held = [site["value"] for site in found.trace.nodes.values() if isinstance(site.get("value"), Tensor)]
        device = held[0].device if held else torch.device("cpu")
        self._shared = Parameters.of_store(found.trace.nodes, modules, dtype, device)
        program = Program(self.model, self.guide, dtype=dtype, device=device)
        program.parameters = self._shared
        optimizer = PyroOptimizer(self.optim, self._shared, shared=True)
        self._engine = TieredEngine(program, self._elbo, optimizer, self._tier, eager=self._plain_step, live=True)
        self._engine.report.steps.update(self._report.steps)
        return self._engine

    def _remember(self, engine: TieredEngine, batches: _Calls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Once compiled, a step on the same tensors needs no more than a call of the loop."""
        runner = engine.runner(batches.key)
        self._ready = (
            runner if runner is not None and runner.native is not None and engine.settled(batches.key) else None
        )
        self._last = (*args, *kwargs.values())

    def _same_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        given = (*args, *kwargs.values()) if kwargs else args
        if (
            len(given) != len(self._last)
            or self._changed()
            or (self._engine is not None and not self._engine.unchanged())
        ):
            return False
        return all(one is other for one, other in zip(given, self._last, strict=True))

    def _count_once(self) -> None:
        steps = self.engine.steps
        tier = self.engine.tier
        steps[tier] = steps.get(tier, 0) + 1


class _Calls:
    """One call's arguments as an endless stream."""

    def __init__(self, arguments: Arguments) -> None:
        self._arguments = arguments
        self.leaves: list[Tensor] = leaves_of(arguments)[0]
        others = [repr(v) for v in (*arguments.args, *arguments.kwargs.items()) if not isinstance(v, Tensor | tuple)]
        self.key: Hashable = (*((tuple(leaf.shape), leaf.dtype) for leaf in self.leaves), *others)

    def __next__(self) -> Arguments:
        return self._arguments

    def peek(self) -> Arguments:
        return self._arguments

    def upcoming(self) -> tuple[Hashable, int]:
        return self.key, 1_000_000_000

    def rows(self, number: int) -> Tensor | None:
        return None

    def whole(self) -> Arguments | None:
        return None

    def state(self) -> dict[str, object]:
        return {}

    def load_state(self, state: dict[str, object]) -> None:
        pass
