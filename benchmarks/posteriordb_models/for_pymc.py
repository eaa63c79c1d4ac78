"""The same programs for PyMC, to compare with its ADVI. That of the differential equation is left out.

PyMC has no positive ordered vector: the hidden Markov model's means are ordered only, and no draw of them is near zero.
"""

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from pymc.distributions.transforms import ordered

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
    moves = pt.log(pt.stack([theta1, theta2]))
    emissions = pm.logp(pm.Normal.dist(mu, 1.0), y[:, None])
    forward = pytensor.scan(
        lambda emission, forward, moves: _logsumexp(forward[:, None] + moves) + emission,
        sequences=emissions[1:],
        outputs_info=emissions[0],
        non_sequences=moves,
        return_updates=False,
    )
    pm.Potential("y", _logsumexp(forward[-1]))


def _logsumexp(values):
    """Over the first dimension; that of PyTensor underflows inside a scan, where nothing rewrites it."""
    top = values.max(axis=0)
    return top + pt.log(pt.exp(values - top).sum(axis=0))


def two_normals(y):
    mu = pm.Normal("mu", 0.0, 2.0, shape=2, transform=ordered, initval=np.array([-1.0, 1.0]))
    sigma = pm.HalfNormal("sigma", 2.0, shape=2)
    theta = pm.Beta("theta", 5.0, 5.0)
    pm.NormalMixture("y", pt.stack([theta, 1 - theta]), mu, sigma, observed=y)


def gaussian_process(x, y):
    rho = pm.Gamma("rho", 25.0, 4.0)
    alpha = pm.HalfNormal("alpha", 2.0)
    sigma = pm.HalfNormal("sigma", 1.0)
    kernel = alpha**2 * pt.exp(-0.5 * ((x[:, None] - x) / rho) ** 2)
    pm.MvNormal("y", np.zeros(len(x)), kernel + sigma * pt.eye(len(x)), observed=y)


MODELS = {
    "eight_schools-eight_schools_centered": centered,
    "eight_schools-eight_schools_noncentered": noncentered,
    "kidiq-kidscore_interaction": kidscore,
    "mesquite-logmesquite": flat_regression,
    "earnings-earn_height": flat_regression,
    "nes1980-nes": flat_regression,
    "arK-arK": autoregression,
    "garch-garch11": garch,
    "hmm_example-hmm_example": hidden_markov,
    "low_dim_gauss_mix-low_dim_gauss_mix": two_normals,
    "gp_pois_regr-gp_regr": gaussian_process,
}
