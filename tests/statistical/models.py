"""Models whose posterior and evidence are known in closed form, with guides whose family contains the posterior."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from scipy import stats
from scipy.special import betaln, gammaln, logsumexp
from torch.distributions import constraints

Moments = dict[str, np.ndarray]


@dataclass(frozen=True)
class Exact:
    """A model, a guide that can be its posterior, and what the fit must find.

    Attributes:
        mean, sd: of each latent, in the shape of one draw.
        box: latent -> (low, high) that holds all but 1e-9 of the posterior, for quadrature; empty where the dimension
            is above two.
    """

    name: str
    model: Callable[..., Any]
    guide: Any
    data: Any
    mean: Moments
    sd: Moments
    log_evidence: float
    box: dict[str, tuple[float, float]] = field(default_factory=dict)
    loss: Any = None

    def __str__(self) -> str:
        return self.name


def normal_known_variance() -> Exact:
    """x_i ~ Normal(mu, 2), mu ~ Normal(1, 3)."""
    rng = np.random.default_rng(0)
    x = rng.normal(4.0, 2.0, 20)

    def model(x):
        mu = pyro.sample("mu", dist.Normal(1.0, 3.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mu, 2.0), obs=x)

    mean, cov = gaussian_posterior(np.ones((20, 1)), x, 4.0 * np.eye(20), np.array([1.0]), np.array([[9.0]]))
    evidence = stats.multivariate_normal(np.full(20, 1.0), 4.0 * np.eye(20) + 9.0).logpdf(x)
    sd = math.sqrt(cov[0, 0])
    box = {"mu": (mean[0] - 7 * sd, mean[0] + 7 * sd)}
    return Exact("normal_known_variance", model, AutoNormal, tensors(x), {"mu": mean[0]}, {"mu": sd}, evidence, box)


def normal_unknown_precision() -> Exact:
    """x_i ~ Normal(mu, 1/sqrt(tau)), mu | tau ~ Normal(0, 1/sqrt(.5 tau)), tau ~ Gamma(3, 2)."""
    rng = np.random.default_rng(1)
    x = rng.normal(1.5, 0.7, 25)
    kappa0, a0, b0 = 0.5, 3.0, 2.0

    def model(x):
        tau = pyro.sample("tau", dist.Gamma(a0, b0))
        mu = pyro.sample("mu", dist.Normal(0.0, (kappa0 * tau).rsqrt()))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mu, tau.rsqrt()), obs=x)

    def guide(x):
        tau = pyro.sample("tau", gamma_guide("tau"))
        kappa = pyro.param("kappa", torch.tensor(1.0), constraint=constraints.positive)
        pyro.sample("mu", dist.Normal(pyro.param("m", torch.tensor(0.0)), (kappa * tau).rsqrt()))

    n, mean_x = len(x), x.mean()
    kappa, a = kappa0 + n, a0 + n / 2
    b = b0 + 0.5 * ((x - mean_x) ** 2).sum() + 0.5 * kappa0 * n * mean_x**2 / kappa
    m = n * mean_x / kappa
    evidence = (
        gammaln(a)
        - gammaln(a0)
        + a0 * math.log(b0)
        - a * math.log(b)
        + 0.5 * math.log(kappa0 / kappa)
        - 0.5 * n * math.log(2 * math.pi)
    )
    marginal = stats.t(2 * a, m, math.sqrt(b / (a * kappa)))
    precision = stats.gamma(a, scale=1 / b)
    box = {"tau": precision.ppf([1e-10, 1 - 1e-10]), "mu": marginal.ppf([1e-10, 1 - 1e-10])}
    return Exact(
        "normal_unknown_precision",
        model,
        guide,
        tensors(x),
        {"tau": precision.mean(), "mu": marginal.mean()},
        {"tau": precision.std(), "mu": marginal.std()},
        evidence,
        box,
    )


def beta_bernoulli() -> Exact:
    """x_i ~ Bernoulli(p), p ~ Beta(2, 2)."""
    x = (np.random.default_rng(2).random(40) < 0.3).astype(float)

    def model(x):
        p = pyro.sample("p", dist.Beta(2.0, 2.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Bernoulli(p), obs=x)

    a, b = 2 + x.sum(), 2 + (1 - x).sum()
    return beta_case("beta_bernoulli", model, x, a, b, betaln(a, b) - betaln(2, 2))


def beta_binomial() -> Exact:
    """x_i ~ Binomial(n_i, p), p ~ Beta(1, 3)."""
    rng = np.random.default_rng(3)
    n = rng.integers(5, 30, 12).astype(float)
    x = rng.binomial(n.astype(int), 0.15).astype(float)

    def model(n, x):
        p = pyro.sample("p", dist.Beta(1.0, 3.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Binomial(n, p), obs=x)

    a, b = 1 + x.sum(), 3 + (n - x).sum()
    choose = (gammaln(n + 1) - gammaln(x + 1) - gammaln(n - x + 1)).sum()
    return beta_case("beta_binomial", model, (n, x), a, b, choose + betaln(a, b) - betaln(1, 3))


def gamma_poisson() -> Exact:
    """x_i ~ Poisson(rate), rate ~ Gamma(2, 0.5)."""
    x = np.random.default_rng(4).poisson(6.5, 15).astype(float)

    def model(x):
        rate = pyro.sample("rate", dist.Gamma(2.0, 0.5))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Poisson(rate), obs=x)

    a, b = 2 + x.sum(), 0.5 + len(x)
    evidence = 2 * math.log(0.5) - gammaln(2) + gammaln(a) - a * math.log(b) - gammaln(x + 1).sum()
    return gamma_case("gamma_poisson", model, x, a, b, evidence)


def gamma_exponential() -> Exact:
    """x_i ~ Exponential(rate), rate ~ Gamma(3, 1)."""
    x = np.random.default_rng(5).exponential(1 / 0.4, 18)

    def model(x):
        rate = pyro.sample("rate", dist.Gamma(3.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Exponential(rate), obs=x)

    a, b = 3 + len(x), 1 + x.sum()
    evidence = -gammaln(3) + gammaln(a) - a * math.log(b)
    return gamma_case("gamma_exponential", model, x, a, b, evidence)


def dirichlet_categorical() -> Exact:
    """x_i ~ Categorical(p), p ~ Dirichlet(1, 2, 3)."""
    prior = np.array([1.0, 2.0, 3.0])
    x = np.random.default_rng(6).choice(3, 30, p=[0.5, 0.2, 0.3])

    def model(x):
        p = pyro.sample("p", dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0])))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Categorical(p), obs=x)

    return dirichlet_case("dirichlet_categorical", model, torch.from_numpy(x), prior, np.bincount(x, minlength=3), 0.0)


def dirichlet_multinomial() -> Exact:
    """x_i ~ Multinomial(20, p), p ~ Dirichlet(2, 2, 2, 2)."""
    prior = np.full(4, 2.0)
    x = np.random.default_rng(7).multinomial(20, [0.1, 0.2, 0.3, 0.4], 5).astype(float)

    def model(x):
        p = pyro.sample("p", dist.Dirichlet(torch.full((4,), 2.0)))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Multinomial(20, p), obs=x)

    coefficient = (gammaln(21) - gammaln(x + 1).sum(1)).sum()
    return dirichlet_case("dirichlet_multinomial", model, tensors(x), prior, x.sum(0), coefficient)


def regression_known_noise() -> Exact:
    """y ~ Normal(X b, 0.5) with correlated columns, b ~ Normal(0, 2)."""
    x, y = regression_data(8, noise=0.5)

    def model(x, y):
        b = pyro.sample("b", dist.Normal(torch.zeros(3), 2.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(predictor(x, b), 0.5), obs=y)

    mean, cov = gaussian_posterior(x, y, 0.25 * np.eye(len(y)), np.zeros(3), 4.0 * np.eye(3))
    evidence = stats.multivariate_normal(np.zeros(len(y)), 0.25 * np.eye(len(y)) + 4.0 * x @ x.T).logpdf(y)
    sd = np.sqrt(np.diag(cov))
    data = tensors(x, y)
    return Exact("regression_known_noise", model, AutoMultivariateNormal, data, {"b": mean}, {"b": sd}, evidence)


def regression_unknown_noise() -> Exact:
    """y ~ Normal(X b, 1/sqrt(tau)), b | tau ~ Normal(0, 2/sqrt(tau)), tau ~ Gamma(2, 1)."""
    x, y = regression_data(9, noise=0.8)

    def model(x, y):
        tau = pyro.sample("tau", dist.Gamma(2.0, 1.0))
        b = pyro.sample("b", dist.Normal(torch.zeros(3), 2.0 * tau.rsqrt().unsqueeze(-1)).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(predictor(x, b), tau.rsqrt()), obs=y)

    def guide(x, y):
        tau = pyro.sample("tau", gamma_guide("tau"))
        loc = pyro.param("loc", torch.zeros(3))
        tril = pyro.param("tril", torch.eye(3), constraint=constraints.lower_cholesky)
        pyro.sample("b", dist.MultivariateNormal(loc, scale_tril=tril * tau.rsqrt()[..., None, None]))

    precision = x.T @ x + np.eye(3) / 4
    cov = np.linalg.inv(precision)
    mean = cov @ x.T @ y
    a, b = 2 + len(y) / 2, 1 + 0.5 * (y @ y - mean @ precision @ mean)
    evidence = (
        -0.5 * len(y) * math.log(2 * math.pi)
        + 0.5 * (np.linalg.slogdet(np.eye(3) / 4)[1] - np.linalg.slogdet(precision)[1])
        + (0.0 - a * math.log(b))
        + gammaln(a)
        - gammaln(2)
    )
    tau = stats.gamma(a, scale=1 / b)
    marginal = stats.t(2 * a, mean, np.sqrt(np.diag(cov) * b / a))
    return Exact(
        "regression_unknown_noise",
        model,
        guide,
        tensors(x, y),
        {"tau": tau.mean(), "b": marginal.mean()},
        {"tau": tau.std(), "b": marginal.std()},
        evidence,
    )


def hierarchical_normal() -> Exact:
    """Eight groups: y_j ~ Normal(theta_j, s_j), theta_j ~ Normal(mu, 3), mu ~ Normal(0, 5)."""
    rng = np.random.default_rng(10)
    s = rng.uniform(1.0, 4.0, 8)
    y = rng.normal(rng.normal(2.0, 3.0, 8), s)

    def model(s, y):
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        with pyro.plate("groups", len(y)):
            theta = pyro.sample("theta", dist.Normal(mu, 3.0))
            pyro.sample("y", dist.Normal(theta, s), obs=y)

    # z = (mu, theta): the prior covariance is 25 everywhere, plus 9 on theta's diagonal.
    prior = np.full((9, 9), 25.0) + np.diag([0.0] + [9.0] * 8)
    design = np.hstack([np.zeros((8, 1)), np.eye(8)])
    mean, cov = gaussian_posterior(design, y, np.diag(s**2), np.zeros(9), prior)
    evidence = stats.multivariate_normal(np.zeros(8), 25.0 + np.diag(9.0 + s**2)).logpdf(y)
    sd = np.sqrt(np.diag(cov))
    return Exact(
        "hierarchical_normal",
        model,
        AutoMultivariateNormal,
        tensors(s, y),
        {"mu": mean[0], "theta": mean[1:]},
        {"mu": sd[0], "theta": sd[1:]},
        evidence,
    )


def mixture_assignment() -> Exact:
    """z_i ~ Categorical(.2, .3, .5), x_i ~ Normal(loc[z_i], 1): the assignments' posterior by enumeration."""
    rng = np.random.default_rng(11)
    weights, locs = np.array([0.2, 0.3, 0.5]), np.array([-1.0, 0.0, 1.0])
    x = rng.normal(locs[rng.choice(3, 15, p=weights)], 1.0)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(torch.tensor([0.2, 0.3, 0.5])))
            pyro.sample("x", dist.Normal(torch.tensor([-1.0, 0.0, 1.0])[z], 1.0), obs=x)

    @config_enumerate
    def guide(x):
        with pyro.plate("data", len(x)):
            logits = pyro.param("logits", lambda: torch.zeros(len(x), 3), event_dim=1)
            pyro.sample("z", dist.Categorical(logits=logits))

    joint = np.log(weights) + stats.norm(locs, 1.0).logpdf(x[:, None])
    evidence = logsumexp(joint, axis=1)
    probabilities = np.exp(joint - evidence[:, None])
    mean = probabilities @ np.arange(3)
    sd = np.sqrt(probabilities @ np.arange(3) ** 2 - mean**2)
    return Exact(
        "mixture_assignment",
        model,
        guide,
        tensors(x),
        {"z": mean},
        {"z": sd},
        float(evidence.sum()),
        loss=TraceEnum_ELBO(max_plate_nesting=1),
    )


