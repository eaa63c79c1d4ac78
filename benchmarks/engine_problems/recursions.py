"""GARCH(1, 1) with its recursion as a Python loop, and as a scan."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from pyro import sample

import vipack as vi

__all__ = ["garch_loop", "garch_scan", "returns"]


def returns(length: int) -> torch.Tensor:
    """Made-up returns ``(length,)``."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(length, generator=generator) * (1 + torch.linspace(0, 1, length))


def garch_loop(y: torch.Tensor) -> None:
    mu, a0, a1, b1 = _priors()
    v, variances = torch.ones(()), []
    for t in range(len(y)):
        variances.append(v)
        v = a0 + a1 * (y[t] - mu) ** 2 + b1 * (1 - a1) * v
    sample("y", dist.Normal(mu, torch.stack(variances).sqrt()).to_event(1), obs=y)


def garch_scan(y: torch.Tensor) -> None:
    mu, a0, a1, b1 = _priors()

    def step(v, y, mu, a0, a1, b1):
        return a0 + a1 * (y - mu) ** 2 + b1 * (1 - a1) * v, v

    _, variances = vi.scan(step, torch.ones(()), y, constants=(mu, a0, a1, b1))
    sample("y", dist.Normal(mu, variances.sqrt()).to_event(1), obs=y)


def _priors() -> tuple[torch.Tensor, ...]:
    return (
        sample("mu", dist.Normal(0.0, 10.0)),
        sample("a0", dist.LogNormal(0.0, 1.0)),
        sample("a1", dist.Beta(1.0, 3.0)),
        sample("b1", dist.Beta(3.0, 1.0)),
    )
