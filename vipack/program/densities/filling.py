"""Observed values that a mask leaves out: NaN for what is missing, or -1 for padding, is no value of a distribution.

A mask takes the density of such an element out of log p, but too late: Pyro's validation has refused the value by then, and
the gradient is NaN, since 0 * NaN is NaN. So the density is computed at a value inside the support instead. Only the
density: what ``pyro.sample`` returns, and what is exported, stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import MaskedDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_factor, site_is_subsample
from torch import Tensor
from torch.distributions import constraints, transform_to

from vipack.compat.autoguides import mask_of
from vipack.compat.supports import support_of
from vipack.program.densities.masking import counting, over_events, unmasked
from vipack.program.sites.sites import is_deterministic

__all__ = ["FilledData", "MaskedData", "without_missing"]


class FilledData(TorchDistribution):  # type: ignore[misc]
    """`base_dist`, whose density is taken at `filler` wherever a value that does not count lies outside the support.

    Args:
        counted: True where an element of the batch shape counts.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, base_dist: Any, counted: Tensor, filler: Tensor) -> None:
        self.base_dist, self._counted, self._filler = base_dist, counted, filler
        batch_shape = torch.broadcast_shapes(base_dist.batch_shape, counted.shape)
        super().__init__(torch.Size(batch_shape), base_dist.event_shape)

    @property
    def support(self) -> Any:
        """That of the base."""
        return self.base_dist.support

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Of the base, wherever the mask stands."""
        value: Tensor = self.base_dist.sample(torch.Size(sample_shape))
        return value

    def missing(self, value: Tensor) -> Tensor:
        """Which elements, over the batch shape, have no value that the distribution could give, and do not count."""
        missing: Tensor = ~(self._counted | self.support.check(value))
        return missing

    def log_prob(self, value: Tensor) -> Tensor:
        """log density in nats."""
        filled = torch.where(over_events(self.missing(value), self.event_dim), self._filler, value)
        density: Tensor = self.base_dist.log_prob(filled)
        return density


class MaskedData(Messenger):  # type: ignore[misc]
    """Fills observed values that a mask leaves out; outermost, so that it sees each message with all masks."""

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if not msg["is_observed"] or site_is_subsample(msg) or site_is_factor(msg) or is_deterministic(msg):
            return
        counted, value = counting(msg), msg["value"]
        if counted is None or not isinstance(value, Tensor) or value.layout != torch.strided:
            return
        fn = unmasked(msg["fn"])
        filler = _inside(support_of(fn), value)
        if filler is not None:
            msg["fn"] = _under_masks(msg["fn"], FilledData(fn, counted, filler))


def without_missing(node: Mapping[str, Any]) -> Tensor:
    """The unscaled density of an observed site, over its batch shape, NaN where its value is missing."""
    density: Tensor = node["unscaled_log_prob"]
    fn = unmasked(node["fn"])
    return density.masked_fill(fn.missing(node["value"]), torch.nan) if isinstance(fn, FilledData) else density


def _under_masks(fn: Any, filled: FilledData) -> Any:
    return (
        MaskedDistribution(_under_masks(fn.base_dist, filled), mask_of(fn))
        if isinstance(fn, MaskedDistribution)
        else filled
    )


def _inside(support: Any, value: Tensor) -> Tensor | None:
    """Some value in a support, to be broadcast with `value`; None where none is known."""
    if support is None:
        return None
    event_shape = value.shape[value.dim() - support.event_dim :]
    if not isinstance(support, constraints.independent):
        support = getattr(support, "base_constraint", support)  # of a mixture
    if not support.is_discrete:
        try:
            transform = transform_to(support)
            inside: Tensor = transform(value.new_zeros(transform.inverse_shape(event_shape)))
        except NotImplementedError:
            return None
        return inside
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if isinstance(support, constraints.multinomial):
        return torch.as_tensor(support.upper_bound).to(value)[..., None] * _first_of(event_shape, value)
    if support is constraints.one_hot:
        return _first_of(event_shape, value)
    return torch.as_tensor(getattr(support, "lower_bound", 0)).to(value)


def _first_of(event_shape: torch.Size, value: Tensor) -> Tensor:
    """One at the first index, zero at the others."""
    return (torch.arange(event_shape[-1], device=value.device) == 0).to(value.dtype)
