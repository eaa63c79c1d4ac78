"""Ascent on the log joint: it arrives, whatever the scales, and the best Gaussian need not be where it ends."""

import math

import pyro
import pyro.distributions as dist
import torch

from tests.training.ladder.programs import X, badly_scaled, conjugate, funnel, surface
from vipack.program.evaluation.ascent import climb
from vipack.training.ladder.candidates import Gaussian, best_on_paths


def starts(where, count=6, seed=0):
    torch.manual_seed(seed)
    return torch.stack([where.joint.initial() for _ in range(count)])


def test_every_start_reaches_a_mode_whose_scales_differ_by_eight_orders():
    where = surface(badly_scaled)
    for path in climb(where.gradients, starts(where)):
        off = (path.points[-1] - 3 * torch.logspace(-4, 4, 5)) / torch.logspace(-4, 4, 5)
        assert float(off.abs().max()) < 1e-3  # standard deviations


def test_no_step_of_a_path_goes_down():
    where = surface(funnel)
    for path in climb(where.gradients, starts(where), num_steps=40):
        assert all(after > before for before, after in zip(path.values, path.values[1:], strict=False))


def test_the_candidate_is_the_posterior_where_that_is_gaussian():
    where = surface(badly_scaled)
    paths = climb(where.gradients, starts(where))
    found, bound = best_on_paths(where, paths, memory=30, dense=True)
    assert abs(bound.value) < 1e-6  # the log evidence of a model without data
    assert torch.allclose(found.factor.diagonal(), torch.logspace(-4, 4, 5, dtype=torch.float64), rtol=1e-3)


def test_a_diagonal_candidate_serves_where_a_dense_one_is_too_large():
    where = surface(conjugate, X)
    found, _ = best_on_paths(where, climb(where.gradients, starts(where)), memory=30, dense=False)
    assert found.factor.shape == (1,)
    assert abs(float(found.loc) - float(X.sum()) / 6) < 0.05


def test_the_neck_of_a_funnel_is_not_taken_for_its_centre():
    where = surface(funnel)
    paths = climb(where.gradients, starts(where), num_steps=80)
    found, bound = best_on_paths(where, paths, memory=30, dense=True)
    assert min(path.points[-1][0] for path in paths) < -20  # the ascent runs down the neck
    assert float(found.loc[0]) > -6
    assert bound.value > -5  # nats; the log evidence is 0, and at the neck the bound is below -100


def test_a_gaussian_knows_its_density():
    factor = torch.tensor([[2.0, 0.0], [1.0, 0.5]], dtype=torch.float64)
    loc, eps = torch.tensor([1.0, -1.0], dtype=torch.float64), torch.randn(7, 2, dtype=torch.float64)
    u, log_q = Gaussian(loc, factor).at(eps)
    expected = torch.distributions.MultivariateNormal(loc, scale_tril=factor)
    assert torch.allclose(log_q, expected.log_prob(u))
    u, log_q = Gaussian(loc, factor.diagonal()).at(eps)
    assert torch.allclose(log_q, torch.distributions.Normal(loc, factor.diagonal()).log_prob(u).sum(-1))


def test_bad_points_are_minus_infinity_and_have_no_gradient():
    where = surface(badly_scaled)
    u = torch.full((2, 5), math.nan, dtype=torch.float64)
    u[1] = 0.0
    values, gradients = where.gradients(u)
    assert values[0] == -math.inf
    assert (gradients[0] == 0).all()
    assert torch.isfinite(values[1])


def test_a_point_whose_covariance_has_no_factor_does_not_spoil_its_neighbours():
    def correlated(x):
        share = pyro.sample("share", dist.Normal(0.0, 0.1))
        covariance = torch.eye(2) + share * (1 - torch.eye(2))
        pyro.sample("x", dist.MultivariateNormal(torch.zeros(2), covariance), obs=x[:2])

    where = surface(correlated, X)
    values = where.values(torch.tensor([[0.0], [2.0], [0.5]], dtype=torch.float64))
    assert torch.isfinite(values).tolist() == [True, False, True]
    values, gradients = where.gradients(torch.tensor([[0.0], [2.0]], dtype=torch.float64))
    assert (values[1], gradients[1]) == (-math.inf, 0.0)
    assert where.vectorized


def test_two_lengths_at_first_come_to_the_same_mode_for_fewer_evaluations():
    where = surface(badly_scaled)
    evaluated = []

    def counting(u):
        evaluated[-1] += len(u)
        return where.gradients(u)

    for side_by_side in (True, False):
        evaluated.append(0)
        for path in climb(counting, starts(where), side_by_side=side_by_side):
            off = (path.points[-1] - 3 * torch.logspace(-4, 4, 5)) / torch.logspace(-4, 4, 5)
            assert float(off.abs().max()) < 1e-3
    assert evaluated[1] < 0.5 * evaluated[0]
