"""The likelihoods, priors and posteriors that the contract tests run over, with small data for each."""

import math

import torch

from vipack.vae import VAE
from vipack.vae.likelihoods import (
    Bernoulli,
    Binary,
    Categorical,
    Categories,
    Continuous,
    ContinuousBernoulli,
    Counts,
    DiscretizedLogisticMixture,
    Gaussian,
    MixedColumns,
    NegativeBinomial,
    Poisson,
    ZeroInflatedNegativeBinomial,
)
from vipack.vae.networks import MLP
from vipack.vae.posteriors import AutoregressiveFlow, CouplingFlow, DiagonalNormal, FullNormal
from vipack.vae.priors import FlowPrior, MixturePrior, StandardNormal, VampPrior

N, D, NUM_LATENTS = 24, 6, 3
COLUMNS = {"height": Continuous(), "member": Binary(), "region": Categories(3), "visits": Counts()}


def table_rows(count):
    columns = [
        100 + torch.randn(count),
        torch.rand(count).round(),
        torch.randint(3, (count,)),
        torch.randint(9, (count,)),
    ]
    rows = torch.stack([column.float() for column in columns], -1)
    return torch.where(torch.rand(count, 4) < 0.2, torch.nan, rows)


def counts(count):
    return torch.poisson(4 * torch.rand(count, D))


# name -> what makes the likelihood, and what makes `count` observations for it
LIKELIHOODS = {
    "Bernoulli": (lambda: Bernoulli(D), lambda count: torch.rand(count, D).round()),
    "ContinuousBernoulli": (lambda: ContinuousBernoulli(D), lambda count: torch.rand(count, D)),
    "Gaussian shared": (lambda: Gaussian(D, scale="shared"), lambda count: 50 + 3 * torch.randn(count, D)),
    "Gaussian": (lambda: Gaussian(D), lambda count: 50 + 3 * torch.randn(count, D)),
    "Gaussian entry": (lambda: Gaussian(D, scale="entry"), lambda count: 50 + 3 * torch.randn(count, D)),
    "Categorical": (lambda: Categorical(D, 4), lambda count: torch.randint(4, (count, D))),
    "DiscretizedLogisticMixture": (
        lambda: DiscretizedLogisticMixture(D, components=3),
        lambda count: torch.randint(256, (count, D), dtype=torch.uint8),
    ),
    "DiscretizedLogisticMixture linked": (
        lambda: DiscretizedLogisticMixture((3, 2, 2), components=2, levels=8, linked=True),
        lambda count: torch.randint(6, (count, 1, 2, 2)) + torch.randint(3, (count, 3, 2, 2)),
    ),
    "Poisson": (lambda: Poisson(D), counts),
    "Poisson library": (lambda: Poisson(D, library=True), counts),
    "NegativeBinomial": (lambda: NegativeBinomial(D), counts),
    "NegativeBinomial free": (lambda: NegativeBinomial(D, library=False), counts),
    "ZeroInflatedNegativeBinomial": (lambda: ZeroInflatedNegativeBinomial(D), counts),
    "MixedColumns": (lambda: MixedColumns(COLUMNS), table_rows),
}

PRIORS = {
    "StandardNormal": StandardNormal,
    "MixturePrior": lambda: MixturePrior(4),
    "VampPrior": lambda: VampPrior(5),
    "FlowPrior": lambda: FlowPrior(2, (8,)),
}

POSTERIORS = {
    "DiagonalNormal": DiagonalNormal,
    "FullNormal": FullNormal,
    "FullNormal rank 1": lambda: FullNormal(1),
    "CouplingFlow": lambda: CouplingFlow(2, (8,)),
    "AutoregressiveFlow": lambda: AutoregressiveFlow(2, (8,)),
}


def data_of(name, count=N, seed=0):
    torch.manual_seed(seed)
    return LIKELIHOODS[name][1](count)


def small_vae(name="Bernoulli", prior="StandardNormal", posterior="DiagonalNormal", seed=0):
    torch.manual_seed(seed)
    likelihood = LIKELIHOODS[name][0]()
    vae = VAE(
        MLP(math.prod(likelihood.feature_shape), (8,)),
        MLP(NUM_LATENTS, (8,)),
        likelihood=likelihood,
        num_latents=NUM_LATENTS,
        prior=PRIORS[prior](),
        posterior=POSTERIORS[posterior](),
    )
    return vae.initialize(data_of(name))
