"""Variational autoencoders with several layers of latents: by a chain of encoders, or as a ladder."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, final

import pyro
import pyro.distributions as dist
from torch import Tensor, nn

from vipack.errors import UsageError
from vipack.hints import checked_class
from vipack.vae.autoencoder import Autoencoder, expect
from vipack.vae.coders import Decoder, Encoder, joined, output_shape
from vipack.vae.conditions import Condition
from vipack.vae.likelihoods import Likelihood
from vipack.vae.posteriors import DiagonalNormal
from vipack.vae.priors import Prior, StandardNormal

__all__ = ["HierarchicalVAE", "LadderVAE"]


class _LayeredVAE(Autoencoder):
    """The model: ``z_L ~ p(z_L)``, ``z_l ~ Normal(loc, scale)`` by the decoder of z_(l+1), and ``x ~ p(x | z_1)``."""

    def __init__(
        self,
        encoders: Sequence[nn.Module],
        decoders: Sequence[nn.Module],
        *,
        likelihood: Likelihood,
        num_latents: Sequence[int],
        prior: Prior | None = None,
        condition: Condition | None = None,
        head: bool = True,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        expect(name, "likelihood", likelihood, Likelihood, "Bernoulli(784)")
        expect(name, "prior", prior, Prior | None, "MixturePrior(20)")
        expect(name, "condition", condition, Condition | None, "Labels(10)")
        sizes = tuple(num_latents)
        if len({len(sizes), len(encoders), len(decoders)}) > 1 or not sizes or min(sizes) < 1:
            raise UsageError(
                f"{name}: num_latents, encoders and decoders must each have one entry for a layer of latents, the one next to x "
                f"first; found num_latents={sizes}, {len(encoders)} encoders and {len(decoders)} decoders."
            )
        if prior is not None and (prior.reads_inputs or not prior.proper):
            given = type(prior).__name__
            raise UsageError(f"{name}: {given} is a prior of one layer of latents; take MixturePrior or FlowPrior.")
        self.likelihood, self.condition, self.num_latents = likelihood, condition, sizes
        width = 0 if condition is None else condition.num_features
        self.decoder = Decoder(decoders[0], likelihood, sizes[0] + width, head)
        self.between = nn.ModuleList(
            Encoder(network, DiagonalNormal(), (above,), below)
            for network, above, below in zip(decoders[1:], sizes[1:], sizes[:-1], strict=True)
        )
        self.prior = StandardNormal() if prior is None else prior
        self.prior.build(sizes[-1])
        self._read_by(encoders)

    @final
    def model(self, x: Tensor, y: Tensor | None = None) -> None:
        """See :class:`Autoencoder`; the sites are ``z1`` (next to x), ``z2`` and so on."""
        x, condition = self.read(x, y)
        pyro.module("decoder", self.decoder)
        self._register_between()
        self.prior.register()
        with pyro.plate("data", len(x)):
            z = pyro.sample(f"z{len(self.num_latents)}", self.prior())
            for layer in range(len(self.num_latents) - 1, 0, -1):
                z = pyro.sample(f"z{layer}", _broadcast(self.between[layer - 1], z))
            self.observe(joined(z, condition), x, y)

    @abstractmethod
    def _read_by(self, encoders: Sequence[nn.Module]) -> None:
        """Make what the guide has of the encoders, the one that reads x first."""

    @abstractmethod
    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        """See :class:`Autoencoder`."""

    @final
    def _register_between(self) -> None:
        if len(self.between):
            pyro.module("between", self.between)

    @final
    def _initialize(self, inputs: Tensor) -> None:
        """Nothing else depends on the data."""


@checked_class
@final
class HierarchicalVAE(_LayeredVAE):
    """Several layers of latents, encoded one from the draw of the other: ``q(z1 | x) q(z2 | z1)``.

    Args:
        encoders: modules to features; the first reads x (and the condition), the second z1.
        decoders: modules from latents to features; the first decodes z1 (and the condition) into x, the second z2 into z1.
        num_latents: of each layer, that next to x first, as (100, 50).
        prior: of the topmost latents.
        head: as for :class:`VAE`.

    Source: Burda et al. (2016), arXiv:1509.00519, section 5; the two-layer network.
    """

    def _read_by(self, encoders: Sequence[nn.Module]) -> None:
        sizes = self.num_latents
        inputs = [self.input_shape, *((size,) for size in sizes[:-1])]
        self.encoders = nn.ModuleList(
            Encoder(network, DiagonalNormal(), read, size)
            for network, read, size in zip(encoders, inputs, sizes, strict=True)
        )

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        """See :class:`Autoencoder`."""
        pyro.module("encoders", self.encoders)
        x, condition = self.read(x, y)
        with pyro.plate("data", len(x)):
            z = joined(self.likelihood.features(x), condition)
            for layer, encoder in enumerate(self.encoders):
                z = pyro.sample(f"z{layer + 1}", encoder(z) if not layer else _broadcast(encoder, z))


@checked_class
@final
class LadderVAE(_LayeredVAE):
    """Several layers of latents, encoded from the top: each posterior weighs what x says against its prior given the one above.

    Deterministic features go up; the posterior of a layer is the product of the normal that they give and the prior's, by
    precisions. The arguments are those of :class:`HierarchicalVAE`, but that the second encoder reads the first one's features.

    Source: Sønderby et al. (2016), arXiv:1602.02282, equations 17 to 19.
    """

    def _read_by(self, encoders: Sequence[nn.Module]) -> None:
        self.encoders = nn.ModuleList(encoders)
        self.heads = nn.ModuleList()
        shape = self.input_shape
        for network, size in zip(encoders, self.num_latents, strict=True):
            shape = output_shape("encoder", network, shape)
            head_of_layer = DiagonalNormal()
            head_of_layer.build(math.prod(shape), size)
            self.heads.append(head_of_layer)

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        """See :class:`Autoencoder`."""
        pyro.module("encoders", self.encoders)
        pyro.module("heads", self.heads)
        self._register_between()
        x, condition = self.read(x, y)
        features = joined(self.likelihood.features(x), condition)
        said: list[tuple[Tensor, Tensor]] = []
        for encoder, head in zip(self.encoders, self.heads, strict=True):
            features = encoder(features)
            normal = head(features.flatten(1)).base_dist
            said.append((normal.loc, normal.scale))
        with pyro.plate("data", len(x)):
            z = pyro.sample(f"z{len(said)}", dist.Normal(*said[-1]).to_event(1))
            for layer in range(len(said) - 1, 0, -1):
                prior = _broadcast(self.between[layer - 1], z).base_dist
                z = pyro.sample(f"z{layer}", _product(*said[layer - 1], prior.loc, prior.scale))


def _broadcast(encoder: nn.Module, inputs: Tensor) -> Any:
    """The normal given inputs ``(..., D)``: networks take a batch and no more."""
    if inputs.dim() == 2:
        return encoder(inputs)
    normal = encoder(inputs.reshape(-1, inputs.shape[-1])).base_dist
    shape = (*inputs.shape[:-1], normal.loc.shape[-1])
    return dist.Normal(normal.loc.reshape(shape), normal.scale.reshape(shape)).to_event(1)


def _product(loc: Tensor, scale: Tensor, prior_loc: Tensor, prior_scale: Tensor) -> Any:
    """The normal proportional to the product of two."""
    precision, prior_precision = scale**-2, prior_scale**-2
    total = precision + prior_precision
    return dist.Normal((loc * precision + prior_loc * prior_precision) / total, total**-0.5).to_event(1)
