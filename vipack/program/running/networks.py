"""Which parameters are weights of networks, rather than numbers of a variational distribution."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any

from pyro.distributions.torch_transform import TransformModule
from pyro.infer.autoguide import AutoGuide
from pyro.poutine.messenger import Messenger
from torch import nn

from vipack.compat.autoguides import networks_given
from vipack.compat.nn_modules import pyro_parameters_of
from vipack.program.running.module_parameters import Slot

__all__ = ["weights_of_networks"]


def weights_of_networks(slots: Iterable[Slot], modules: Iterable[nn.Module], programs: Iterable[Any]) -> list[str]:
    """Names of the parameters that layers of networks hold, each once.

    A layer is any torch module (linear, convolution, norm, recurrent, embedding, or of the user's own class) but those whose
    own parameters are locations, scales and the like: an automatic guide with all that it made itself, a module that
    is the model or the guide, and a Pyro transform. What a PyroModule of the user's declares as a PyroParam is no weight.

    Args:
        modules: those that the program calls.
        programs: the model and the guide.
    """
    excepted = [_itself_and_its_lists(module) for program in programs if (module := _module_of(program)) is not None]
    excepted += [_own_modules(module) for module in modules if isinstance(module, AutoGuide)]
    without = {id(module) for some in excepted for module in some}
    return list(dict.fromkeys(name for owner, attribute, name in slots if _is_weight(owner, attribute, without)))


def _is_weight(owner: nn.Module, attribute: str, excepted: set[int]) -> bool:
    if id(owner) in excepted or isinstance(owner, TransformModule):
        return False
    declared = attribute.removesuffix("_unconstrained") in pyro_parameters_of(owner)
    return not declared or _is_torch_layer(owner)


def _is_torch_layer(module: nn.Module) -> bool:
    return any(kind.__module__.startswith("torch.nn.") and kind is not nn.Module for kind in type(module).__mro__)


def _module_of(program: Any) -> nn.Module | None:
    """The module that a model or guide is, or is a method of, without the handlers around it."""
    while isinstance(program, functools.partial):
        program = program.args[1] if len(program.args) >= 2 and isinstance(program.args[0], Messenger) else program.func
    module = getattr(program, "__self__", program)
    return module if isinstance(module, nn.Module) and not _is_torch_layer(module) else None


def _itself_and_its_lists(module: nn.Module) -> Iterator[nn.Module]:
    yield module
    yield from (child for child in module.children() if isinstance(child, nn.ParameterList | nn.ParameterDict))


def _own_modules(module: nn.Module) -> Iterator[nn.Module]:
    given = networks_given(module)
    yield module
    for child in module.children():
        if not any(child is network for network in given):
            yield from _own_modules(child)
