"""Likelihoods of decoders: p(x | z) as Pyro distributions, with what an encoder reads and what data they refuse."""

from vipack.vae.likelihoods.columns import Binary, Categories, Continuous, Counts, MixedColumns
from vipack.vae.likelihoods.counts import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from vipack.vae.likelihoods.labels import Categorical
from vipack.vae.likelihoods.likelihood import Likelihood
from vipack.vae.likelihoods.logistic import DiscretizedLogistic, DiscretizedLogisticMixture
from vipack.vae.likelihoods.pixels import Bernoulli, ContinuousBernoulli, Gaussian

__all__ = [
    "Bernoulli",
    "Binary",
    "Categorical",
    "Categories",
    "Continuous",
    "ContinuousBernoulli",
    "Counts",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "Gaussian",
    "Likelihood",
    "MixedColumns",
    "NegativeBinomial",
    "Poisson",
    "ZeroInflatedNegativeBinomial",
]
