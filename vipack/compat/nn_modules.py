"""Private names of ``torch.nn.Module``: the tables of its parameters, buffers and child modules, and its hooks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as _module

from vipack.compat.names import PrivateName, Stops, named
from vipack.errors import UsageError

__all__ = [
    "CHILDREN_TABLE",
    "GLOBAL_HOOKS",
    "MODULE_HOOKS",
    "MODULE_TABLES",
    "buffers_of",
    "global_hooks",
    "has_backward_hooks",
    "is_set_up",
    "parameters_of",
    "pyro_parameters_of",
    "refresh_flat_weights",
]

GLOBAL_HOOKS = (
    "_global_forward_hooks",
    "_global_forward_pre_hooks",
    "_global_backward_hooks",
    "_global_backward_pre_hooks",
)
MODULE_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
CHILDREN_TABLE = "_modules"
MODULE_TABLES = ("_parameters", "_buffers", CHILDREN_TABLE)


def _of_instance(name: str, without: str, stops: Stops = "") -> PrivateName:
    return named("torch", f"nn.Module.{name}", lambda: vars(nn.Module())[name], without=without, stops=stops)


PARAMETERS, BUFFERS, CHILDREN = (
    _of_instance(name, "a program whose torch.nn modules a fit would have to lend its tensors to is refused")
    for name in MODULE_TABLES
)
for _name in MODULE_HOOKS:
    _of_instance(_name, "a hook that is put on a module during a run would not be seen", "graphs")
for _name in GLOBAL_HOOKS:
    named(
        "torch",
        f"torch.nn.modules.module.{_name}",
        f"torch.nn.modules.module:{_name}",
        without="hooks on all modules would not be seen",
        stops="single steps",
    )
FLAT_WEIGHTS = named(
    "torch",
    "nn.RNN._flat_weights",
    lambda: _recurrent(),
    without="a recurrent network that keeps a list of its weights elsewhere trains its own, not the fit's",
)
PYRO_PARAMS = named(
    "pyro",
    "PyroModule._pyro_params",
    lambda: _pyro_module()._pyro_params,
    without="what a PyroModule declares while it runs stays with it after the fit",
)


class _Unlendable(dict[str, Any]):
    """What a module's table holds, where the table itself cannot be had."""

    def __setitem__(self, name: str, value: Any) -> None:
        raise UsageError(
            f"{PARAMETERS.message}. The model or guide has a torch.nn module with {name!r}; install a release of torch that "
            "vipack has been tested with."
        )


def parameters_of(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """Name -> parameter of a module, without those of its children; to be written to."""
    return module._parameters if PARAMETERS.there else _Unlendable(module.named_parameters(recurse=False))


def buffers_of(module: nn.Module) -> dict[str, Tensor | None]:
    """Name -> buffer of a module, without those of its children; to be written to."""
    return module._buffers if BUFFERS.there else _Unlendable(module.named_buffers(recurse=False))


def is_set_up(module: nn.Module) -> bool:
    """Whether its constructor has run as far as ``nn.Module``'s own."""
    return "_parameters" in module.__dict__ or not PARAMETERS.there


def has_backward_hooks(module: nn.Module) -> bool:
    """Whether something of the user's is called with a module's gradients."""
    return any(getattr(module, name, None) for name in ("_backward_hooks", "_backward_pre_hooks"))


def global_hooks() -> tuple[int, ...]:
    """How many hooks on all modules there are, of each kind."""
    return tuple(map(len, _TABLES))


_TABLES: tuple[Any, ...] = tuple(getattr(_module, name, ()) for name in GLOBAL_HOOKS)


def refresh_flat_weights(modules: Iterable[nn.Module]) -> None:
    """nn.RNN and its kin keep a second list of their weights, which a change of their table does not reach."""
    for module in modules:
        if isinstance(module, nn.RNNBase) and FLAT_WEIGHTS.there:
            table: Any = parameters_of(module)
            module._flat_weights = [table.get(name) for name in module._flat_weights_names]


def pyro_parameters_of(module: nn.Module) -> dict[str, Any]:
    """Name -> what a PyroModule knows of the parameter."""
    parameters: dict[str, Any] = module.__dict__.get("_pyro_params", {})
    return parameters


def _recurrent() -> None:
    with torch.random.fork_rng([]):
        network: Any = nn.RNN(1, 1)
    network._flat_weights, network._flat_weights_names  # noqa: B018


def _pyro_module() -> Any:
    from pyro.nn import PyroModule

    return PyroModule()
