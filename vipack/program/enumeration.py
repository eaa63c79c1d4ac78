"""Summing out discrete latents under ``torch.vmap``, which Pyro's own enumeration refuses at two places."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.ops.einsum import torch_log
from pyro.poutine.enum_messenger import EnumMessenger
from torch import Tensor

__all__ = ["Enumerate", "safe_log", "vmappable_sums"]


class Enumerate(EnumMessenger):  # type: ignore[misc]
    """Pyro's own messenger, but for its use of ``value.data``."""

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        if not isinstance(msg["fn"], TorchDistributionMixin):
            return
        shape = msg["value"].shape[: msg["value"].dim() - msg["fn"].event_dim]
        dims = msg["infer"].setdefault("_dim_to_id", {})
        dims.update(self._param_dims.get(msg["name"], {}))
        self._value_dims[msg["name"]] = {d: i for d, i in dims.items() if len(shape) >= -d and shape[d] > 1}


@contextlib.contextmanager
def vmappable_sums() -> Iterator[None]:
    """Let Pyro's sum-product contractions run under vmap inside the block."""
    original = torch_log.safe_log
    torch_log.safe_log = safe_log
    try:
        yield
    finally:
        torch_log.safe_log = original


def safe_log(x: Tensor) -> Tensor:
    """``pyro.ops.special.safe_log``: a logarithm whose gradient is finite at zero, in the form that vmap takes."""
    value: Tensor = _SafeLog.apply(x)  # type: ignore[no-untyped-call]
    return value


class _SafeLog(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.log()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        gradient: Tensor = grad / x.clamp(min=torch.finfo(x.dtype).eps)
        return gradient
