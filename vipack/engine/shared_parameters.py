"""The parameters of a program that works on Pyro's global store and the user's own modules, as ``pyro.infer.SVI`` does."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator
from typing import Any

import torch
from pyro import poutine
from torch import Tensor, nn

from vipack.compat.gradient_hooks import has_gradient_hooks, hooks_unseen
from vipack.compat.nn_modules import buffers_of, has_backward_hooks, parameters_of
from vipack.compat.param_store import stored
from vipack.compat.pytorch import version_of
from vipack.program import Parameters

__all__ = ["SharedParameters"]


class SharedParameters:
    """The parameters that steps of Pyro's have met in the store and in modules, and whether they still are as the steps left them."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}
        self._modules: dict[int, nn.Module] = {}
        self._parameters: Parameters | None = None
        self._met: list[_Met] = []
        self._entries: list[tuple[dict[str, Any], str, Tensor]] = []  # of tables of modules, and their tensors

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        params, _ = stored()
        return next((params[name].device for name in self._names), torch.device("cpu"))

    def of_type(self, dtype: torch.dtype) -> Parameters:
        """All of them, for a program of this type."""
        self._parameters = Parameters.of_store(self._names, self._modules.values(), dtype, self.device)
        return self._parameters

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Take note of the parameters and modules of a step that is taken inside."""
        modules: dict[int, nn.Module] = {}
        hook = nn.modules.module.register_module_forward_pre_hook(lambda module, _: _note(modules, module))
        params, _ = stored()
        met = [params[name] for name in self._names if name in params]
        try:
            with hooks_unseen(met), poutine.trace(param_only=True) as seen:
                yield
        finally:
            hook.remove()
        names = [name for name, site in seen.trace.nodes.items() if isinstance(site.get("value"), Tensor)]
        new = [name for name in names if name not in self._names]
        new_modules = {key: module for key, module in modules.items() if key not in self._modules}
        self._names.update(dict.fromkeys(new))
        self._modules.update(new_modules)
        if self._parameters is not None and (new or new_modules):
            self._parameters.extend_from_store(new, new_modules.values())
        if self._parameters is not None:
            self._parameters.keep_buffers()
        self.look()

    def replaced(self) -> bool:
        """Whether the store no longer holds these parameters, as after clearing it, or a module no longer its own."""
        params, constraints = stored()
        if any(params.get(p.name) is not p.value or constraints.get(p.name) is not p.constraint for p in self._met):
            return True
        return any(table.get(name) is not value for table, name, value in self._entries)

    def unchanged(self) -> bool:
        """Whether all is as the last step left it; asked for at every step, and so in one go."""
        params, constraints = stored()
        for met in self._met:
            value, gradient = met.value, met.gradient
            if (
                params.get(met.name) is not value
                or constraints.get(met.name) is not met.constraint
                or value.grad is not gradient
                or (gradient is not None and version_of(gradient) != met.version)
                or value.requires_grad is not met.trainable
                or has_gradient_hooks(value)
            ):
                return False
        return all(table.get(name) is value for table, name, value in self._entries)

    def trainable(self) -> Hashable:
        """Which of them require gradients."""
        return tuple(met.value.requires_grad for met in self._met)

    def reason(self) -> str:
        """Why the next step must be Pyro's own; empty where it need not be."""
        for met in self._met:
            gradient = met.value.grad
            if gradient is met.gradient and (gradient is None or version_of(gradient) == met.version):
                continue
            if gradient is not None and bool((gradient != 0).any()):
                return f"parameter {met.name!r} holds a gradient that is not this step's, and Pyro adds to it"
        if any(_has_backward_hooks(module) for module in self._modules.values()):
            return "a module has a hook on its gradients"
        return ""

    def look(self) -> None:
        """Note parameters and modules as they are now, after a step."""
        params, constraints = stored()
        self._met = [_Met(name, params[name], constraints[name]) for name in self._names if name in params]
        ours = {id(met.value) for met in self._met}
        modules = {id(module): module for outer in self._modules.values() for module in outer.modules()}
        self._entries = [
            (table, name, value)
            for module in modules.values()
            for table, only in ((parameters_of(module), ours), (buffers_of(module), None))
            for name, value in table.items()
            if value is not None and (only is None or id(value) in only)
        ]


class _Met:
    """A parameter as a step left it."""

    __slots__ = ("constraint", "gradient", "name", "trainable", "value", "version")

    def __init__(self, name: str, value: Any, constraint: Any) -> None:
        self.name, self.value, self.constraint = name, value, constraint
        self.trainable: bool = value.requires_grad
        self.gradient: Tensor | None = value.grad
        self.version = 0 if self.gradient is None else version_of(self.gradient)


def _has_backward_hooks(module: nn.Module) -> bool:
    return any(has_backward_hooks(each) for each in module.modules())


def _note(modules: dict[int, nn.Module], module: nn.Module) -> None:
    modules[id(module)] = module
