"""A Gaussian mixture with its labels summed out by TraceEnum_ELBO, and LDA with its words' topics summed out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from pyro import plate, poutine, sample
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import AutoNormal

from benchmarks.engine_problems.problem import Problem

__all__ = ["problems"]

_TOPICS = 20


@config_enumerate
def mixture(y: torch.Tensor) -> None:
    weights = sample("weights", dist.Dirichlet(torch.ones(3)))
    with plate("components", 3):
        loc = sample("loc", dist.Normal(0.0, 5.0))
        scale = sample("scale", dist.LogNormal(0.0, 1.0))
    with plate("rows", len(y)):
        label = sample("label", dist.Categorical(weights))
        sample("y", dist.Normal(loc[label], scale[label]), obs=y)


def lda(counts: torch.Tensor) -> None:
    documents, words = counts.shape
    with plate("topics", _TOPICS):
        topics = sample("topic", dist.Dirichlet(torch.full((words,), 0.1), validate_args=False))
    with plate("documents", documents):
        shares = sample("share", dist.Dirichlet(torch.full((_TOPICS,), 0.5), validate_args=False))
        sample("words", dist.Multinomial(probs=shares @ topics, validate_args=False), obs=counts)


def problems() -> list[Problem]:
    """Those of this page."""
    rng = np.random.default_rng(1)
    label = rng.integers(0, 3, size=500)
    y = (np.array([-4.0, 0, 5])[label] + np.array([1.0, 0.5, 1.5])[label] * rng.normal(size=500)).astype(np.float32)
    topics = rng.dirichlet(np.full(1000, 0.05), size=_TOPICS)
    shares = rng.dirichlet(np.full(_TOPICS, 0.3), size=200)
    counts = np.stack([rng.multinomial(100, p / p.sum()) for p in shares @ topics]).astype(np.float32)
    return [
        Problem("Gaussian mixture, TraceEnum", _pyro_mixture, _numpyro_mixture, (y,), True, jit=False),
        Problem("marginalised LDA, 20 topics", _pyro_lda, _numpyro_lda, (counts,), False),
    ]


def _pyro_mixture() -> tuple[Any, Any, Any]:
    guide = AutoNormal(poutine.block(mixture, hide=["label"]))
    return mixture, guide, TraceEnum_ELBO(max_plate_nesting=1)


def _numpyro_mixture() -> tuple[Any, Any, Any]:
    from numpyro.handlers import block
    from numpyro.infer import TraceEnum_ELBO as NumPyroTraceEnum
    from numpyro.infer.autoguide import AutoNormal as NumPyroAutoNormal

    from benchmarks.engine_problems import numpyro_models

    guide = NumPyroAutoNormal(block(numpyro_models.mixture, hide=["label"]))
    return numpyro_models.mixture, guide, NumPyroTraceEnum(max_plate_nesting=1)


def _pyro_lda() -> tuple[Any, Any, Any]:
    return lda, AutoNormal(lda), Trace_ELBO()


def _numpyro_lda() -> tuple[Any, Any, Any]:
    from numpyro.infer import Trace_ELBO as NumPyroTrace
    from numpyro.infer.autoguide import AutoNormal as NumPyroAutoNormal

    from benchmarks.engine_problems import numpyro_models

    return numpyro_models.lda, NumPyroAutoNormal(numpyro_models.lda), NumPyroTrace()
