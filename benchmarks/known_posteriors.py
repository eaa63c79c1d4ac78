"""Small models whose posterior means, sds, tails and evidence are known: in closed form, by symmetry or by quadrature.

They have the shapes that guides stumble over: correlation, skew, curvature, heavy tails, a funnel, and two modes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from scipy import special, stats
from torch import Tensor

from benchmarks.estimates import Reference
from benchmarks.posteriordb_models.eight_schools import centered, noncentered
from benchmarks.truths import Marginal, truth

__all__ = ["KNOWN", "Known", "drawn_from", "f64"]


@dataclass(frozen=True)
class Known:
    """A model with data, and the truth about its posterior.

    Attributes:
        modes: latents near each mode, for models with several.
        one_mode: the truth about any one of several equal modes, with z as its absolute value; None where there is one mode, or
            they are not equal.
    """

    name: str
    model: Callable[..., Any]
    data: dict[str, Tensor]
    truth: Reference
    modes: tuple[dict[str, Tensor], ...] = field(default=())
    one_mode: Reference | None = None


def f64(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def drawn_from(name: str, distribution: Any) -> Tensor:
    """A latent with this density over the reals, written as a factor: a model without one has nothing to learn from."""
    value: Tensor = pyro.sample(name, dist.ImproperUniform(constraints.real, (), distribution.event_shape))
    pyro.factor(f"{name}_density", distribution.log_prob(value))
    return value


# --- closed forms


def _regression() -> Known:
    """Normal prior and known noise: a normal posterior, correlated because the columns are not centred."""
    rng = np.random.default_rng(1)
    X = np.stack([np.ones(40), rng.normal(4, 1, 40), rng.normal(-3, 1, 40)], axis=1)
    y = X @ [1.0, 0.5, -0.3] + rng.normal(0, 1, 40)
    cov = np.linalg.inv(X.T @ X + np.eye(3) / 25)

    def model(X: Tensor, y: Tensor) -> None:
        beta = pyro.sample("beta", dist.Normal(0.0, 5.0).expand([3]).to_event(1))
        with pyro.plate("row", len(y)):
            pyro.sample("y", dist.Normal(X @ beta, 1.0), obs=y)

    evidence = stats.multivariate_normal.logpdf(y, np.zeros(40), 25 * X @ X.T + np.eye(40))
    exact = truth(evidence, beta=Marginal.of(stats.norm(cov @ X.T @ y, np.sqrt(np.diag(cov)))))
    return Known("regression", model, {"X": f64(X), "y": f64(y)}, exact)


def _coins() -> Known:
    tosses, heads = np.array([4.0, 10.0, 30.0]), np.array([0.0, 7.0, 29.0])

    def model(tosses: Tensor, heads: Tensor) -> None:
        with pyro.plate("coin", 3):
            p = pyro.sample("p", dist.Beta(1.0, 1.0))
            pyro.sample("heads", dist.Binomial(tosses, p), obs=heads)

    evidence = stats.betabinom.logpmf(heads, tosses.astype(int), 1.0, 1.0).sum()
    exact = truth(evidence, p=Marginal.of(stats.beta(1 + heads, 1 + tosses - heads)))
    return Known("coins", model, {"tosses": f64(tosses), "heads": f64(heads)}, exact)


def _counts() -> Known:
    counts = np.array([0.0, 1.0, 6.0])

    def model(counts: Tensor) -> None:
        with pyro.plate("place", 3):
            rate = pyro.sample("rate", dist.Gamma(1.0, 0.5))
            pyro.sample("counts", dist.Poisson(rate), obs=counts)

    evidence = stats.nbinom.logpmf(counts, 1.0, 0.5 / 1.5).sum()
    exact = truth(evidence, rate=Marginal.of(stats.gamma(1 + counts, scale=1 / 1.5)))
    return Known("counts", model, {"counts": f64(counts)}, exact)


def _unknown_scale() -> Known:
    """Normal data of unknown mean and precision, conjugate prior: mu is Student-t, the precision Gamma."""
    y = np.random.default_rng(2).normal(1.0, 2.0, 6)
    shape, rate = 1 + len(y) / 2, 1 + ((y - y.mean()) ** 2).sum() / 2 + len(y) / (len(y) + 1) * y.mean() ** 2 / 2
    precision, weight = stats.gamma(shape, scale=1 / rate), 1 + len(y)
    mu = stats.t(2 * shape, loc=y.sum() / weight, scale=math.sqrt(rate / shape / weight))

    def model(y: Tensor) -> None:
        precision = pyro.sample("precision", dist.Gamma(1.0, 1.0))
        mu = pyro.sample("mu", dist.Normal(0.0, precision**-0.5))
        with pyro.plate("row", len(y)):
            pyro.sample("y", dist.Normal(mu, precision**-0.5), obs=y)

    evidence = (
        special.gammaln(shape) - shape * math.log(rate) - 0.5 * math.log(weight) - len(y) / 2 * math.log(2 * math.pi)
    )
    exact = truth(evidence, precision=Marginal.of(precision)[0], mu=Marginal.of(mu)[0])
    return Known("unknown scale", model, {"y": f64(y)}, exact)


def _correlated() -> Known:
    cov = 0.95 ** np.abs(np.subtract.outer(np.arange(6), np.arange(6)))

    def model(cov: Tensor) -> None:
        drawn_from("z", dist.MultivariateNormal(torch.zeros(6), cov))

    return Known("correlated", model, {"cov": f64(cov)}, truth(0.0, z=6 * Marginal.of(stats.norm())))


def _funnel() -> Known:
    """Neal's funnel: the scale of x is itself a latent."""
    width = 1.5

    def model() -> None:
        v = pyro.sample("v", dist.Normal(0.0, width))
        drawn_from("x", dist.Normal(0.0, (v / 2).exp()).expand([3]).to_event(1))

    v, share = _normal_grid(width)
    x = Marginal.by_cdf(0.0, math.exp(width**2 / 4), lambda at: float(share @ stats.norm.cdf(at, 0.0, np.exp(v / 2))))
    return Known("funnel", model, {}, truth(0.0, v=Marginal.of(stats.norm(0.0, width))[0], x=3 * [x]))


