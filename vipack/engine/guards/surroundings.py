"""What is set around a step, for the whole process, and changes what Pyro or torch do in it."""

from __future__ import annotations

from collections.abc import Hashable
from importlib import import_module
from typing import Any

import pyro.settings
import torch
from pyro.poutine import runtime
from torch.nn.modules import module as modules
from torch.utils._device import DeviceContext

__all__ = ["reason_to_stay_with_pyro", "surroundings"]


def surroundings() -> tuple[Hashable, ...]:
    """Equal where two steps are taken under the same settings and handlers; cheap, since it is asked for at every step."""
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_default_dtype(),
        torch.is_anomaly_enabled(),
        torch._C._len_torch_function_stack(),
        torch._C._len_torch_dispatch_stack(),
        len(runtime._PYRO_STACK),
        len(modules._global_forward_hooks),
        len(modules._global_forward_pre_hooks),
        len(modules._global_backward_hooks),
        len(modules._global_backward_pre_hooks),
        *[getattr(owner, name) for owner, name in _SETTINGS],
    )


def reason_to_stay_with_pyro() -> str:
    """Why no graph can stand for a step that is taken here and now; empty where one can."""
    if runtime._PYRO_STACK:
        handler = type(runtime._PYRO_STACK[-1]).__name__
        return f"a handler of Pyro's ({handler}) stands around the step; put it around the model or the guide instead"
    if not torch.is_grad_enabled() or torch.is_inference_mode_enabled():
        return "gradients are switched off around the step"
    if torch.is_autocast_enabled("cpu") or (torch.cuda.is_available() and torch.is_autocast_enabled("cuda")):
        return "autocast is on around the step"
    if torch.is_anomaly_enabled():
        return "anomaly detection is on around the step"
    if torch._C._len_torch_dispatch_stack() or not _only_devices():
        return "a mode of torch's that the user has set stands around the step"
    if any(getattr(modules, name) for name in _GLOBAL_HOOKS):
        return "hooks on all modules are registered"
    return ""


def _only_devices() -> bool:
    """Whether the modes of torch functions are default devices, as torch.set_default_device leaves them."""
    stack = [torch._C._get_function_stack_at(i) for i in range(torch._C._len_torch_function_stack())]
    return all(isinstance(mode, DeviceContext) for mode in stack)


_GLOBAL_HOOKS = (
    "_global_forward_hooks",
    "_global_forward_pre_hooks",
    "_global_backward_hooks",
    "_global_backward_pre_hooks",
)


def _settings() -> list[tuple[Any, str]]:
    """Where Pyro keeps its settings, those of torch's validation among them."""
    found = []
    for module, name, _ in pyro.settings._REGISTRY.values():
        owner: Any = import_module(module)
        *path, last = name.split(".")
        for part in path:
            owner = getattr(owner, part)
        found.append((owner, last))
    return found


_SETTINGS = _settings()
