"""Variance of gradients near the posterior of a regression: ours against Pyro's usual ones.

python benchmarks/gradient_variance.py
"""

from collections.abc import Callable, Iterator
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import RenyiELBO, Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal
from torch import Tensor

from vipack.guides import Flow, from_laplace
from vipack.objectives import ImportanceWeighted, StickingTheLanding

X = torch.randn(12, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = X @ torch.tensor([1.0, -0.5], dtype=torch.float64)


def regression(x: Tensor, y: Tensor) -> None:
    beta = pyro.sample("beta", dist.Normal(torch.zeros(2, dtype=x.dtype), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ beta, torch.ones((), dtype=x.dtype)), obs=y)


def variance(objective: Any, family: Callable[..., Any], off: float, num_gradients: int = 40) -> float:
    """Of the gradient of a guide that is the posterior but for noise of size `off`, summed over its parameters."""
    pyro.clear_param_store()
    torch.manual_seed(0)
    guide = from_laplace(regression, (X, Y), base=family)
    guide(X, Y)
    for parameter in guide.parameters():
        parameter.data.add_(off * torch.randn_like(parameter))
    rows = []
    for _ in range(num_gradients):
        guide.zero_grad()
        objective.loss_and_grads(regression, guide, X, Y)
        rows.append(torch.cat([p.grad.reshape(-1) for p in guide.parameters()]))
    return float(torch.stack(rows).var(0).sum())


def table() -> Iterator[str]:
    yield "StickingTheLanding(8) / Trace_ELBO(8)"
    for family in (AutoMultivariateNormal, Flow):
        for off in (0.1, 0.03, 0.01, 0.0):
            usual = variance(Trace_ELBO(num_particles=8), family, off)
            yield f"  {family.__name__:24} off by {off:<5} {variance(StickingTheLanding(8), family, off) / usual:.2g}"
    yield "ImportanceWeighted(K) / RenyiELBO(alpha=0, K)"
    for number in (4, 16):
        usual = variance(RenyiELBO(alpha=0, num_particles=number), AutoMultivariateNormal, 0.1)
        ours = variance(ImportanceWeighted(number), AutoMultivariateNormal, 0.1)
        yield f"  AutoMultivariateNormal   off by 0.1, K = {number:<2}  {ours / usual:.2g}"


if __name__ == "__main__":
    print("\n".join(table()))
