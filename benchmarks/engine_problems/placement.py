"""Where a problem's tensors are made: on the host, or on a GPU."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import torch

__all__ = ["default_type", "device_name", "finish"]


def device_name(device: str) -> str:
    """What a table calls it."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


@contextlib.contextmanager
def default_type(device: str) -> Iterator[None]:
    """New tensors are of the device, at no cost to calls: ``torch.device`` as a context slows each of a step's thousand."""
    if device == "cpu":
        yield
        return
    warnings.filterwarnings("ignore", message=".*set_default_tensor_type.*")
    torch.set_default_tensor_type(torch.cuda.FloatTensor)
    try:
        yield
    finally:
        torch.set_default_tensor_type(torch.FloatTensor)


def finish(device: str) -> None:
    """Wait for what a GPU still has to do."""
    if device != "cpu":
        torch.cuda.synchronize()
