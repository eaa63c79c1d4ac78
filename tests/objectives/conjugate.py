"""A Gaussian model whose evidence, posterior and ELBO are known exactly, and estimates of gradients."""

import math

import pyro
import pyro.distributions as dist
import torch

X = torch.randn(12, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = (
    X @ torch.tensor([1.0, -0.5], dtype=torch.float64)
    + torch.randn(12, generator=torch.Generator().manual_seed(1)).double()
)


def regression(x, y):
    """beta ~ N(0, I), y ~ N(x beta, 1): not written for batches of beta."""
    zeros = torch.zeros(2, dtype=torch.float64)
    beta = pyro.sample("beta", dist.Normal(zeros, 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ beta, torch.ones((), dtype=torch.float64)), obs=y)


PRECISION = X.T @ X + torch.eye(2, dtype=torch.float64)
MEAN = torch.linalg.solve(PRECISION, X.T @ Y)
SCALE_TRIL = torch.linalg.cholesky(torch.linalg.inv(PRECISION))
LOG_EVIDENCE = dist.MultivariateNormal(
    torch.zeros(12, dtype=torch.float64), X @ X.T + torch.eye(12, dtype=torch.float64)
).log_prob(Y)


def elbo(loc, scale):
    """ELBO in nats of ``N(loc, diag(scale^2))``, differentiable."""
    off = loc - MEAN
    trace = (PRECISION.diagonal() * scale.square()).sum()
    divergence = 0.5 * (trace + off @ PRECISION @ off - 2 - 2 * scale.log().sum() - torch.logdet(PRECISION))
    return LOG_EVIDENCE - divergence


def gradients(objective, guide, num_estimates, parameters=None):
    """``(num_estimates, P)``: independent estimates of the gradient of all parameters of the guide."""
    rows = []
    for _ in range(num_estimates):
        for parameter in guide.parameters():
            parameter.grad = None
        objective.loss_and_grads(regression, guide, X, Y)
        rows.append(torch.cat([p.grad.reshape(-1) for p in guide.parameters()]))
    return torch.stack(rows)


def standard_errors(found, expected):
    """How many standard errors the mean of the rows `found` is from `expected`."""
    se = found.std(0) / math.sqrt(len(found))
    return (found.mean(0) - expected).abs() / se.clamp(min=1e-12)