def _banana() -> Known:
    def model() -> None:
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        drawn_from("b", dist.Normal(a**2, 0.5))

    a, share = _normal_grid(1.0)
    b = Marginal.by_cdf(1.0, math.sqrt(2.25), lambda at: float(share @ stats.norm.cdf(at, a**2, 0.5)))
    return Known("banana", model, {}, truth(0.0, a=Marginal.of(stats.norm())[0], b=b))


def _normal_grid(sd: float) -> tuple[np.ndarray, np.ndarray]:
    """Points of a normal's, and their shares of its mass."""
    points = np.linspace(-9 * sd, 9 * sd, 4_001)
    return points, special.softmax(stats.norm.logpdf(points, 0, sd))


def _heavy_tails() -> Known:
    def model() -> None:
        drawn_from("z", dist.StudentT(5.0, 0.0, 1.0).expand([3]).to_event(1))

    return Known("heavy tails", model, {}, truth(0.0, z=3 * Marginal.of(stats.t(5))))


# --- two modes


def _two_modes(name: str, place: float, share: float) -> Known:
    """Normals of sd 1 at -place and place; the second one has `share` of the mass."""

    def model() -> None:
        pyro.sample("steady", dist.Normal(0.0, 1.0))
        parts = dist.Normal(torch.tensor([-place, place]), 1.0)
        drawn_from("z", dist.MixtureSameFamily(dist.Categorical(torch.tensor([1 - share, share])), parts))

    mean, second = place * (2 * share - 1), 1 + place**2
    modes = tuple({"z": f64(at), "steady": f64(0.0)} for at in (-place, place))
    z = Marginal.by_cdf(
        mean,
        math.sqrt(second - mean**2),
        lambda at: float((1 - share) * stats.norm.cdf(at, -place) + share * stats.norm.cdf(at, place)),
    )
    steady = Marginal.of(stats.norm())[0]
    one_mode = None
    if share == 0.5:
        grid = np.linspace(0, place + 12, 40_001)
        density = stats.norm.pdf(grid, place) + stats.norm.pdf(grid, -place)
        one_mode = truth(0.0, z=Marginal.on_grid(grid, density / density.sum()), steady=steady)
    return Known(name, model, {}, truth(0.0, z=z, steady=steady), modes, one_mode)


