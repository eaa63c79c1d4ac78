"""Variational autoencoders: small builders of a plain Pyro model and guide, out of networks, likelihoods and priors."""

from vipack.vae import likelihoods, networks, posteriors, priors
from vipack.vae.autoencoder import Autoencoder
from vipack.vae.conditions import Condition, Covariates, Labels
from vipack.vae.layered import HierarchicalVAE, LadderVAE
from vipack.vae.vae import VAE

__all__ = [
    "VAE",
    "Autoencoder",
    "Condition",
    "Covariates",
    "HierarchicalVAE",
    "Labels",
    "LadderVAE",
    "likelihoods",
    "networks",
    "posteriors",
    "priors",
]
