"""The benchmark's models as NumPyro programs, line for line those of the Pyro pages."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro import plate, sample

__all__ = ["eight_schools", "gaussian_process", "lda", "logistic", "mixture", "varying_intercepts"]


def eight_schools(y: Any, sigma: Any) -> None:
    mu = sample("mu", dist.Normal(0.0, 5.0))
    tau = sample("tau", dist.HalfCauchy(5.0))
    with plate("schools", 8):
        eta = sample("eta", dist.Normal(0.0, 1.0))
        sample("y", dist.Normal(mu + tau * eta, sigma), obs=y)


def logistic(x: Any, y: Any) -> None:
    beta = sample("beta", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    with plate("rows", len(x)):
        sample("y", dist.Bernoulli(logits=x @ beta), obs=y)


def varying_intercepts(group: Any, x: Any, y: Any) -> None:
    mu = sample("mu", dist.Normal(0.0, 5.0))
    tau = sample("tau", dist.HalfNormal(2.0))
    slope = sample("slope", dist.Normal(0.0, 1.0))
    sigma = sample("sigma", dist.HalfNormal(2.0))
    with plate("groups", 100):
        intercept = sample("intercept", dist.Normal(mu, tau))
    with plate("rows", len(x)):
        sample("y", dist.Normal(intercept[group] + slope * x, sigma), obs=y)


def gaussian_process(x: Any, y: Any) -> None:
    length = sample("length", dist.LogNormal(0.0, 1.0))
    scale = sample("scale", dist.LogNormal(0.0, 1.0))
    noise = sample("noise", dist.LogNormal(-1.0, 1.0))
    squared = (x[:, None] - x[None, :]) ** 2
    covariance = scale**2 * jnp.exp(-0.5 * squared / length**2) + (noise**2 + 1e-4) * jnp.eye(len(x))
    sample("y", dist.MultivariateNormal(jnp.zeros(len(x)), covariance), obs=y)


def mixture(y: Any) -> None:
    weights = sample("weights", dist.Dirichlet(jnp.ones(3)))
    with plate("components", 3):
        loc = sample("loc", dist.Normal(0.0, 5.0))
        scale = sample("scale", dist.LogNormal(0.0, 1.0))
    with plate("rows", len(y)):
        label = sample("label", dist.Categorical(weights), infer={"enumerate": "parallel"})
        sample("y", dist.Normal(loc[label], scale[label]), obs=y)


def lda(counts: Any) -> None:
    documents, words = counts.shape
    with plate("topics", 20):
        topics = sample("topic", dist.Dirichlet(jnp.full((words,), 0.1)))
    with plate("documents", documents):
        shares = sample("share", dist.Dirichlet(jnp.full((20,), 0.5)))
        sample("words", dist.Multinomial(total_count=100, probs=shares @ topics, validate_args=False), obs=counts)
