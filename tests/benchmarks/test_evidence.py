"""The references' evidence: integrals of one dimension against sums over a grid, and bridges against known integrals."""

import numpy as np
import pytest
import torch
from scipy import special, stats

from benchmarks.bridge import bridge
from benchmarks.posteriordb_models import POSTERIORS
from vipack.program import Arguments, LogJoint, Program, seeded

RNG = np.random.default_rng(3)
SLOPE = {"x": RNG.normal(4.0, 1.0, 12), "y": RNG.normal(2.0, 1.5, 12)}


def joint_of(name, data):
    program = Program(POSTERIORS[name].model, lambda **_: None, dtype=torch.float64, device=torch.device("cpu"))
    with seeded(0):
        return LogJoint(program, Arguments((), data))


def summed_over_a_grid(joint, data, widths=9.0, points=41):
    """Log integral of exp(joint) over R^3: a grid of `widths` sds around the least-squares line and log sigma."""
    X, y = np.stack([np.ones(12), SLOPE["x"]], axis=1), SLOPE["y"]
    beta, rest, *_ = np.linalg.lstsq(X, y, rcond=None)
    sd = np.sqrt(rest[0] / 10)
    across = np.linalg.cholesky(np.linalg.inv(X.T @ X)) * sd
    steps = np.linspace(-widths, widths, points)
    first, second, third = np.meshgrid(steps, steps, steps / 4, indexing="ij")
    line = beta + np.stack([first, second], axis=-1) @ across.T
    u = torch.from_numpy(np.concatenate([line, np.log(sd) + third[..., None]], axis=-1).reshape(-1, 3))
    cell = (steps[1] - steps[0]) ** 3 / 4 * across[0, 0] * across[1, 1]
    with torch.no_grad():
        values = torch.cat([torch.func.vmap(joint)(part) for part in u.split(20_000)])
    return float(values.logsumexp(0)) + np.log(cell)


@pytest.mark.parametrize(
    "name", ["earnings-logearn_height", "kidiq-kidscore_momiq", "sblri-blr", "kilpisjarvi_mod-kilpisjarvi"]
)
def test_the_evidence_of_a_regression_is_the_integral_of_its_joint(name):
    x, y = torch.from_numpy(SLOPE["x"]), torch.from_numpy(SLOPE["y"])
    data = {"X": torch.stack([torch.ones_like(x), x], dim=1), "y": y}
    if "kilpisjarvi" in name:
        prior = {"pmualpha": 1.0, "psalpha": 3.0, "pmubeta": 0.2, "psbeta": 0.5}
        data = {"x": x, "y": y, **{k: torch.tensor(v, dtype=torch.float64) for k, v in prior.items()}}
    exact = POSTERIORS[name].evidence(**data)
    assert exact == pytest.approx(summed_over_a_grid(joint_of(name, data), data), abs=2e-3)


def test_the_evidence_of_an_autoregression_is_that_of_a_regression():
    posterior = POSTERIORS["arK-arK"]
    data = posterior.read({"K": 1, "y": SLOPE["y"].tolist()})
    joint = joint_of("arK-arK", data)
    draws = torch.distributions.Normal(torch.tensor([2.0, 0.0, 0.4]), torch.tensor([3.0, 1.5, 0.8]))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        u = draws.sample((100_000,)).double()
    weights = torch.func.vmap(joint)(u) - draws.log_prob(u).sum(1)
    error = float(weights.exp().std() / weights.exp().mean()) / 100_000**0.5
    assert error < 0.05
    mean = float(weights.logsumexp(0)) - np.log(100_000)
    assert posterior.evidence(**data) == pytest.approx(mean, abs=4 * error)


def test_the_evidence_of_eight_schools_is_the_mean_likelihood_under_its_prior():
    y, sigma = np.array([12.0, -3.0, 5.0]), np.array([10.0, 6.0, 8.0])
    mu = RNG.normal(0, 5, 200_000)
    tau = np.abs(5 * RNG.standard_cauchy(200_000))
    sds = np.sqrt(tau[:, None] ** 2 + sigma**2)
    likelihood = stats.norm.pdf(y, mu[:, None], sds).prod(1)
    error = likelihood.std() / likelihood.mean() / 200_000**0.5
    posterior = POSTERIORS["eight_schools-eight_schools_centered"]
    found = posterior.evidence(y=torch.from_numpy(y), sigma=torch.from_numpy(sigma))
    assert found == pytest.approx(np.log(likelihood.mean()), abs=4 * error)


def test_a_bridge_finds_the_integral_of_a_skewed_density():
    """log of Gamma(2.5) and Gamma(6) variables, whose densities lack their constants."""
    shapes = torch.tensor([2.5, 6.0], dtype=torch.float64)
    u = torch.from_numpy(np.log(RNG.gamma(shapes.numpy(), size=(1_000, 2))))
    found = bridge(lambda values: (shapes * values - values.exp()).sum(-1), u)
    assert 0 < found.se < 0.05
    assert found.value == pytest.approx(special.gammaln(shapes.numpy()).sum(), abs=4 * found.se)


def test_a_bridge_says_how_much_it_does_not_know():
    """Its standard error covers the truth over repeats, and no repeat is far off."""
    z = []
    for seed in range(40):
        u = torch.from_numpy(np.log(np.random.default_rng(seed).gamma(2.0, size=(200, 1))))
        found = bridge(lambda values: (2.0 * values - values.exp()).sum(-1), u, seed)
        z.append(found.value / found.se)  # log Gamma(2) = 0
    assert np.mean(np.abs(z) < 2) > 0.8
    assert np.max(np.abs(z)) < 5
