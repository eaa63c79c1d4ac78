"""Model x guide x objective: one line for each combination that every tier must run alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import zuko
from pyro import poutine
from pyro.contrib.zuko import ZukoToPyro
from pyro.infer import (
    RenyiELBO,
    ReweightedWakeSleep,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    autoguide,
)
from torch import nn

from tests.parity import models, networks
from tests.parity.data import (
    CLICKS,
    CLUSTERED,
    COUNTS,
    CURVE,
    FEATURES,
    GROUPS,
    LINE,
    PICTURES,
    SCHOOLS,
    SEEN,
    SERIES,
    SHARES,
    TABLE,
    TARGET,
    WORDS,
)

__all__ = ["CASES", "Case"]


@dataclass(frozen=True)
class Case:
    """Arguments of ``vipack.fit``.

    Attributes:
        native: interpreted in the default run; the others are in the slow one.
        compiled: in the default run; the others are compiled in the slow one.
        without: tiers that cannot run it, so that the run stays below.
        single: whether the program itself holds tensors of single precision, so that it cannot run in double.
        counted: by latent, the elements that the model counts; plain Pyro's guide counts them all, and is told here.
    """

    model: Callable[..., Any]
    guide: Any
    data: Any
    loss: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    native: bool = False
    compiled: bool = False
    without: tuple[str, ...] = ()
    single: bool = False
    counted: dict[str, torch.Tensor] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """For ``vipack.fit``."""
        return {"model": self.model, "guide": self.guide, "data": self.data, "loss": self.loss, **self.options}


def guides_of_a_list(model):
    guides = autoguide.AutoGuideList(model)
    guides.append(autoguide.AutoMultivariateNormal(poutine.block(model, hide=["eta"])))
    guides.append(autoguide.AutoNormal(poutine.block(model, expose=["eta"])))
    return guides


class Flow(nn.Module):
    """A neural spline flow of zuko's over the logistic model's weights."""

    def __init__(self, model) -> None:
        super().__init__()
        self.flow = zuko.flows.NSF(4, transforms=1, bins=4, hidden_features=(8,))

    def forward(self, x, y):
        pyro.module("flow", self.flow)
        z = pyro.sample("z", ZukoToPyro(self.flow()), infer={"is_auxiliary": True})
        pyro.sample("w", dist.Delta(z[..., :3], event_dim=1))
        pyro.sample("b", dist.Delta(z[..., 3]))


def float64(*values):
    return tuple(value.double() for value in values)


ENUM = partial(TraceEnum_ELBO, max_plate_nesting=1)
VECTORIZED = {"num_particles": 4, "vectorize_particles": True, "max_plate_nesting": 1}
PLAIN, NORMALISED, DROPPING = networks.PLAIN, networks.NORMALISED, networks.DROPPING
LOGISTIC, LINEAR = (FEATURES, CLICKS), (FEATURES, TARGET)
PROCESS = models.sparse_process()

CASES = {
    # guides
    "AutoNormal": Case(models.schools, autoguide.AutoNormal, SCHOOLS, native=True),
    "AutoDiagonalNormal": Case(models.schools, autoguide.AutoDiagonalNormal, SCHOOLS),
    "AutoMultivariateNormal": Case(models.schools, autoguide.AutoMultivariateNormal, SCHOOLS, native=True),
    "AutoLowRankMultivariateNormal": Case(models.schools, autoguide.AutoLowRankMultivariateNormal, SCHOOLS, native=True, compiled=True),
    "AutoIAFNormal": Case(models.schools, partial(autoguide.AutoIAFNormal, hidden_dim=[12]), SCHOOLS),
    "AutoStructured": Case(models.schools, autoguide.AutoStructured, SCHOOLS),
    "AutoGaussian": Case(models.schools, autoguide.AutoGaussian, SCHOOLS),
    "AutoDelta": Case(models.schools, autoguide.AutoDelta, SCHOOLS),
    "AutoLaplaceApproximation": Case(models.logistic, autoguide.AutoLaplaceApproximation, LOGISTIC),
    "AutoNormalMessenger": Case(models.schools, autoguide.AutoNormalMessenger, SCHOOLS),
    "AutoHierarchicalNormalMessenger": Case(
        models.varying_intercepts, autoguide.AutoHierarchicalNormalMessenger, (FEATURES, GROUPS, TARGET)
    ),
    "AutoRegressiveMessenger": Case(models.schools, autoguide.AutoRegressiveMessenger, SCHOOLS),
    "AutoGuideList": Case(models.schools, guides_of_a_list(models.schools), SCHOOLS),
    "EasyGuide": Case(models.local, models.Grouped(models.local), SERIES),
    "zuko's flow": Case(models.logistic, Flow, LOGISTIC, single=True),
    "a guide by hand": Case(models.intercept_and_slopes, models.by_hand, LINEAR),
    # objectives
    "4 particles, looped": Case(models.logistic, autoguide.AutoNormal, LOGISTIC, Trace_ELBO(4)),
    "4 particles, vectorized": Case(models.logistic, autoguide.AutoNormal, LOGISTIC, Trace_ELBO(**VECTORIZED)),
    "TraceMeanField": Case(models.logistic, autoguide.AutoNormal, LOGISTIC, TraceMeanField_ELBO()),
    "TraceMeanField without a closed form": Case(models.schools, autoguide.AutoNormal, SCHOOLS, TraceMeanField_ELBO()),
    "TraceGraph": Case(models.gates, models.gates_guide, CLUSTERED, TraceGraph_ELBO(), native=True),
    "TraceGraph of classes": Case(models.classes, models.classes_guide, CLUSTERED, TraceGraph_ELBO()),
    "score function": Case(models.gates, models.gates_guide, CLUSTERED, Trace_ELBO()),
    "Renyi": Case(models.logistic, autoguide.AutoNormal, LOGISTIC, RenyiELBO(0.5, **VECTORIZED)),
    "Renyi, looped": Case(models.logistic, autoguide.AutoNormal, LOGISTIC, RenyiELBO(0.5, num_particles=2)),
    "importance weighted": Case(PLAIN.model, PLAIN.guide, PICTURES, RenyiELBO(0.0, **VECTORIZED), single=True),
    "reweighted wake-sleep": Case(models.sleeping, models.sleeping_guide, SERIES, ReweightedWakeSleep(num_particles=3)),
    "enumerated mixture": Case(models.mixture, autoguide.AutoNormal, CLUSTERED, ENUM(), native=True, compiled=True),
    "enumerated mixture in batches": Case(models.mixture, autoguide.AutoDelta, CLUSTERED, ENUM(), {"batch_size": 9}),
    "enumerated hidden Markov model": Case(models.hidden_markov, autoguide.AutoDelta, SERIES[:6], TraceEnum_ELBO(max_plate_nesting=0)),
    "enumerated in the guide": Case(models.gates, models.gates_guide_enumerated, CLUSTERED, ENUM()),
    "enumerated, vectorized": Case(models.mixture, autoguide.AutoNormal, CLUSTERED, TraceEnum_ELBO(**VECTORIZED)),
    # data
    "logistic regression": Case(models.logistic, autoguide.AutoNormal, LOGISTIC, native=True),
    "batches": Case(models.logistic, autoguide.AutoNormal, LOGISTIC, None, {"batch_size": 10}, native=True),
    "batches with a smaller last one": Case(models.logistic, autoguide.AutoDiagonalNormal, LOGISTIC, None, {"batch_size": 8}),
    "subsampling inside the model": Case(models.subsampled, autoguide.AutoNormal, LINEAR, native=True),
    "varying intercepts in batches": Case(
        models.varying_intercepts, autoguide.AutoNormal, (FEATURES, GROUPS, TARGET), None, {"batch_size": 15}, native=True
    ),
    "local latents in batches": Case(models.local, autoguide.AutoNormal, SERIES, None, {"batch_size": 5}),
    "closed-over data": Case(models.closed_over, autoguide.AutoNormal, (), single=True),
    "float64": Case(models.schools, autoguide.AutoNormal, float64(*SCHOOLS), native=True),
    "float64 in batches": Case(models.logistic, autoguide.AutoMultivariateNormal, float64(*LOGISTIC), None, {"batch_size": 8}),
    "float64 Gaussian process": Case(models.gaussian_process, autoguide.AutoMultivariateNormal, float64(LINE, CURVE)),
    # models
    "Gaussian process": Case(models.gaussian_process, autoguide.AutoNormal, (LINE, CURVE), native=True),
    "sparse Gaussian process": Case(PROCESS.model, PROCESS.guide, (), single=True),
    "forward pass": Case(models.forward_pass, autoguide.AutoNormal, SERIES),
    "random walk": Case(models.random_walk, autoguide.AutoNormal, SERIES),
    "counts": Case(models.counts, autoguide.AutoNormal, (FEATURES, COUNTS)),
    "zero-inflated counts": Case(models.inflated, autoguide.AutoNormal, (FEATURES, COUNTS)),
    "a mask": Case(models.masked, autoguide.AutoNormal, (FEATURES, TARGET, SEEN)),
    "a mask in batches": Case(models.masked, autoguide.AutoNormal, (FEATURES, TARGET, SEEN), None, {"batch_size": 15}),
    "obs_mask": Case(
        models.partly_observed, autoguide.AutoNormal, (FEATURES, TARGET, SEEN), counted={"y_unobserved": ~SEEN}
    ),
    "poutine.scale": Case(models.scaled, autoguide.AutoNormal, LINEAR),
    "factors": Case(models.factors, autoguide.AutoNormal, SERIES),
    "deterministic sites": Case(models.deterministic, autoguide.AutoNormal, LINEAR),
    "correlation matrix": Case(models.correlated, autoguide.AutoNormal, TABLE),
    "supports of many kinds": Case(models.many_supports, autoguide.AutoMultivariateNormal, SERIES),
    "flat priors": Case(models.flat_prior, autoguide.AutoNormal, LINEAR),
    "Dirichlet likelihood": Case(models.shares, autoguide.AutoNormal, SHARES),
    "Gamma, Beta and Dirichlet guides": Case(models.rates, models.gamma_guide, COUNTS[:12], native=True),
    "reparametrised sites": Case(models.REPARAMETRISED, autoguide.AutoNormal, SERIES),
    "a conditioned model": Case(models.CONDITIONED, autoguide.AutoNormal, LOGISTIC),
    "topics": Case(models.topics, models.topics_guide, WORDS, TraceMeanField_ELBO()),
    # networks
    "autoencoder": Case(PLAIN.model, PLAIN.guide, PICTURES, TraceMeanField_ELBO(), {"batch_size": 10}, native=True, compiled=True, single=True),
    "autoencoder of PyroModules": Case(networks.DECODER, networks.ENCODER, PICTURES, single=True),
    "BatchNorm": Case(NORMALISED.model, NORMALISED.guide, PICTURES, single=True),
    "BatchNorm in batches": Case(NORMALISED.model, NORMALISED.guide, PICTURES, None, {"batch_size": 10}, single=True),
    "Dropout": Case(DROPPING.model, DROPPING.guide, PICTURES, single=True),
    "Bayesian network": Case(networks.NETWORK, autoguide.AutoDiagonalNormal, LINEAR, single=True),
    "recurrent guide": Case(networks.RECURRENT.model, networks.RECURRENT.guide, SERIES, single=True),
}  # fmt: skip
