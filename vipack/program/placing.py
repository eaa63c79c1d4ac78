"""Giving a model's latents the values that unconstrained tensors transform to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import biject_to
from torch.distributions.constraints import Constraint

__all__ = ["Place"]


class Place(Messenger):  # type: ignore[misc]
    """Inside the block each named latent takes the value that its unconstrained part transforms to.

    Args:
        parts: latent name -> unconstrained value; dimensions left of the latent's own are draws.
        supports: latent name -> the support to transform to; None takes the one that the latent has at that point,
            which may depend on latents before it, as in ``Uniform(0, a)``.

    Attributes:
        values: latent name -> constrained value, once the model has run.
        log_dets: latent name -> log |dz/du| in nats, one for each element of its batch shape.
        supports: latent name -> the support that was transformed to.
    """

    def __init__(self, parts: Mapping[str, Tensor], supports: Mapping[str, Constraint] | None = None) -> None:
        super().__init__()
        self._parts = parts
        self._supports = supports
        self.values: dict[str, Tensor] = {}
        self.log_dets: dict[str, Tensor] = {}
        self.supports: dict[str, Constraint] = {}

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        name = msg["name"]
        if name not in self._parts:
            return
        part = self._parts[name]
        support = msg["fn"].support if self._supports is None else self._supports[name]
        transform = biject_to(support)
        value = transform(part)
        log_det = transform.log_abs_det_jacobian(part, value)
        extra = log_det.dim() - (value.dim() - msg["fn"].event_dim)
        self.supports[name] = support
        self.values[name] = value
        self.log_dets[name] = log_det.flatten(-extra).sum(-1) if extra > 0 else log_det
        msg["value"] = value
        msg["done"] = True
