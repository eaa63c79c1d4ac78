"""Densities with tails that a normal guide lacks: heavier, thinner, or each side its own; their truths are exact."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from scipy import stats
from torch import Tensor

from benchmarks.known_posteriors import Known, drawn_from
from benchmarks.truths import Marginal, truth

__all__ = ["TAILS"]

_COPIES = 3  # of the element, each independent of the others


def _independent(name: str, density: Any, exact: Any) -> Known:
    """Elements over the reals with this density."""

    def model() -> None:
        drawn_from("z", density().expand([_COPIES]).to_event(1))

    marginals = exact if isinstance(exact, Marginal) else Marginal.of(exact)[0]
    return Known(name, model, {}, truth(0.0, z=_COPIES * [marginals]))


def _contaminated() -> Known:
    """One in ten draws is from a normal five times as wide."""
    shares, sds = np.array([0.9, 0.1]), np.array([1.0, 5.0])

    def density() -> Any:
        choice = dist.Categorical(torch.as_tensor(shares))
        return dist.MixtureSameFamily(choice, dist.Normal(torch.zeros(2), torch.as_tensor(sds)))

    def model() -> None:
        for i in range(_COPIES):
            drawn_from(f"z{i + 1}", density())

    z = Marginal.by_cdf(0.0, math.sqrt(shares @ sds**2), lambda at: float(shares @ stats.norm.cdf(at, 0.0, sds)))
    return Known("contaminated normal", model, {}, truth(0.0, **{f"z{i + 1}": z for i in range(_COPIES)}))


def _fourth_power() -> Known:
    """Thinner than normal: log p falls with the fourth power."""
    exact = stats.gennorm(4.0)

    def model() -> None:
        z: Tensor = pyro.sample("z", dist.ImproperUniform(constraints.real, (), (_COPIES,)))
        pyro.factor("density", -(z**4).sum() - _COPIES * math.log(2 * math.gamma(1.25)))

    return Known("fourth power", model, {}, truth(0.0, z=_COPIES * Marginal.of(exact)))


def _prior_alone(name: str, distribution: Any, exact: Any) -> Known:
    """Elements whose support is bounded; what is seen says nothing of them."""

    def model() -> None:
        pyro.sample("z", distribution().expand([_COPIES]).to_event(1))
        pyro.factor("nothing", torch.zeros(()))

    return Known(name, model, {}, truth(0.0, z=_COPIES * Marginal.of(exact)))


TAILS = [
    _independent("t of 3 degrees", lambda: dist.StudentT(3.0, 0.0, 1.0), stats.t(3)),
    _independent("Laplace", lambda: dist.Laplace(0.0, 1.0), stats.laplace()),
    _independent("Gumbel", lambda: dist.Gumbel(0.0, 1.0), stats.gumbel_r()),
    _contaminated(),
    _fourth_power(),
    _prior_alone("small shape", lambda: dist.Gamma(0.4, 1.0), stats.gamma(0.4)),
    _prior_alone("arcsine", lambda: dist.Beta(0.5, 0.5), stats.beta(0.5, 0.5)),
]
