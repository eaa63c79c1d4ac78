"""A curved posterior: what a full-rank Gaussian cannot follow, a flow and a mixture can.

Only a + b^2 is seen, so the posterior of (a, b) is a thin arch, which no ellipse fits.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoMultivariateNormal
from torch import Tensor

import vipack as vi
from vipack.guides import Flow, Mixture
from vipack.objectives import StickingTheLanding


def arch(y: Tensor) -> None:
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    b = pyro.sample("b", dist.Normal(0.0, 1.0))
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.Normal(a + b.square(), 1.0), obs=y)


def main(num_steps: int = 1_500, seed: int = 0) -> vi.Fit:
    y = 1.0 + torch.randn(20, generator=torch.Generator().manual_seed(0))
    guides = {
        "full rank": AutoMultivariateNormal,
        "mixture of 4": Mixture(arch, [AutoMultivariateNormal] * 4),
        "flow": Flow,
    }
    # The gradient follows the draws alone: it falls still where a rich family nears the posterior.
    loss = StickingTheLanding(num_particles=16)
    fits = {name: vi.fit(arch, guide, data=y, loss=loss, steps=num_steps, seed=seed) for name, guide in guides.items()}
    print(vi.compare(fits).round(2).to_string())
    return fits["flow"]


if __name__ == "__main__":
    fit = main()
    print()
    print(fit.diagnose())
    draws = fit.sample(4_000)
    print("\nsd of b:", draws["b"].std().item(), " sd of a + b^2:", (draws["a"] + draws["b"].square()).std().item())
