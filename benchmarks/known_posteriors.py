"""Small models whose posterior means and sds are known: in closed form, by symmetry or by quadrature.

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

__all__ = ["KNOWN", "Known"]


@dataclass(frozen=True)
class Known:
    """A model with data, and the truth about its posterior.

    Attributes:
        modes: latents near each mode, for models with several.
    """

    name: str
    model: Callable[..., Any]
    data: dict[str, Tensor]
    truth: Reference
    modes: tuple[dict[str, Tensor], ...] = field(default=())


def _f64(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def _truth(**moments: tuple[Any, Any]) -> Reference:
    """Means and sds by site; those of a vector are arrays or a number for all its elements (``name__K``)."""
    names, means, sds = [], [], []
    for key, (mean, sd) in moments.items():
        name, _, size = key.partition("__")
        count = int(size) if size else np.size(mean)
        vector = bool(size) or np.ndim(mean) > 0
        names += [f"{name}[{i + 1}]" for i in range(count)] if vector else [name]
        means += np.broadcast_to(mean, count).tolist()
        sds += np.broadcast_to(sd, count).tolist()
    return Reference(tuple(names), np.array(means), np.array(sds))


def _drawn_from(name: str, distribution: Any) -> Tensor:
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

    truth = _truth(beta=(cov @ X.T @ y, np.sqrt(np.diag(cov))))
    return Known("regression", model, {"X": _f64(X), "y": _f64(y)}, truth)


def _coins() -> Known:
    tosses, heads = np.array([4.0, 10.0, 30.0]), np.array([0.0, 7.0, 29.0])

    def model(tosses: Tensor, heads: Tensor) -> None:
        with pyro.plate("coin", 3):
            p = pyro.sample("p", dist.Beta(1.0, 1.0))
            pyro.sample("heads", dist.Binomial(tosses, p), obs=heads)

    exact = stats.beta(1 + heads, 1 + tosses - heads)
    return Known("coins", model, {"tosses": _f64(tosses), "heads": _f64(heads)}, _truth(p=(exact.mean(), exact.std())))


def _counts() -> Known:
    counts = np.array([0.0, 1.0, 6.0])

    def model(counts: Tensor) -> None:
        with pyro.plate("place", 3):
            rate = pyro.sample("rate", dist.Gamma(1.0, 0.5))
            pyro.sample("counts", dist.Poisson(rate), obs=counts)

    exact = stats.gamma(1 + counts, scale=1 / 1.5)
    return Known("counts", model, {"counts": _f64(counts)}, _truth(rate=(exact.mean(), exact.std())))


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

    truth = _truth(precision=(precision.mean(), precision.std()), mu=(mu.mean(), mu.std()))
    return Known("unknown scale", model, {"y": _f64(y)}, truth)


def _correlated() -> Known:
    cov = 0.95 ** np.abs(np.subtract.outer(np.arange(6), np.arange(6)))

    def model(cov: Tensor) -> None:
        _drawn_from("z", dist.MultivariateNormal(torch.zeros(6), cov))

    return Known("correlated", model, {"cov": _f64(cov)}, _truth(z__6=(0.0, 1.0)))


def _funnel() -> Known:
    """Neal's funnel: the scale of x is itself a latent."""
    width = 1.5

    def model() -> None:
        v = pyro.sample("v", dist.Normal(0.0, width))
        _drawn_from("x", dist.Normal(0.0, (v / 2).exp()).expand([3]).to_event(1))

    return Known("funnel", model, {}, _truth(v=(0.0, width), x__3=(0.0, math.exp(width**2 / 4))))


def _banana() -> Known:
    def model() -> None:
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        _drawn_from("b", dist.Normal(a**2, 0.5))

    return Known("banana", model, {}, _truth(a=(0.0, 1.0), b=(1.0, math.sqrt(2.25))))


def _heavy_tails() -> Known:
    def model() -> None:
        _drawn_from("z", dist.StudentT(5.0, 0.0, 1.0).expand([3]).to_event(1))

    return Known("heavy tails", model, {}, _truth(z__3=(0.0, math.sqrt(5 / 3))))


# --- two modes


def _two_modes(name: str, place: float, share: float) -> Known:
    """Normals of sd 1 at -place and place; the second one has `share` of the mass."""

    def model() -> None:
        pyro.sample("steady", dist.Normal(0.0, 1.0))
        parts = dist.Normal(torch.tensor([-place, place]), 1.0)
        _drawn_from("z", dist.MixtureSameFamily(dist.Categorical(torch.tensor([1 - share, share])), parts))

    mean, second = place * (2 * share - 1), 1 + place**2
    modes = tuple({"z": _f64(at), "steady": _f64(0.0)} for at in (-place, place))
    return Known(name, model, {}, _truth(z=(mean, math.sqrt(second - mean**2)), steady=(0.0, 1.0)), modes)


def _sign() -> Known:
    """Only the square of z is seen, so that its sign stays open."""

    def model(y: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 3.0))
        pyro.sample("y", dist.Normal(z**2, 1.0), obs=y)

    grid = np.linspace(-6, 6, 20_001)
    share = special.softmax(stats.norm.logpdf(grid, 0, 3) + stats.norm.logpdf(9.0, grid**2, 1))
    modes = ({"z": _f64(-3.0)}, {"z": _f64(3.0)})
    return Known("sign", model, {"y": _f64(9.0)}, _truth(z=(0.0, math.sqrt(share @ grid**2))), modes)


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
    moments = {
        name: (float((share * z).sum()), math.sqrt((share * z**2).sum() - (share * z).sum() ** 2))
        for name, z in (("a", a), ("b", b))
    }
    return Known("logistic", model, {"dose": _f64(dose), "deaths": _f64(deaths)}, _truth(**moments))


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
    truth = _truth(mu=(mean[0], sd[0]), tau=(mean[1], sd[1]), theta=(mean[2:], sd[2:]))
    data = {"y": _f64(y), "sigma": _f64(sigma)}
    models = {"schools, centred": centered, "schools, non-centred": noncentered}
    return [Known(name, model, data, truth) for name, model in models.items()]


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
