"""Flat priors: a first value for ``ImproperUniform``, which has no ``sample()`` of its own.

Pyro's guides start from a draw of the prior, so a model with a flat prior fails unless initial values are given.
Stan's users expect it to work: a draw is made uniformly in (-2, 2) on the unconstrained space, as Stan does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from pyro.distributions import ImproperUniform
from torch import Tensor
from torch.distributions import transform_to

from vipack.compat.patching import patched

__all__ = ["flat_priors_sampled"]

_RADIUS = 2.0  # Stan reference manual, "Initialization"


@contextlib.contextmanager
def flat_priors_sampled() -> Iterator[None]:
    """Give ``ImproperUniform`` a ``sample()`` inside the block, for initial values only."""
    with patched(ImproperUniform, sample=_draw):
        yield


def _draw(self: Any, sample_shape: Any = ()) -> Tensor:
    transform = transform_to(self.support)
    shape = transform.inverse_shape(torch.Size(sample_shape) + self.batch_shape + self.event_shape)
    value: Tensor = transform(torch.empty(shape).uniform_(-_RADIUS, _RADIUS))
    return value
