"""A mixture whose components have no names: its equal modes counted, one fitted, all joined.

    w ~ Dirichlet(1, 1, 1), mu_k ~ Normal(0, 10), sigma_k ~ LogNormal(0, 1/2)
    y_n ~ sum_k w_k Normal(mu_k, sigma_k)

Renumbering the components changes nothing, so the posterior has 3! = 6 equal modes. Source: Stephens (2000), Dealing with label
switching in mixture models, Journal of the Royal Statistical Society B 62, 795-809.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import vipack as vi


def make_data(num_rows: int = 150, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.multinomial(torch.tensor([0.5, 0.3, 0.2]), num_rows, replacement=True, generator=generator)
    noise = torch.randn(num_rows, generator=generator)
    return torch.tensor([-6.0, 0.0, 7.0])[chosen] + torch.tensor([1.0, 0.7, 1.5])[chosen] * noise


def model(y: Tensor) -> None:
    w = pyro.sample("w", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("component", 3):
        mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
        sigma = pyro.sample("sigma", dist.LogNormal(0.0, 0.5))
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.MixtureSameFamily(dist.Categorical(w), dist.Normal(mu, sigma)), obs=y)


def main(num_steps: int | None = None, seed: int = 0) -> vi.Fit:
    """A fit of one mode; with `num_steps` by a guide, so many steps long."""
    y = make_data(seed=seed)
    if num_steps is not None:
        from pyro.infer.autoguide import AutoMultivariateNormal

        return vi.fit(model, AutoMultivariateNormal, data=y, steps=num_steps, seed=seed)
    return vi.fit(model, data=y, seed=seed)


if __name__ == "__main__":
    fit = main()
    found = fit.diagnose()
    print(found, fit.summary().round(2), sep="\n")  # of one labelling, which means and sds need
    joined = vi.fit(model, data=make_data(), symmetric="all")
    print(joined.stages, joined.diagnose(), sep="\n")  # of all six, whose components are alike
    print(vi.compare({"one mode": fit, "all modes": joined})[["elbo", "evidence", "copies", "verdict"]].round(2))