def _sign() -> Known:
    """Only the square of z is seen, so that its sign stays open."""

    def model(y: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 3.0))
        pyro.sample("y", dist.Normal(z**2, 1.0), obs=y)

    grid = np.linspace(-6, 6, 20_001)
    log_p = stats.norm.logpdf(grid, 0, 3) + stats.norm.logpdf(9.0, grid**2, 1)
    evidence = special.logsumexp(log_p) + math.log(grid[1] - grid[0])
    exact = truth(evidence, z=Marginal.on_grid(grid, special.softmax(log_p)))
    modes = ({"z": f64(-3.0)}, {"z": f64(3.0)})
    above = grid > 0
    one_mode = truth(evidence, z=Marginal.on_grid(grid[above], special.softmax(log_p[above])))
    return Known("sign", model, {"y": f64(9.0)}, exact, modes, one_mode)


# --- quadrature


def _logistic() -> Known:
    """Five trials in each of four doses, and the two coefficients on a grid."""
    dose, deaths = np.array([-0.86, -0.3, -0.05, 0.73]), np.array([0.0, 1.0, 3.0, 5.0])

    def model(dose: Tensor, deaths: Tensor) -> None:
        a = pyro.sample("a", dist.Normal(0.0, 5.0))
        b = pyro.sample("b", dist.Normal(0.0, 10.0))
        with pyro.plate("group", 4):
            pyro.sample("deaths", dist.Binomial(5.0, logits=a + b * dose), obs=deaths)

    a, b = np.meshgrid(np.linspace(-12, 18, 1_201), np.linspace(-15, 60, 1_501), indexing="ij")
    log_p = stats.norm.logpdf(a, 0, 5) + stats.norm.logpdf(b, 0, 10)
    for x, count in zip(dose, deaths, strict=True):
        log_p = log_p + count * (a + b * x) - 5 * np.logaddexp(0, a + b * x)
    share = special.softmax(log_p)
    cell = (a[1, 0] - a[0, 0]) * (b[0, 1] - b[0, 0])
    evidence = special.logsumexp(log_p) + math.log(cell) + np.log(special.comb(5, deaths)).sum()
    exact = truth(evidence, a=Marginal.on_grid(a[:, 0], share.sum(1)), b=Marginal.on_grid(b[0], share.sum(0)))
    return Known("logistic", model, {"dose": f64(dose), "deaths": f64(deaths)}, exact)


def _schools() -> list[Known]:
    """Eight schools: given tau all is normal, so that one integral over tau is left."""
    y = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
    sigma = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
    log_tau = np.linspace(-12, 12, 4_001)
    rows = []
    for tau in np.exp(log_tau):
        spread = sigma**2 + tau**2
        precision = 1 / 25 + (1 / spread).sum()
        mu = (y / spread).sum() / precision
        # log N(y; 0, spread + 25) with mu summed out, by its mean and precision
        log_y = stats.norm.logpdf(y, mu, np.sqrt(spread)).sum() + stats.norm.logpdf(mu, 0, 5) - 0.5 * np.log(precision)
        shrink = tau**2 / spread
        theta = shrink * y + (1 - shrink) * mu
        theta_var = shrink * sigma**2 + (1 - shrink) ** 2 / precision
        log_prior = stats.halfcauchy.logpdf(tau, scale=5) + np.log(tau)
        rows.append([log_y + log_prior, mu, 1 / precision, tau, 0.0, *np.ravel(np.column_stack([theta, theta_var]))])
    table = np.array(rows)
    share = special.softmax(table[:, 0])
    means, variances = table[:, 1::2], table[:, 2::2]
    mean = share @ means
    sd = np.sqrt(share @ (variances + means**2) - mean**2)
    evidence = special.logsumexp(table[:, 0]) + math.log(log_tau[1] - log_tau[0]) + 0.5 * math.log(2 * math.pi)

    def mixed(i: int) -> Marginal:
        spread = np.sqrt(variances[:, i])
        return Marginal.by_cdf(mean[i], sd[i], lambda at: float(share @ stats.norm.cdf(at, means[:, i], spread)))

    thetas = [mixed(i) for i in range(2, means.shape[1])]
    exact = truth(evidence, mu=mixed(0), tau=Marginal.on_grid(np.exp(log_tau), share), theta=thetas)
    data = {"y": f64(y), "sigma": f64(sigma)}
    models = {"schools, centred": centered, "schools, non-centred": noncentered}
    return [Known(name, model, data, exact) for name, model in models.items()]


KNOWN = [
    _regression(),
    _coins(),
    _counts(),
    _unknown_scale(),
    _correlated(),
    _funnel(),
    _banana(),
    _heavy_tails(),
    _two_modes("two modes, apart", 4.0, 0.5),
    _two_modes("two modes, uneven", 2.5, 0.2),
    _sign(),
    _logistic(),
    *_schools(),
]
