"""The ELBO and the log evidence, estimated from a guide's draws with standard errors."""

from __future__ import annotations

from torch import Tensor

from vipack.hints import checked
from vipack.importance import importance, mean_and_se
from vipack.types import Estimate

__all__ = ["elbo", "log_evidence"]


@checked
def elbo(log_weights: Tensor) -> Estimate:
    """Mean of ``log p(x, z) - log q(z)`` over draws ``(S,)`` from q: a lower bound of log p(x), in nats."""
    return mean_and_se(log_weights)


@checked
def log_evidence(log_weights: Tensor) -> Estimate:
    """Importance-sampling estimate ``log mean exp(log w)`` of log p(x) from Pareto-smoothed weights, in nats.

    Its standard error, by the delta method, is itself unreliable where k-hat is above 0.7.
    """
    return importance(log_weights).evidence
