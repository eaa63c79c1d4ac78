"""Logistic regression with varying intercepts, in minibatches: 20,000 rows, 200 of them a step.

The batch's log p and log q are scaled by N / B, so the posterior is that of all rows, not of one batch: `plate("row",
len(y))` is all that the model needs to say.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoNormal
from torch import Tensor

import vipack as vi

NUM_ROWS, NUM_GROUPS = 20_000, 30
SLOPE, SPREAD = 1.5, 0.7  # the truth


def model(x: Tensor, group: Tensor, y: Tensor) -> None:
    slope = pyro.sample("slope", dist.Normal(0.0, 2.0))
    mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
    spread = pyro.sample("spread", dist.HalfNormal(2.0))
    with pyro.plate("group", NUM_GROUPS):
        intercept = pyro.sample("intercept", dist.Normal(mean, spread))
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.Bernoulli(logits=intercept[group] + slope * x), obs=y)


def simulate(seed: int) -> tuple[dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    intercept = -1.0 + SPREAD * torch.randn(NUM_GROUPS, generator=generator)
    group = torch.randint(NUM_GROUPS, (NUM_ROWS,), generator=generator)
    x = torch.randn(NUM_ROWS, generator=generator)
    y = torch.bernoulli((intercept[group] + SLOPE * x).sigmoid(), generator=generator)
    return {"x": x, "group": group, "y": y}, intercept


def main(num_steps: int = 3_000, seed: int = 0) -> vi.Fit:
    data, _ = simulate(seed)
    return vi.fit(model, AutoNormal, data=data, batch_size=200, steps=num_steps, seed=seed)


if __name__ == "__main__":
    fit = main()
    print(fit.summary().loc[["slope", "mean", "spread"]].round(3))
    print(f"truth: slope {SLOPE}, mean -1.0, spread {SPREAD}")

    _, truth = simulate(seed=0)
    draws = fit.sample()["intercept"]
    low, high = draws.quantile(0.05, dim=0), draws.quantile(0.95, dim=0)
    print(f"90% intervals that hold their group's intercept: {((low < truth) & (truth < high)).float().mean():.0%}\n")
    print(fit.diagnose())
