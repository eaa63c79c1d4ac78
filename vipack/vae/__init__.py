"""Variational autoencoders: small builders of a plain Pyro model and guide, and the evidence to judge any such pair by."""

from vipack.vae import likelihoods, networks, posteriors, priors
from vipack.vae.autoencoder import Autoencoder
from vipack.vae.conditions import Condition, Covariates, Labels
from vipack.vae.judging import Evaluation, evaluate
from vipack.vae.layered import HierarchicalVAE, LadderVAE
from vipack.vae.vae import VAE

__all__ = [
    "VAE",
    "Autoencoder",
    "Condition",
    "Covariates",
    "Evaluation",
    "HierarchicalVAE",
    "Labels",
    "LadderVAE",
    "evaluate",
    "likelihoods",
    "networks",
    "posteriors",
    "priors",
]
