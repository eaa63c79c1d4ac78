"""Giving a program's latents values: as they are, or as what unconstrained tensors transform to."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from pyro.distributions import Normal
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import biject_to
from torch.distributions.constraints import Constraint

from vipack.compat.enumerated import ENUMERATION_KEYS, enumerated_dim
from vipack.compat.supports import support_or_reals
from vipack.program.densities.masking import counting, to_batch

__all__ = ["Given", "Transformed", "Widened"]


class Widened(Messenger):  # type: ignore[misc]
    """Inside the block float32 draws are of float64, the type of the program.

    A prior that is made before the fit, as ``PyroSample(Normal(0., 1.))`` of a module, draws in the type of its own
    tensors, and torch multiplies no matrices of different types.

    Args:
        sites: takes the names of those whose draws are widened.
    """

    def __init__(self, sites: set[str]) -> None:
        super().__init__()
        self._sites = sites

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        value = msg["value"]
        if isinstance(value, Tensor) and value.dtype == torch.float32 and not msg["is_observed"]:
            msg["value"] = value.double()
            self._sites.add(msg["name"])


class Given(Messenger):  # type: ignore[misc]
    """Gives sites the values at hand, as draws rather than observations."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._values = values

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] in self._values:
            msg["value"] = self._values[msg["name"]]
            msg["done"] = True
            if enumerated_dim(msg["infer"]) is not None:  # an inner handler has marked it for enumeration
                msg["infer"] = {k: v for k, v in msg["infer"].items() if k not in ENUMERATION_KEYS}


class Transformed(Messenger):  # type: ignore[misc]
    """Inside the block each named latent takes the value that its unconstrained tensor transforms to.

    Args:
        unconstrained: latent name -> unconstrained value; dimensions left of the latent's own are draws.
        supports: latent name -> the support to transform to; None takes the one that the latent has at that point,
            which may depend on latents before it, as in ``Uniform(0, a)``.
        idle: the latents of which a mask leaves out elements that nothing depends on.

    Attributes:
        values: latent name -> constrained value, once the model has run.
        log_dets: latent name -> log |dz/du| in nats, one for each element of its batch shape.
        gains: latent name -> the same, but the log density of a standard normal where a mask leaves out idle elements:
            what log p(x, z) gains to be a proper density of u.
        supports: latent name -> the support that was transformed to.
    """

    def __init__(
        self,
        unconstrained: Mapping[str, Tensor],
        supports: Mapping[str, Constraint] | None = None,
        idle: Collection[str] = (),
    ) -> None:
        super().__init__()
        self._unconstrained = unconstrained
        self._supports = supports
        self._idle = idle
        self.values: dict[str, Tensor] = {}
        self.log_dets: dict[str, Tensor] = {}
        self.gains: dict[str, Tensor] = {}
        self.supports: dict[str, Constraint] = {}

    @property
    def gain(self) -> Tensor:
        """The sum ``()`` of all gains."""
        return torch.stack([gain.sum() for gain in self.gains.values()]).sum()

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        name = msg["name"]
        if name not in self._unconstrained:
            return
        u = self._unconstrained[name]
        support = support_or_reals(msg["fn"]) if self._supports is None else self._supports[name]
        transform = biject_to(support)
        value = transform(u)
        batch = value.dim() - msg["fn"].event_dim
        log_det = to_batch(transform.log_abs_det_jacobian(u, value), batch)
        self.supports[name] = support
        self.values[name] = value
        self.log_dets[name] = self.gains[name] = log_det
        if name in self._idle and (counted := counting(msg)) is not None:
            normal = Normal(torch.zeros_like(u), 1.0, validate_args=False).log_prob(u)
            self.gains[name] = torch.where(counted, log_det, to_batch(normal, batch))
        msg["value"] = value
        msg["done"] = True
