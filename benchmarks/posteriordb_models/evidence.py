"""Log evidence by an integral over one number: of normal regressions, and of eight schools.

What Pyro's programs leave out is left out here too: an improper flat prior has density one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import optimize, special, stats
from torch import Tensor

__all__ = ["eight_schools_evidence", "regression_evidence"]

Array = np.ndarray[Any, np.dtype[np.float64]]


def regression_evidence(
    X: Tensor, y: Tensor, log_prior: Callable[[Array], Array], loc: Any = 0.0, scale: Any = None
) -> float:
    """Log evidence of ``y ~ Normal(X beta, sigma)``, in nats.

    The coefficients are summed out in closed form, in the singular vectors of X, so that nearly collinear columns lose no
    digits; sigma by the trapezoid rule on its logarithm.

    Args:
        log_prior: of sigma.
        loc: of the normal prior of each coefficient, ``(P,)``.
        scale: its sd, ``(P,)``; None is a flat prior.
    """
    design, residual = X.numpy(), y.numpy() - X.numpy() @ np.broadcast_to(loc, X.shape[1])
    vectors, values, _ = np.linalg.svd(design * (1.0 if scale is None else scale), full_matrices=False)
    along = vectors.T @ residual
    rest, (num_rows, num_columns) = float(np.sum((residual - vectors @ along) ** 2)), design.shape

    def log_density(log_sigma: Array) -> Array:
        variance = np.exp(2 * log_sigma)
        value = -0.5 * (num_rows * np.log(2 * np.pi) + (num_rows - num_columns) * 2 * log_sigma + rest / variance)
        if scale is None:
            value += 0.5 * num_columns * np.log(2 * np.pi) - np.log(values).sum()
        else:
            total = variance[:, None] + values**2
            value -= 0.5 * (np.log(total) + along**2 / total).sum(1)
        return value + log_prior(np.exp(log_sigma)) + log_sigma

    return _log_integral(log_density)


def eight_schools_evidence(y: Tensor, sigma: Tensor) -> float:
    """Log evidence of eight schools, in nats: given tau, the schools are jointly normal."""
    values, variances = y.numpy(), sigma.numpy() ** 2

    def log_density(log_tau: Array) -> Array:
        found = np.zeros_like(log_tau)
        for i, tau in enumerate(np.exp(log_tau)):
            cov = 25.0 + np.diag(variances + tau**2)
            found[i] = stats.multivariate_normal.logpdf(values, np.zeros(len(values)), cov)
        return found + stats.halfcauchy.logpdf(np.exp(log_tau), scale=5.0) + log_tau

    return _log_integral(log_density)


def _log_integral(log_density: Callable[[Array], Array], num_points: int = 2_001) -> float:
    """Over the real line, of a density that falls off on both sides of one mode."""
    start = optimize.minimize_scalar(lambda t: -log_density(np.array([t]))[0], bounds=(-20.0, 30.0), method="bounded").x
    top = log_density(np.array([start]))[0]

    def edge(sign: float) -> float:
        width = 1e-3
        while log_density(np.array([start + sign * width]))[0] > top - 45 and width < 100:
            width *= 1.3
        return sign * width

    points = np.linspace(start + edge(-1.0), start + edge(1.0), num_points)
    return float(special.logsumexp(log_density(points)) + np.log(points[1] - points[0]))
