"""Settings and handlers of the whole process that change what Pyro or torch do in a step."""

from __future__ import annotations

from collections.abc import Hashable

import torch

from vipack.compat.dispatch import mode_depths, only_default_devices
from vipack.compat.messengers import handlers, handlers_around, settings_now
from vipack.compat.names import lacking
from vipack.compat.nn_modules import global_hooks

__all__ = ["reason_to_stay_with_pyro", "surroundings"]


def surroundings() -> tuple[Hashable, ...]:
    """Equal where two steps are taken under the same settings and handlers; cheap, since every step calls it."""
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_default_dtype(),
        torch.is_anomaly_enabled(),
        mode_depths(),
        len(handlers()),
        global_hooks(),
        _settings(),
    )


def reason_to_stay_with_pyro() -> str:
    """Why the next step must be Pyro's own and no graph's; empty where it need not be."""
    missing = lacking("graphs") or lacking("single steps")
    if missing:
        return missing
    handler = handlers_around()
    if handler:
        return f"a handler of Pyro's ({handler}) stands around the step; put it around the model or the guide instead"
    if not torch.is_grad_enabled() or torch.is_inference_mode_enabled():
        return "gradients are switched off around the step"
    if torch.is_autocast_enabled("cpu") or (torch.cuda.is_available() and torch.is_autocast_enabled("cuda")):
        return "autocast is on around the step"
    if torch.is_anomaly_enabled():
        return "anomaly detection is on around the step"
    if not only_default_devices():
        return "a mode of torch's that the user has set stands around the step"
    if any(global_hooks()):
        return "hooks on all modules are registered"
    return ""


_settings = settings_now()