CASES = [
    normal_known_variance,
    normal_unknown_precision,
    beta_bernoulli,
    beta_binomial,
    gamma_poisson,
    gamma_exponential,
    dirichlet_categorical,
    dirichlet_multinomial,
    regression_known_noise,
    regression_unknown_noise,
    hierarchical_normal,
    mixture_assignment,
]


def beta_case(name: str, model: Any, data: Any, a: float, b: float, evidence: float) -> Exact:
    def guide(*args):
        mean = pyro.param("mean", torch.tensor(0.5), constraint=constraints.unit_interval)
        total = pyro.param("total", torch.tensor(2.0), constraint=constraints.positive)
        pyro.sample("p", dist.Beta(mean * total, (1 - mean) * total))

    posterior = stats.beta(a, b)
    parts = data if isinstance(data, tuple) else (data,)
    box = {"p": posterior.ppf([1e-10, 1 - 1e-10])}
    return Exact(name, model, guide, tensors(*parts), {"p": posterior.mean()}, {"p": posterior.std()}, evidence, box)


def gamma_case(name: str, model: Any, x: np.ndarray, a: float, b: float, evidence: float) -> Exact:
    def guide(x):
        pyro.sample("rate", gamma_guide("rate"))

    posterior = stats.gamma(a, scale=1 / b)
    moments = {"rate": posterior.mean()}, {"rate": posterior.std()}
    return Exact(name, model, guide, tensors(x), *moments, evidence, {"rate": posterior.ppf([1e-10, 1 - 1e-10])})


