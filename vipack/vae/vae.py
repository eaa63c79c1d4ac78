"""The variational autoencoder with one layer of latents."""

from __future__ import annotations

import math
from typing import Any, final

import pyro
from torch import Tensor, nn

from vipack.errors import UsageError
from vipack.hints import checked_class
from vipack.vae.autoencoder import Autoencoder, expect
from vipack.vae.coders import Decoder, Encoder, joined
from vipack.vae.conditions import Condition
from vipack.vae.likelihoods import Likelihood
from vipack.vae.networks import MLP
from vipack.vae.posteriors import DiagonalNormal, Point, Posterior
from vipack.vae.priors import Prior, StandardNormal, VampPrior

__all__ = ["VAE"]


@checked_class
@final
class VAE(Autoencoder):
    """A variational autoencoder: ``z ~ p(z)``, ``x ~ p(x | z)``, and an encoder ``q(z | x)``.

    ``vae.model`` and ``vae.guide`` are plain Pyro programs, with sites ``z`` and ``x`` in a plate ``data``.

    Args:
        encoder, decoder: modules from a batch to features; the last layers, for locations, scales and logits, are made
            here. The encoder is given ``likelihood.features(x)``, the decoder z; both with the condition beside it. None
            takes :class:`~vipack.vae.networks.MLP` with its own widths.
        likelihood: p(x | z), made for the shape of one observation; see :mod:`vipack.vae.likelihoods`.
        condition: :class:`Labels` or :class:`Covariates`, the second argument ``y`` of model and guide.
        head: False where the decoder puts out all of the likelihood's numbers itself.

    Raises:
        ShapeError: a network cannot be run on what it is given, or the decoder's output does not fit x.

    Source: Kingma and Welling (2014), arXiv:1312.6114.
    """

    def __init__(
        self,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        *,
        likelihood: Likelihood,
        num_latents: int,
        prior: Prior | None = None,
        posterior: Posterior | None = None,
        condition: Condition | None = None,
        head: bool = True,
    ) -> None:
        super().__init__()
        expect("VAE", "likelihood", likelihood, Likelihood, "Bernoulli(784)")
        expect("VAE", "prior", prior, Prior | None, "MixturePrior(20)")
        expect("VAE", "posterior", posterior, Posterior | None, "FullNormal()")
        expect("VAE", "condition", condition, Condition | None, "Labels(10)")
        if isinstance(num_latents, bool) or not isinstance(num_latents, int) or num_latents < 1:
            raise UsageError(f"VAE: num_latents must be a positive integer, found {num_latents!r}.")
        self.likelihood, self.condition, self.num_latents = likelihood, condition, num_latents
        width = 0 if condition is None else condition.num_features
        inputs = self.input_shape
        encoder = MLP(math.prod(inputs)) if encoder is None else encoder
        decoder = MLP(num_latents + width) if decoder is None else decoder
        self.encoder = Encoder(encoder, DiagonalNormal() if posterior is None else posterior, inputs, num_latents)
        self.decoder = Decoder(decoder, likelihood, num_latents + width, head)
        self.prior = StandardNormal() if prior is None else prior
        self.prior.build(num_latents, inputs)
        if not self.prior.proper and not isinstance(self.encoder.posterior, Point):
            raise UsageError(
                f"Flat: the ELBO has no maximum with it and {type(self.encoder.posterior).__name__}, which would grow without end; take "
                "posterior=Point(), or another prior."
            )
        if self.prior.reads_inputs and not self.encoder.posterior.mixable:
            raise UsageError(
                f"VampPrior: needs densities of posteriors at any point, which {type(self.encoder.posterior).__name__} has only "
                "at its own draws; take DiagonalNormal, FullNormal or CouplingFlow."
            )

    def model(self, x: Tensor, y: Tensor | None = None) -> None:
        """See :class:`Autoencoder`."""
        x, condition = self.read(x, y)
        pyro.module("decoder", self.decoder)
        self.prior.register()
        if self.prior.reads_inputs:
            pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior(self.encoder))
            self.observe(joined(z, condition), x, y)

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        """See :class:`Autoencoder`."""
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.encode(x, y))

    def encode(self, x: Tensor, y: Tensor | None = None) -> Any:
        """q(z | x), batch shape (N,) and event shape (num_latents,)."""
        x, condition = self.read(x, y)
        return self.encoder(joined(self.likelihood.features(x), condition))

    def decode(self, z: Tensor, y: Tensor | None = None) -> Any:
        """p(x | z) given z ``(N, num_latents)``; its mean is the reconstruction.

        Counts whose totals are not modelled are of a typical total.
        """
        condition = None if self.condition is None else self.condition.encode(y, z)
        return self.decoder(joined(z, condition))

    def _initialize(self, inputs: Tensor) -> None:
        if isinstance(self.prior, VampPrior):
            self.prior.initialize(inputs)
