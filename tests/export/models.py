"""Small fits whose groups the tests look into; a few steps each, since no test asks whether they converged."""

import functools

import numpy as np
import pyro
import pyro.distributions as dist
import scipy.sparse
import torch
from pyro.infer import TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import AutoNormal

import vipack as vi

Y = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
SIGMA = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
NOISE, PRIOR = 1.0, 3.0  # sds of the conjugate model


@functools.cache
def eight_schools() -> vi.Fit:
    def model(y, sigma, weight=1.0, centred=False):
        mu = pyro.sample("mu", dist.Normal(0, 5))
        tau = pyro.sample("tau", dist.HalfCauchy(5.0))
        with pyro.plate("school", len(y)):
            eta = pyro.sample("eta", dist.Normal(0, 1))
            theta = pyro.deterministic("theta", mu + tau * eta)
            pyro.sample("obs", dist.Normal(theta, sigma), obs=y)

    return short(model, (Y, SIGMA), fixed={"weight": 2.0, "centred": False})


@functools.cache
def conjugate() -> vi.Fit:
    """y_i ~ Normal(mu, 1), mu ~ Normal(0, 3), and a guide that is the posterior."""
    y = conjugate_data()
    mean, sd = conjugate_posterior(y)

    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, PRIOR))
        with pyro.plate("row", len(y)):
            pyro.sample("y", dist.Normal(mu, NOISE), obs=y)

    def guide(y):
        pyro.sample("mu", dist.Normal(pyro.param("loc", torch.tensor(mean, dtype=y.dtype)), sd))

    return short(model, torch.tensor(y), guide=guide, optim=pyro.optim.SGD({"lr": 0.0}))


def conjugate_data() -> np.ndarray:
    return np.random.default_rng(1).normal(0.7, NOISE, size=20)


def conjugate_posterior(y: np.ndarray) -> tuple[float, float]:
    """Mean and sd of mu given `y`."""
    precision = len(y) / NOISE**2 + 1 / PRIOR**2
    return float(y.sum() / NOISE**2 / precision), float(precision**-0.5)


def nested() -> vi.Fit:
    """Plates at dims -1 and -2, an event of 2, a site in the outer plate alone and one in none."""

    def model(y):
        mix = pyro.sample("mix", dist.Dirichlet(torch.ones(2)))
        with pyro.plate("group", 3, dim=-2):
            level = pyro.sample("level", dist.Normal(0, 1))
            pyro.deterministic("doubled", 2 * level)
            with pyro.plate("row", 4, dim=-1):
                slope = pyro.sample("slope", dist.Normal(torch.zeros(2), 1).to_event(1))
                pyro.deterministic("tilt", slope.flip(-1))
                pyro.sample("y", dist.Normal(level[..., None] + slope * mix, 1).to_event(1), obs=y)

    return short(model, {"y": torch.ones(3, 4, 2)})


def counts(dtype: torch.dtype, family: str) -> vi.Fit:
    def model(y):
        rate = pyro.sample("rate", dist.Beta(2.0, 2.0))
        with pyro.plate("row", len(y)):
            families = {
                "bernoulli": dist.Bernoulli(rate),
                "poisson": dist.Poisson(5 * rate),
                "categorical": dist.Categorical(torch.stack([1 - rate, rate], -1)),
            }
            pyro.sample("y", families[family], obs=y)

    return short(model, torch.tensor([0, 1, 1, 0, 1]).to(dtype))


def enumerated() -> vi.Fit:
    @config_enumerate
    def model(y):
        loc = pyro.sample("loc", dist.Normal(0, 3).expand([2]).to_event(1))
        with pyro.plate("row", len(y)):
            which = pyro.sample("which", dist.Categorical(torch.tensor([0.5, 0.5])))
            pyro.sample("y", dist.Normal(loc[which], 1), obs=y)

    guide = AutoNormal(pyro.poutine.block(model, hide=["which"]))
    return short(model, torch.tensor([-2.0, -1.0, 2.0]), guide=guide, loss=TraceEnum_ELBO())


def masked(how: str) -> vi.Fit:
    """Five values of which the second and fifth are placeholders, masked in each of Pyro's ways."""
    keep = torch.tensor([True, False, True, True, False])

    def model(y):
        mu = pyro.sample("mu", dist.Normal(0, 1))
        with pyro.plate("row", len(y)):
            if how == "obs_mask":
                pyro.sample("y", dist.Normal(mu, 1), obs=y, obs_mask=keep)
            elif how == "poutine.mask":
                with pyro.poutine.mask(mask=keep):
                    pyro.sample("y", dist.Normal(mu, 1), obs=y)
            else:
                pyro.sample("y", dist.Normal(mu, 1).mask(keep), obs=y)

    return short(model, torch.tensor([1.0, 99.0, 2.0, 3.0, 99.0]))


def sparse(size: int) -> vi.Fit:
    """A sparse covariate matrix ``(3, size)``."""

    def model(x, y):
        w = pyro.sample("w", dist.Normal(0, 1))
        with pyro.plate("row", len(y)):
            total = torch.sparse.mm(x, torch.ones(size, 1))[:, 0]
            pyro.sample("y", dist.Normal(w * total, 1), obs=y)

    matrix = scipy.sparse.csr_matrix(([1.0, 2.0, 3.0], ([0, 1, 2], [0, 1, 0])), shape=(3, size), dtype=np.float32)
    return short(model, (matrix, torch.tensor([1.0, 2.0, 3.0])))


def clashing() -> vi.Fit:
    """A plate called like an argument, a plate called draw, a site called chain and one with a slash."""

    def model(x, y):
        pyro.sample("chain", dist.Normal(0, 1))
        with pyro.plate("x", len(x)), pyro.plate("draw", 2, dim=-2):
            z = pyro.sample("scope/z", dist.Normal(0, 1))
            pyro.sample("obs", dist.Normal(z * x, 1), obs=y)

    return short(model, (torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 5.0, 3.0])))


def short(model, data, guide=AutoNormal, **options) -> vi.Fit:
    return vi.fit(model, guide, data=data, steps=3, progress=False, **options)
