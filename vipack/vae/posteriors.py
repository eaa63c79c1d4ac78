"""Amortised posteriors q(z | x): distributions of the latents, computed from the features that an encoder puts out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, final

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from vipack.errors import UsageError
from vipack.hints import checked_class
from vipack.vae.flows import AutoregressiveLayers, CouplingLayers, flow_options

__all__ = ["AutoregressiveFlow", "CouplingFlow", "DiagonalNormal", "FullNormal", "Point", "Posterior"]

FLOOR = 1e-4  # of scales: one that underflows has an infinite density
_ONE = 0.5413  # softplus of it is 1


class Posterior(nn.Module, ABC):
    """q(z | x) given features; it gets its weights when a builder learns the numbers of features and latents.

    Attributes:
        mixable: whether densities at any point are cheap, as a VampPrior needs them.
    """

    mixable = True
    _sizes: tuple[int, int] | None = None

    @final
    def build(self, num_features: int, num_latents: int) -> None:
        """Make the weights; does nothing for the sizes that it has already.

        Raises:
            UsageError: it was built for other sizes, in another model.
        """
        if self._sizes == (num_features, num_latents):
            return
        if self._sizes is not None:
            raise UsageError(
                f"posterior: this {type(self).__name__} already belongs to a model with {self._sizes[0]} features and "
                f"{self._sizes[1]} latents, found {num_features} and {num_latents}; make a new one for each model."
            )
        self._build(num_features, num_latents)
        self._sizes = (num_features, num_latents)

    @abstractmethod
    def forward(self, features: Tensor) -> Any:
        """The distribution of z ``(N, num_latents)`` given features ``(N, num_features)``; one event dimension."""

    @abstractmethod
    def _build(self, num_features: int, num_latents: int) -> None: ...


@final
class DiagonalNormal(Posterior):
    """Independent normals: ``z = loc + scale * eps``."""

    def forward(self, features: Tensor) -> Any:
        """See :class:`Posterior`."""
        loc, raw = self.head(features).chunk(2, -1)
        return dist.Normal(loc, softplus(raw) + FLOOR).to_event(1)

    def _build(self, num_features: int, num_latents: int) -> None:
        self.head = _head(num_features, [num_latents, num_latents])


@final
class Point(Posterior):
    """One value of z for each x, as in an autoencoder without probabilities; with a :class:`~vipack.vae.priors.Flat` prior it is one.

    There is no posterior then, and neither an ELBO nor a log p(x): ``fit.elbo()`` is the mean of log p(x | z) and log p(z).
    """

    mixable = False

    def forward(self, features: Tensor) -> Any:
        """See :class:`Posterior`."""
        return dist.Delta(self.head(features)).to_event(1)

    def _build(self, num_features: int, num_latents: int) -> None:
        self.head = nn.Linear(num_features, num_latents)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)


@checked_class
@final
class FullNormal(Posterior):
    """A normal with correlated latents.

    Args:
        rank: of ``diag(scale^2) + factor factor^T``; None for a full covariance, by its Cholesky factor.
    """

    def __init__(self, rank: int | None = None) -> None:
        super().__init__()
        if rank is not None and rank < 1:
            raise UsageError(f"FullNormal: rank must be at least 1 or None, found {rank}.")
        self.rank = rank

    def forward(self, features: Tensor) -> Any:
        """See :class:`Posterior`."""
        loc, raw, others = self.head(features).split(self._widths, -1)
        scale = softplus(raw) + FLOOR
        size = loc.shape[-1]
        if self.rank is not None:
            return dist.LowRankMultivariateNormal(loc, others.unflatten(-1, (size, self.rank)), scale**2)
        # A matrix product puts the numbers below the diagonal; an assignment would be refused under vmap.
        below = (others @ self.positions).unflatten(-1, (size, size))
        return dist.MultivariateNormal(loc, scale_tril=below + torch.diag_embed(scale))

    positions: Tensor

    def _build(self, num_features: int, num_latents: int) -> None:
        rows, columns = torch.tril_indices(num_latents, num_latents, -1)
        num_others = len(rows) if self.rank is None else num_latents * self.rank
        self._widths = [num_latents, num_latents, num_others]
        self.head = _head(num_features, self._widths)
        if self.rank is None:
            positions = torch.zeros(len(rows), num_latents * num_latents)
            positions[torch.arange(len(rows)), rows * num_latents + columns] = 1
            self.register_buffer("positions", positions)


@checked_class
@final
class CouplingFlow(Posterior):
    """Independent normals moved by affine coupling layers that read the features too; densities cost as much as draws."""

    def __init__(self, num_layers: int = 4, hidden: Sequence[int] = (64,)) -> None:
        super().__init__()
        self._options = flow_options("CouplingFlow", num_layers, hidden)

    def forward(self, features: Tensor) -> Any:
        """See :class:`Posterior`."""
        return dist.TransformedDistribution(self.base(features), [self.layers(features)])

    def _build(self, num_features: int, num_latents: int) -> None:
        self.base = DiagonalNormal()
        self.base.build(num_features, num_latents)
        self.layers = CouplingLayers(num_latents, *self._options, num_features)


@checked_class
@final
class AutoregressiveFlow(Posterior):
    """Independent normals moved by inverse autoregressive layers that read the features too (IAF).

    Source: Kingma et al. (2016), arXiv:1606.04934.
    """

    mixable = False

    def __init__(self, num_layers: int = 2, hidden: Sequence[int] = (320,)) -> None:
        super().__init__()
        self._options = flow_options("AutoregressiveFlow", num_layers, hidden)

    def forward(self, features: Tensor) -> Any:
        """See :class:`Posterior`."""
        return dist.TransformedDistribution(self.base(features), self.layers(features))

    def _build(self, num_features: int, num_latents: int) -> None:
        if num_latents < 2:
            raise UsageError("AutoregressiveFlow: one latent has no order to be autoregressive in; take CouplingFlow.")
        self.base = DiagonalNormal()
        self.base.build(num_features, num_latents)
        self.layers = AutoregressiveLayers(num_latents, *self._options, num_features)


def _head(num_features: int, widths: Sequence[int]) -> nn.Linear:
    """A linear layer for locations, raw scales and whatever follows, which starts at scales of about one."""
    head = nn.Linear(num_features, sum(widths))
    loc, scale = widths[:2]
    with torch.no_grad():
        nn.init.xavier_uniform_(head.weight[:loc])
        head.weight[loc:] *= 0.1
        head.bias.zero_()
        head.bias[loc : loc + scale] = _ONE
    return head
