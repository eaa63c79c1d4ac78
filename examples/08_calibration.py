"""Is this guide right for this model, whatever the data? Simulate data from the model, fit them all, and look.

Two predictors that nearly coincide leave a posterior with a narrow ridge. A guide of independent normals is far too sure of
each coefficient, and simulation-based calibration says so before any real data are seen.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch import Tensor

import vipack as vi


def model(x: Tensor, y: Tensor) -> None:
    slopes = pyro.sample("slopes", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("row", len(x)):
        pyro.sample("y", dist.Normal((x * slopes).sum(-1), 1.0), obs=y)


def data(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(30, generator=generator)
    x = torch.stack([first, first + 0.3 * torch.randn(30, generator=generator)], dim=1)
    return x, x.sum(1) + torch.randn(30, generator=generator)


def main(num_steps: int = 2_000, seed: int = 0) -> vi.Fit:
    x, y = data(seed)
    for guide in (AutoNormal, AutoMultivariateNormal):
        # The two hundred fits run side by side, so they take little longer than one.
        found = vi.vsbc(model, guide, data=(x, y), steps=num_steps, num_simulations=min(200, 20 + num_steps), seed=seed)
        print(f"{guide.__name__}: {found}")
    fits = {
        guide.__name__: vi.fit(model, guide, data=(x, y), steps=num_steps, seed=seed)
        for guide in (AutoNormal, AutoMultivariateNormal)
    }
    # The same on these data: how far apart the two fits are, in posterior sds.
    print(vi.diagnostics.disagreement(fits).round(2).to_string())
    return fits["AutoMultivariateNormal"]


if __name__ == "__main__":
    print(main().diagnose())
