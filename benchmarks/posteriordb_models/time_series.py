"""Ways through time: an autoregression as one matrix product, a variance that feeds on itself, hidden states."""

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from scipy import stats
from torch import Tensor

from benchmarks.posteriordb_models.evidence import regression_evidence
from benchmarks.posteriordb_models.posterior import Posterior, column

__all__ = ["POSTERIORS", "autoregression", "drives", "garch", "hidden_markov"]


def autoregression(y: Tensor, lags: Tensor) -> None:
    """AR(K): `lags` ``(T - K, K)`` holds the K values before each of `y` ``(T - K,)``, the latest first."""
    alpha = pyro.sample("alpha", dist.Normal(0.0, 10.0))
    beta = pyro.sample("beta", dist.Normal(0.0, 10.0).expand([lags.shape[1]]).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfCauchy(2.5))
    with pyro.plate("time", len(y)):
        pyro.sample("y", dist.Normal(alpha + lags @ beta, sigma), obs=y)


def garch(y: Tensor, sigma1: Tensor) -> None:
    """GARCH(1, 1), flat where alpha1 and beta1 are positive with a sum below one.

    Flat on that triangle is a flat Dirichlet. Written as a beta1 in (0, 1 - alpha1), its support would move with
    alpha1, which Pyro's automatic guides do not follow.
    """
    mu = pyro.sample("mu", dist.ImproperUniform(constraints.real, (), ()))
    alpha0 = pyro.sample("alpha0", dist.ImproperUniform(constraints.positive, (), ()))
    alpha1, beta1, _ = pyro.sample("shares", dist.Dirichlet(torch.ones(3))).unbind(-1)
    pyro.deterministic("alpha1", alpha1)
    pyro.deterministic("beta1", beta1)
    shocks = alpha0 + alpha1 * (y[:-1] - mu) ** 2
    variances = [sigma1**2 + torch.zeros_like(mu)]
    for shock in shocks.unbind():
        variances.append(shock + beta1 * variances[-1])
    with pyro.plate("time", len(y)):
        pyro.sample("y", dist.Normal(mu, torch.stack(variances).sqrt()), obs=y)


def hidden_markov(y: Tensor) -> None:
    """Two hidden states, summed out by the forward algorithm; the first of them has no prior weight."""
    theta1 = pyro.sample("theta1", dist.Dirichlet(torch.ones(2)))
    theta2 = pyro.sample("theta2", dist.Dirichlet(torch.ones(2)))
    mu = pyro.sample("mu", dist.ImproperUniform(constraints.positive_ordered_vector, (), (2,)))
    pyro.factor("mu_prior", dist.Normal(torch.tensor([3.0, 10.0]), 1.0).log_prob(mu).sum())
    pyro.factor("y", _summed_out(torch.stack([theta1, theta2]), dist.Normal(mu, 1.0).log_prob(y[:, None])))


def drives(u: Tensor, v: Tensor, alpha: Tensor) -> None:
    """Does a player drive to the basket? Two hidden states, as above, behind 1/speed `u` and the distance `v`, ``(T,)``.

    Args:
        alpha: ``(2, 2)``, concentrations of the moves from each state.
    """
    theta1 = pyro.sample("theta1", dist.Dirichlet(alpha[0]))
    theta2 = pyro.sample("theta2", dist.Dirichlet(alpha[1]))
    centres = torch.tensor([0.0, 3.0])
    phi = pyro.sample("phi", dist.ImproperUniform(constraints.positive_ordered_vector, (), (2,)))
    pyro.factor("phi_prior", dist.Normal(centres, 1.0).log_prob(phi).sum())
    lambda_ = pyro.sample("lambda", dist.ImproperUniform(constraints.positive_ordered_vector, (), (2,)))
    pyro.factor("lambda_prior", dist.Normal(centres, 1.0).log_prob(lambda_).sum())
    emissions = dist.Exponential(phi).log_prob(u[:, None]) + dist.Exponential(lambda_).log_prob(v[:, None])
    pyro.factor("uv", _summed_out(torch.stack([theta1, theta2]), emissions))


def _summed_out(theta: Tensor, emissions: Tensor) -> Tensor:
    """The log density of `emissions` ``(T, K)``, hidden states summed out; `theta` moves from row to column."""
    moves = theta.log()
    forward, *later = emissions.unbind()
    for emission in later:
        forward = (forward[:, None] + moves).logsumexp(0) + emission
    return forward.logsumexp(0)


def _read_ar(file):
    y, order = column(file["y"]), file["K"]
    # The window that ends just before y[t], turned round.
    return {"y": y[order:], "lags": y[:-1].unfold(0, order, 1).flip(1)}


def _autoregression_evidence(y, lags):
    X = torch.cat([torch.ones(len(y), 1, dtype=y.dtype), lags], dim=1)
    return regression_evidence(X, y, lambda sigma: stats.halfcauchy.logpdf(sigma, scale=2.5), scale=10.0)


def _read_garch(file):
    return {"y": column(file["y"]), "sigma1": column(file["sigma1"])}


def _read_hmm(file):
    return {"y": column(file["y"])}


def _read_drives(file):
    return {name: column(file[name]) for name in ("u", "v", "alpha")}


def _shares(stan):
    alpha1, beta1 = stan["alpha1"], stan["beta1"]
    shares = torch.stack([alpha1, beta1, 1 - alpha1 - beta1], dim=-1)
    return {"mu": stan["mu"], "alpha0": stan["alpha0"], "shares": shares}


POSTERIORS = [
    Posterior("arK-arK", autoregression, _read_ar, evidence=_autoregression_evidence),
    Posterior("garch-garch11", garch, _read_garch, _shares),
    Posterior("hmm_example-hmm_example", hidden_markov, _read_hmm),
    Posterior("bball_drive_event_0-hmm_drive_0", drives, _read_drives),
]
