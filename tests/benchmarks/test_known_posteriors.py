"""The truths of the grid's models, found again from log p(x, z) alone."""

import math

import numpy as np
import pytest
import torch

from benchmarks.estimates import errors, quantile_error
from benchmarks.known_posteriors import KNOWN
from benchmarks.posteriordb_models import flat_names
from benchmarks.tail_posteriors import TAILS
from vipack.program import Arguments, LogJoint, Program, seeded

# Those that a wide Student-t at each mode covers; the others have draws of their own below.
HARD = ("funnel", "banana", "schools, centred", "schools, non-centred")
EASY = [known for known in KNOWN if known.name not in HARD]


def joint_of(known):
    program = Program(known.model, lambda **_: None, dtype=torch.float64, device=torch.device("cpu"))
    with seeded(0):
        return LogJoint(program, Arguments((), known.data))


def curvature_proposal(joint, start, width=1.3):
    """A Student-t (5 degrees) at a mode, as wide as the curvature there says, times `width`."""
    u = start.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS([u], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = -joint(u)
        loss.backward()
        return loss

    optimizer.step(closure)
    mode = u.detach()
    hessian = -torch.func.hessian(joint)(mode)
    return mode, width * torch.linalg.cholesky(torch.linalg.inv(hessian))


def weighted_draws(known, count=100_000):
    """Draws from Student-ts at every mode, with their importance weights, and the log of these' mean."""
    joint = joint_of(known)
    starts = [joint.unconstrain(mode) for mode in known.modes] or [torch.zeros(joint.dim, dtype=torch.float64)]
    shapes = [curvature_proposal(joint, start) for start in starts]
    parts = [torch.distributions.MultivariateNormal(mode, scale_tril=tril) for mode, tril in shapes]
    generator = torch.Generator().manual_seed(0)
    degrees = 5.0
    noise = torch.randn(count, joint.dim, generator=generator, dtype=torch.float64)
    chi2 = torch.distributions.Chi2(torch.tensor(degrees, dtype=torch.float64))
    with seeded(1):
        noise = noise / (chi2.sample((count, 1)) / degrees).sqrt()
    which = torch.arange(count) % len(parts)
    u = torch.stack([p.loc for p in parts])[which] + torch.einsum(
        "sij,sj->si", torch.stack([p.scale_tril for p in parts])[which], noise
    )
    densities = []
    for mode, tril in shapes:
        z = torch.linalg.solve_triangular(tril, (u - mode).T, upper=False)
        log_t = -0.5 * (degrees + joint.dim) * (1 + (z**2).sum(0) / degrees).log()
        densities.append(log_t - tril.diagonal().log().sum())
    constant = (
        math.lgamma((degrees + joint.dim) / 2) - math.lgamma(degrees / 2) - joint.dim / 2 * math.log(degrees * math.pi)
    )
    log_q = torch.stack(densities).logsumexp(0) + constant - math.log(len(shapes))
    log_weights = torch.func.vmap(joint)(u) - log_q
    values = torch.func.vmap(joint.constrain)(u)
    evidence = float(log_weights.logsumexp(0)) - math.log(count)
    return flat_names(values), (log_weights - log_weights.max()).exp().numpy(), evidence


@pytest.mark.parametrize("known", EASY, ids=lambda known: known.name)
def test_importance_sampling_finds_the_truth(known):
    draws, weights, evidence = weighted_draws(known)
    share = weights / weights.sum()
    ess = 1 / (share**2).sum()
    assert ess > 2_000
    mean_error, sd_error = errors(known.truth, draws, weights)
    # Four standard errors of a mean; an sd's is within twice that for tails no heavier than these.
    assert mean_error < 4 / np.sqrt(ess)
    assert sd_error < 8 / np.sqrt(ess)
    assert quantile_error(known.truth, draws, weights) < 4 * np.sqrt(0.05 * 0.95 / ess)
    assert evidence == pytest.approx(known.truth.evidence.value, abs=4 / np.sqrt(ess))


@pytest.mark.parametrize("known", TAILS, ids=lambda known: known.name)
def test_tails_by_an_integral_over_one_element(known):
    """All elements are alike and independent, so that each has a third of log p(x, z) on the diagonal."""
    joint = joint_of(known)
    x = torch.linspace(-13, 13, 200_001, dtype=torch.float64)
    u = x.sinh()[:, None].expand(-1, joint.dim)
    log_mass = torch.func.vmap(joint)(u) / joint.dim + x.cosh().log() + (x[1] - x[0]).log()
    log_mass = torch.where(log_mass.isfinite(), log_mass, -torch.inf)  # a support ends early in float64
    evidence = float(log_mass.logsumexp(0))
    some = log_mass > evidence - 50
    draws = flat_names(torch.func.vmap(joint.constrain)(u[some]))
    share = (log_mass[some] - evidence).exp().numpy()
    assert joint.dim * evidence == pytest.approx(known.truth.evidence.value, abs=1e-4)
    assert max(errors(known.truth, draws, share)) < 1e-3
    assert quantile_error(known.truth, draws, share) < 1e-3


def find(name):
    return next(known for known in KNOWN if known.name == name)


def test_the_funnel_by_its_own_draws():
    rng = np.random.default_rng(0)
    v = rng.normal(0, 1.5, 400_000)
    x = rng.normal(0, np.exp(v / 2)[:, None], (len(v), 3))
    draws = {"v": torch.from_numpy(v), **flat_names({"x": torch.from_numpy(x)})}
    mean_error, sd_error = errors(find("funnel").truth, draws)
    assert mean_error < 4 / np.sqrt(len(v))
    assert sd_error < 0.05
    assert quantile_error(find("funnel").truth, draws) < 4 * np.sqrt(0.05 * 0.95 / len(v))


def test_the_banana_by_its_own_draws():
    rng = np.random.default_rng(0)
    a = rng.normal(0, 1, 400_000)
    draws = {"a": torch.from_numpy(a), "b": torch.from_numpy(rng.normal(a**2, 0.5))}
    mean_error, sd_error = errors(find("banana").truth, draws)
    assert mean_error < 4 / np.sqrt(len(a))
    assert sd_error < 8 / np.sqrt(len(a))
    assert quantile_error(find("banana").truth, draws) < 4 * np.sqrt(0.05 * 0.95 / len(a))


@pytest.mark.parametrize("name", ["schools, centred", "schools, non-centred"])
def test_the_schools_by_weighted_draws_of_the_prior(name):
    """mu and tau from the prior, weighted by p(y | mu, tau); then theta given them."""
    known = find(name)
    y, sigma = known.data["y"].numpy(), known.data["sigma"].numpy()
    rng = np.random.default_rng(0)
    mu = rng.normal(0, 5, 400_000)
    tau = np.abs(5 * rng.standard_cauchy(len(mu)))
    spread = sigma**2 + tau[:, None] ** 2
    log_weights = (-0.5 * (y - mu[:, None]) ** 2 / spread - 0.5 * np.log(2 * np.pi * spread)).sum(1)
    pull = tau[:, None] ** 2 / spread
    theta = rng.normal(pull * y + (1 - pull) * mu[:, None], np.sqrt(pull) * sigma)
    draws = {"mu": torch.from_numpy(mu), "tau": torch.from_numpy(tau), **flat_names({"theta": torch.from_numpy(theta)})}
    weights = np.exp(log_weights - log_weights.max())
    ess = weights.sum() ** 2 / (weights**2).sum()
    mean_error, sd_error = errors(known.truth, draws, weights)
    assert mean_error < 4 / np.sqrt(ess)
    assert sd_error < 8 / np.sqrt(ess)
    assert quantile_error(known.truth, draws, weights) < 4 * np.sqrt(0.05 * 0.95 / ess)
    evidence = np.log(weights.mean()) + log_weights.max()
    assert evidence == pytest.approx(known.truth.evidence.value, abs=4 / np.sqrt(ess))
