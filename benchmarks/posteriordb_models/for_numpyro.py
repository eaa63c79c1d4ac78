"""The same programs for NumPyro, to compare with its guides and its NUTS; loops over time are scans here."""

import math

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import logsumexp
from numpyro import deterministic, factor, plate, sample
from numpyro.distributions import constraints

from benchmarks.posteriordb_models import (
    POSTERIORS,
    eight_schools,
    gaussian_process,
    mixture,
    predator_prey,
    regressions,
    time_series,
)

__all__ = ["MODELS"]


def centered(y, sigma):
    mu = sample("mu", dist.Normal(0.0, 5.0))
    tau = sample("tau", dist.HalfCauchy(5.0))
    with plate("school", len(y)):
        theta = sample("theta", dist.Normal(mu, tau))
        sample("y", dist.Normal(theta, sigma), obs=y)


def noncentered(y, sigma):
    mu = sample("mu", dist.Normal(0.0, 5.0))
    tau = sample("tau", dist.HalfCauchy(5.0))
    with plate("school", len(y)):
        theta_trans = sample("theta_trans", dist.Normal(0.0, 1.0))
        theta = deterministic("theta", mu + tau * theta_trans)
        sample("y", dist.Normal(theta, sigma), obs=y)


def flat_regression(X, y):
    beta = sample("beta", dist.ImproperUniform(constraints.real, (), (X.shape[1],)))
    sigma = sample("sigma", dist.ImproperUniform(constraints.positive, (), ()))
    sample("y", dist.Normal(X @ beta, sigma), obs=y)


def kidscore(X, y):
    beta = sample("beta", dist.ImproperUniform(constraints.real, (), (X.shape[1],)))
    sigma = sample("sigma", dist.HalfCauchy(2.5))
    sample("kid_score", dist.Normal(X @ beta, sigma), obs=y)


def normal_regression(X, y):
    beta = sample("beta", dist.Normal(0.0, 10.0).expand([X.shape[1]]).to_event(1))
    sigma = sample("sigma", dist.HalfNormal(10.0))
    sample("y", dist.Normal(X @ beta, sigma), obs=y)


def trend(x, y, pmualpha, psalpha, pmubeta, psbeta):
    alpha = sample("alpha", dist.Normal(pmualpha, psalpha))
    beta = sample("beta", dist.Normal(pmubeta, psbeta))
    sigma = sample("sigma", dist.ImproperUniform(constraints.positive, (), ()))
    sample("y", dist.Normal(alpha + beta * x, sigma), obs=y)


def autoregression(y, lags):
    alpha = sample("alpha", dist.Normal(0.0, 10.0))
    beta = sample("beta", dist.Normal(0.0, 10.0).expand([lags.shape[1]]).to_event(1))
    sigma = sample("sigma", dist.HalfCauchy(2.5))
    sample("y", dist.Normal(alpha + lags @ beta, sigma), obs=y)


def garch(y, sigma1):
    mu = sample("mu", dist.ImproperUniform(constraints.real, (), ()))
    alpha0 = sample("alpha0", dist.ImproperUniform(constraints.positive, (), ()))
    shares = sample("shares", dist.Dirichlet(jnp.ones(3)))
    alpha1, beta1 = deterministic("alpha1", shares[0]), deterministic("beta1", shares[1])

    def step(variance, shock):
        variance = shock + beta1 * variance
        return variance, variance

    first = jnp.asarray(sigma1) ** 2
    later = jax.lax.scan(step, first, alpha0 + alpha1 * (y[:-1] - mu) ** 2)[1]
    sample("y", dist.Normal(mu, jnp.sqrt(jnp.concatenate([first[None], later]))), obs=y)


def hidden_markov(y):
    theta1 = sample("theta1", dist.Dirichlet(jnp.ones(2)))
    theta2 = sample("theta2", dist.Dirichlet(jnp.ones(2)))
    mu = sample("mu", dist.ImproperUniform(constraints.positive_ordered_vector, (), (2,)))
    factor("mu_prior", dist.Normal(jnp.array([3.0, 10.0]), 1.0).log_prob(mu).sum())
    factor("y", _summed_out(jnp.stack([theta1, theta2]), dist.Normal(mu, 1.0).log_prob(y[:, None])))