def dirichlet_case(
    name: str, model: Any, x: torch.Tensor, prior: np.ndarray, counts: np.ndarray, coefficient: float
) -> Exact:
    def guide(x):
        mean = pyro.param("mean", torch.full((len(prior),), 1 / len(prior)), constraint=constraints.simplex)
        total = pyro.param("total", torch.tensor(float(len(prior))), constraint=constraints.positive)
        pyro.sample("p", dist.Dirichlet(mean * total))

    after = prior + counts
    evidence = coefficient + gammaln(after).sum() - gammaln(after.sum()) - gammaln(prior).sum() + gammaln(prior.sum())
    posterior = stats.dirichlet(after)
    return Exact(name, model, guide, x, {"p": posterior.mean()}, {"p": np.sqrt(posterior.var())}, evidence)


def gamma_guide(name: str) -> dist.Gamma:
    """A Gamma by shape and mean, which are less entangled than shape and rate."""
    shape = pyro.param(f"{name}_shape", torch.tensor(2.0), constraint=constraints.positive)
    mean = pyro.param(f"{name}_mean", torch.tensor(1.0), constraint=constraints.positive)
    return dist.Gamma(shape, shape / mean)


def predictor(x: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``x @ b``, ``(N,)``, for one `b` ``(D,)``, or ``(S, N)`` for vectorized particles ``(S, 1, D)``."""
    return (x * b).sum(-1)


def gaussian_posterior(
    design: np.ndarray, y: np.ndarray, noise: np.ndarray, mean: np.ndarray, cov: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of z given y ~ Normal(design z, noise), z ~ Normal(mean, cov)."""
    gain = cov @ design.T @ np.linalg.inv(design @ cov @ design.T + noise)
    return mean + gain @ (y - design @ mean), cov - gain @ design @ cov


def regression_data(seed: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(30, 3))
    x[:, 1] = 0.8 * x[:, 0] + 0.6 * x[:, 1]
    return x, rng.normal(x @ [1.0, -0.5, 0.3], noise)


def tensors(*arrays: np.ndarray) -> Any:
    """One float32 tensor, or a tuple of them."""
    made = tuple(torch.as_tensor(array, dtype=torch.get_default_dtype()) for array in arrays)
    return made if len(made) > 1 else made[0]
