"""Eight schools under three guides, logistic regression, varying intercepts, and a Gaussian process."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from pyro import plate, sample
from pyro.infer import Trace_ELBO, autoguide

from benchmarks.engine_problems.problem import Problem

__all__ = ["problems"]

_EFFECTS = np.array([28.0, 8, -3, 7, -1, 1, 18, 12], dtype=np.float32)
_ERRORS = np.array([15.0, 10, 16, 11, 9, 11, 10, 18], dtype=np.float32)


def eight_schools(y: torch.Tensor, sigma: torch.Tensor) -> None:
    mu = sample("mu", dist.Normal(0.0, 5.0))
    tau = sample("tau", dist.HalfCauchy(5.0))
    with plate("schools", 8):
        eta = sample("eta", dist.Normal(0.0, 1.0))
        sample("y", dist.Normal(mu + tau * eta, sigma), obs=y)


def logistic(x: torch.Tensor, y: torch.Tensor) -> None:
    beta = sample("beta", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    with plate("rows", len(x)):
        sample("y", dist.Bernoulli(logits=x @ beta), obs=y)


def varying_intercepts(group: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> None:
    mu = sample("mu", dist.Normal(0.0, 5.0))
    tau = sample("tau", dist.HalfNormal(2.0))
    slope = sample("slope", dist.Normal(0.0, 1.0))
    sigma = sample("sigma", dist.HalfNormal(2.0))
    with plate("groups", 100):
        intercept = sample("intercept", dist.Normal(mu, tau))
    with plate("rows", len(x)):
        sample("y", dist.Normal(intercept[group] + slope * x, sigma), obs=y)


def gaussian_process(x: torch.Tensor, y: torch.Tensor) -> None:
    length = sample("length", dist.LogNormal(0.0, 1.0))
    scale = sample("scale", dist.LogNormal(0.0, 1.0))
    noise = sample("noise", dist.LogNormal(-1.0, 1.0))
    squared = (x[:, None] - x[None, :]) ** 2
    covariance = scale**2 * torch.exp(-0.5 * squared / length**2) + (noise**2 + 1e-4) * torch.eye(len(x))
    sample("y", dist.MultivariateNormal(torch.zeros(len(x)), covariance), obs=y)


def problems() -> list[Problem]:
    """Those of this page."""
    rng = np.random.default_rng(0)
    schools = (_EFFECTS, _ERRORS)
    guides = {"AutoNormal": {}, "AutoMultivariateNormal": {}, "AutoLowRankMultivariateNormal": {"rank": 3}}
    found = [
        Problem(
            f"eight schools, {name}",
            _pyro(eight_schools, name, keywords),
            _numpyro("eight_schools", name, keywords),
            schools,
            True,
        )
        for name, keywords in guides.items()
    ]
    x = rng.normal(size=(2000, 50)).astype(np.float32)
    clicks = (rng.uniform(size=2000) < 1 / (1 + np.exp(-x @ rng.normal(size=50) / 3))).astype(np.float32)
    found.append(Problem("logistic regression 2000x50", _pyro(logistic), _numpyro("logistic"), (x, clicks), False))
    group = rng.integers(0, 100, size=10_000)
    slope = rng.normal(size=10_000).astype(np.float32)
    heights = (rng.normal(size=100)[group] + 0.5 * slope + rng.normal(size=10_000)).astype(np.float32)
    found.append(
        Problem(
            "varying intercepts 10000/100",
            _pyro(varying_intercepts),
            _numpyro("varying_intercepts"),
            (group, slope, heights),
            False,
        )
    )
    time = np.linspace(0, 5, 100, dtype=np.float32)
    wave = (np.sin(2 * time) + 0.2 * rng.normal(size=100)).astype(np.float32)
    found.append(
        Problem("GP regression 100", _pyro(gaussian_process), _numpyro("gaussian_process"), (time, wave), True)
    )
    return found


def _pyro(model: Any, guide: str = "AutoNormal", keywords: dict[str, Any] | None = None) -> Any:
    return lambda: (model, getattr(autoguide, guide)(model, **(keywords or {})), Trace_ELBO())


def _numpyro(model: str, guide: str = "AutoNormal", keywords: dict[str, Any] | None = None) -> Any:
    def make() -> tuple[Any, Any, Any]:
        from numpyro.infer import Trace_ELBO as NumPyroTrace
        from numpyro.infer import autoguide as numpyro_guides

        from benchmarks.engine_problems import numpyro_models

        program = getattr(numpyro_models, model)
        return program, getattr(numpyro_guides, guide)(program, **(keywords or {})), NumPyroTrace()

    return make
