"""Private names around torch's modes: what stands around a step, and a mode that sees every operation."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from vipack.compat.names import named

__all__ = ["Operations", "mode_depths", "only_default_devices"]

_BASE: Any = TorchFunctionMode
_DEVICES: tuple[type, ...] = ()
with contextlib.suppress(ImportError):
    from torch.utils._python_dispatch import TorchDispatchMode as _BASE
with contextlib.suppress(ImportError):
    from torch.utils._device import DeviceContext as _DeviceContext

    _DEVICES = (_DeviceContext,)

named(
    "torch",
    "torch.utils._python_dispatch.TorchDispatchMode",
    without="a program that reads numbers from tensors into Python is not captured",
)
for _name in ("torch._C._len_torch_function_stack", "torch._C._len_torch_dispatch_stack"):
    named("torch", _name, without="modes of torch's around a step would not be seen", stops="single steps")
for _name in ("torch._C._get_function_stack_at", "torch.utils._device.DeviceContext"):
    named(
        "torch",
        _name,
        without="a default device cannot be told from other modes of torch's around a step",
        stops="single steps",
    )


class Operations(_BASE):  # type: ignore[misc]
    """Inside the block, :meth:`operation` sees every operation of torch's.

    They are operators of ATen; where torch has no such mode, they are functions of torch's as they are called.
    """

    def __init__(self) -> None:
        super().__init__()

    def operation(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What an operation gives."""
        return function(*args, **kwargs)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.operation(func, args, kwargs or {})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.operation(func, args, kwargs or {})


def mode_depths() -> tuple[int, int]:
    """How many modes of torch functions and of operators stand around."""
    return torch._C._len_torch_function_stack(), torch._C._len_torch_dispatch_stack()


def only_default_devices() -> bool:
    """Whether the modes around are default devices, as torch.set_default_device leaves them."""
    functions, operators = mode_depths()
    stack = [torch._C._get_function_stack_at(i) for i in range(functions)]
    return not operators and all(isinstance(mode, _DEVICES) for mode in stack)
