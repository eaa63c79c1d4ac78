"""The same programs for PyMC, to compare with its ADVI. That of the differential equation is left out.

PyMC has no positive ordered vector: the means of the hidden Markov model of normals are ordered only, and no draw of them
is near zero.
"""

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from pymc.distributions.transforms import Chain, log, ordered

from benchmarks.posteriordb_models import (
    POSTERIORS,
    eight_schools,
    gaussian_process,
    mixture,
    regressions,
    time_series,
)

__all__ = ["MODELS"]


def centered(y, sigma):
    mu = pm.Normal("mu", 0.0, 5.0)
    tau = pm.HalfCauchy("tau", 5.0)
    theta = pm.Normal("theta", mu, tau, shape=len(y))
    pm.Normal("y", theta, sigma, observed=y)


def noncentered(y, sigma):
    mu = pm.Normal("mu", 0.0, 5.0)
    tau = pm.HalfCauchy("tau", 5.0)
    theta_trans = pm.Normal("theta_trans", 0.0, 1.0, shape=len(y))
    theta = pm.Deterministic("theta", mu + tau * theta_trans)
    pm.Normal("y", theta, sigma, observed=y)


def flat_regression(X, y):
    beta = pm.Flat("beta", shape=X.shape[1])
    sigma = pm.HalfFlat("sigma")
    pm.Normal("y", X @ beta, sigma, observed=y)


def kidscore(X, y):
    beta = pm.Flat("beta", shape=X.shape[1])
    sigma = pm.HalfCauchy("sigma", 2.5)
    pm.Normal("kid_score", X @ beta, sigma, observed=y)


def normal_regression(X, y):
    beta = pm.Normal("beta", 0.0, 10.0, shape=X.shape[1])
    sigma = pm.HalfNormal("sigma", 10.0)
    pm.Normal("y", X @ beta, sigma, observed=y)


def trend(x, y, pmualpha, psalpha, pmubeta, psbeta):
    alpha = pm.Normal("alpha", pmualpha, psalpha)
    beta = pm.Normal("beta", pmubeta, psbeta)
    sigma = pm.HalfFlat("sigma")
    pm.Normal("y", alpha + beta * x, sigma, observed=y)


def autoregression(y, lags):
    alpha = pm.Normal("alpha", 0.0, 10.0)
    beta = pm.Normal("beta", 0.0, 10.0, shape=lags.shape[1])
    sigma = pm.HalfCauchy("sigma", 2.5)
    pm.Normal("y", alpha + lags @ beta, sigma, observed=y)


def garch(y, sigma1):
    mu = pm.Flat("mu")
    alpha0 = pm.HalfFlat("alpha0")
    shares = pm.Dirichlet("shares", np.ones(3))
    alpha1, beta1 = pm.Deterministic("alpha1", shares[0]), pm.Deterministic("beta1", shares[1])
    shocks = alpha0 + alpha1 * (y[:-1] - mu) ** 2
    first = pt.as_tensor_variable(sigma1**2)
    later = pytensor.scan(
        lambda shock, variance, share: shock + share * variance,
        sequences=shocks,
        outputs_info=first,
        non_sequences=beta1,
        return_updates=False,
    )
    pm.Normal("y", mu, pt.sqrt(pt.concatenate([first[None], later])), observed=y)


def hidden_markov(y):
    theta1 = pm.Dirichlet("theta1", np.ones(2))
    theta2 = pm.Dirichlet("theta2", np.ones(2))
    mu = pm.Normal("mu", np.array([3.0, 10.0]), 1.0, transform=ordered, initval=np.array([3.0, 10.0]))
    pm.Potential("y", _summed_out(pt.stack([theta1, theta2]), pm.logp(pm.Normal.dist(mu, 1.0), y[:, None])))


def drives(u, v, alpha):
    theta1 = pm.Dirichlet("theta1", alpha[0])
    theta2 = pm.Dirichlet("theta2", alpha[1])
    rates, start = Chain([log, ordered]), np.array([1.0, 3.0])
    phi = pm.TruncatedNormal("phi", np.array([0.0, 3.0]), 1.0, lower=0.0, transform=rates, initval=start)
    lambda_ = pm.TruncatedNormal("lambda", np.array([0.0, 3.0]), 1.0, lower=0.0, transform=rates, initval=start)
    emissions = pm.logp(pm.Exponential.dist(phi), u[:, None]) + pm.logp(pm.Exponential.dist(lambda_), v[:, None])
    pm.Potential("uv", _summed_out(pt.stack([theta1, theta2]), emissions))


def _summed_out(theta, emissions):
    forward = pytensor.scan(
        lambda emission, forward, moves: _logsumexp(forward[:, None] + moves) + emission,
        sequences=emissions[1:],
        outputs_info=emissions[0],
        non_sequences=pt.log(theta),
        return_updates=False,
    )
    return _logsumexp(forward[-1])


def _logsumexp(values):
    """Over the first dimension; that of PyTensor underflows inside a scan, where nothing rewrites it."""
    top = values.max(axis=0)
    return top + pt.log(pt.exp(values - top).sum(axis=0))


def two_normals(y):
    mu = pm.Normal("mu", 0.0, 2.0, shape=2, transform=ordered, initval=np.array([-1.0, 1.0]))
    sigma = pm.HalfNormal("sigma", 2.0, shape=2)
    theta = pm.Beta("theta", 5.0, 5.0)
    pm.NormalMixture("y", pt.stack([theta, 1 - theta]), mu, sigma, observed=y)


def gaussian_process_regression(x, y):
    rho = pm.Gamma("rho", 25.0, 4.0)
    alpha = pm.HalfNormal("alpha", 2.0)
    sigma = pm.HalfNormal("sigma", 1.0)
    kernel = alpha**2 * pt.exp(-0.5 * ((x[:, None] - x) / rho) ** 2)
    pm.MvNormal("y", np.zeros(len(x)), kernel + sigma * pt.eye(len(x)), observed=y)


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
}

MODELS = {name: _SAME[posterior.model] for name, posterior in POSTERIORS.items() if posterior.model in _SAME}
