"""Eight schools, centred and non-centred: the same posterior, written so that a guide can or cannot follow it.

Where tau is small the centred thetas are squeezed together, a funnel that no normal distribution fits. Written as
mu + tau * z, with z standard normal, the same model has a posterior that is nearly normal.
"""

import pyro
import pyro.distributions as dist
from pyro.infer.autoguide import AutoMultivariateNormal
from torch import Tensor

import vipack as vi


def centred(y: Tensor, sigma: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)


def non_centred(y: Tensor, sigma: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * z)
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)


def main(num_steps: int = 3_000, seed: int = 0) -> vi.Fit:
    schools = vi.datasets.eight_schools()
    fits = {
        model.__name__: vi.fit(model, AutoMultivariateNormal, data=schools.columns, steps=num_steps, seed=seed)
        for model in (centred, non_centred)
    }
    # Both are densities of the same data, so their ELBOs (nats) can be compared: the higher one is closer to log p(y).
    print(vi.compare(fits).round(2).to_string())
    return fits["non_centred"]


if __name__ == "__main__":
    fit = main()
    print()
    print(fit.diagnose())
    # From here on the fit answers with the draws that the verdict certifies: after CORRECTED, resampled ones.
    print()
    print(fit.summary().round(1))
    theta = fit.sample(4_000)["theta"]
    print("\nP(school 0 gains most):", (theta.argmax(1) == 0).float().mean().item())