def drives(u, v, alpha):
    theta1 = sample("theta1", dist.Dirichlet(alpha[0]))
    theta2 = sample("theta2", dist.Dirichlet(alpha[1]))
    centres = jnp.array([0.0, 3.0])
    phi = sample("phi", dist.ImproperUniform(constraints.positive_ordered_vector, (), (2,)))
    factor("phi_prior", dist.Normal(centres, 1.0).log_prob(phi).sum())
    lambda_ = sample("lambda", dist.ImproperUniform(constraints.positive_ordered_vector, (), (2,)))
    factor("lambda_prior", dist.Normal(centres, 1.0).log_prob(lambda_).sum())
    emissions = dist.Exponential(phi).log_prob(u[:, None]) + dist.Exponential(lambda_).log_prob(v[:, None])
    factor("uv", _summed_out(jnp.stack([theta1, theta2]), emissions))


def _summed_out(theta, emissions):
    def step(forward, emission):
        return logsumexp(forward[:, None] + jnp.log(theta), axis=0) + emission, None

    return logsumexp(jax.lax.scan(step, emissions[0], emissions[1:])[0])


def two_normals(y):
    mu = sample("mu", dist.ImproperUniform(constraints.ordered_vector, (), (2,)))
    factor("mu_prior", dist.Normal(0.0, 2.0).log_prob(mu).sum())
    sigma = sample("sigma", dist.HalfNormal(2.0).expand([2]).to_event(1))
    theta = sample("theta", dist.Beta(5.0, 5.0))
    share = dist.Categorical(probs=jnp.stack([theta, 1 - theta]))
    sample("y", dist.MixtureSameFamily(share, dist.Normal(mu, sigma)), obs=y)


def gaussian_process_regression(x, y):
    rho = sample("rho", dist.Gamma(25.0, 4.0))
    alpha = sample("alpha", dist.HalfNormal(2.0))
    sigma = sample("sigma", dist.HalfNormal(1.0))
    kernel = alpha**2 * jnp.exp(-0.5 * ((x[:, None] - x) / rho) ** 2)
    sample("y", dist.MultivariateNormal(jnp.zeros(len(x)), kernel + sigma * jnp.eye(len(x))), obs=y)


def lotka_volterra(y_init, y, substeps=20):
    theta = sample("theta", dist.ImproperUniform(constraints.positive, (), (4,)))
    centre, spread = jnp.array([1.0, 0.05, 1.0, 0.05]), jnp.array([0.5, 0.05, 0.5, 0.05])
    factor("theta_prior", dist.Normal(centre, spread).log_prob(theta).sum())
    z_init = sample("z_init", dist.LogNormal(math.log(10.0), 1.0).expand([2]).to_event(1))
    sigma = sample("sigma", dist.LogNormal(-1.0, 1.0).expand([2]).to_event(1))
    rate = jnp.stack([theta[0], -theta[2]])
    effect = jnp.stack([-theta[1], theta[3]])

    def slope(log_z):
        return rate + effect * jnp.exp(log_z)[::-1]

    def step(log_z, _):
        width = 1 / substeps
        first = slope(log_z)
        second = slope(log_z + width / 2 * first)
        third = slope(log_z + width / 2 * second)
        fourth = slope(log_z + width * third)
        log_z = log_z + width / 6 * (first + 2 * second + 2 * third + fourth)
        return log_z, log_z

    log_z = jax.lax.scan(step, jnp.log(z_init), None, length=len(y) * substeps)[1][substeps - 1 :: substeps]
    sample("y_init", dist.LogNormal(jnp.log(z_init), sigma), obs=y_init)
    sample("y", dist.LogNormal(log_z, sigma), obs=y)


# The Pyro programs in these files, and what each is here.
_SAME = {
    eight_schools.centered: centered,
    eight_schools.noncentered: noncentered,
    regressions.flat_regression: flat_regression,
    regressions.kidscore: kidscore,
    regressions.normal_regression: normal_regression,
    regressions.trend: trend,
    time_series.autoregression: autoregression,
    time_series.drives: drives,
    time_series.garch: garch,
    time_series.hidden_markov: hidden_markov,
    mixture.two_normals: two_normals,
    gaussian_process.regression: gaussian_process_regression,
    predator_prey.lotka_volterra: lotka_volterra,
}

MODELS = {name: _SAME[posterior.model] for name, posterior in POSTERIORS.items()}

# Errors of a hundredth of an sd are beyond float32 on raw scales.
numpyro.enable_x64()
