"""No guide and no options: the centred eight schools, a funnel that defeats every normal guide.

Without a guide `vi.fit` climbs from paths of ascent over a Gaussian to a flow, keeps each stage only for what it gains,
and says so. The table shows what the flow is worth here: more than a nat, which no covariance can give.
"""

import pyro
import pyro.distributions as dist
from torch import Tensor

import vipack as vi


def centred(y: Tensor, sigma: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)


def main(num_steps: int | None = None, seed: int = 0) -> vi.Fit:
    schools = vi.datasets.eight_schools()
    if num_steps is not None:  # a short run, for tests
        return vi.fit(centred, data=schools.columns, steps=num_steps, seed=seed)
    return vi.fit(centred, data=schools.columns, seed=seed)


if __name__ == "__main__":
    fit = main()
    print(fit.stages)
    print()
    print(fit.summary().round(1))
    print()
    print(fit.diagnose())
