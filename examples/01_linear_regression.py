"""Linear regression: an ordinary Pyro model, fitted in one line, and whether to trust the answer."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import vipack as vi

SLOPES = torch.tensor([2.0, -1.0, 0.0])  # the truth that the fit should recover
INTERCEPT, NOISE = 0.5, 0.8


def model(x: Tensor, y: Tensor | None = None) -> Tensor:
    intercept = pyro.sample("intercept", dist.Normal(0.0, 10.0))
    slope = pyro.sample("slope", dist.Normal(0.0, 10.0).expand([x.shape[1]]).to_event(1))
    noise = pyro.sample("noise", dist.HalfNormal(5.0))
    with pyro.plate("row", len(x)):
        return pyro.sample("y", dist.Normal(intercept + x @ slope, noise), obs=y)


def simulate(num_rows: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_rows, len(SLOPES), generator=generator)
    y = INTERCEPT + x @ SLOPES + NOISE * torch.randn(num_rows, generator=generator)
    return x, y


def main(num_steps: int = 2_000, seed: int = 0) -> vi.Fit:
    # No guide is named, so a full-rank normal is fitted: AutoMultivariateNormal.
    return vi.fit(model, data=simulate(200, seed), steps=num_steps, seed=seed)


if __name__ == "__main__":
    fit = main()
    print(fit.summary().round(2))
    print(f"truth: intercept {INTERCEPT}, slope {SLOPES.tolist()}, noise {NOISE}\n")

    new = torch.tensor([[1.0, 0.0, 0.0]])
    y = fit.predict(data=(new,))["y"]  # the model's y defaults to None, so it is what is predicted
    print(f"prediction at x = {new.tolist()[0]}: {y.mean():.2f} ± {y.std():.2f}\n")
    print(fit.diagnose())
