"""Conjugate gradients solve positive definite systems, and notice others."""

import pytest
import torch

from vipack.posterior.linear_response.conjugate_gradients import solve

OPTIONS = {"tolerance": 1e-10, "max_iterations": 100, "rounding": 1e-9}


def matrix(eigenvalues):
    size = len(eigenvalues)
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0]
    return basis @ torch.tensor(eigenvalues, dtype=torch.float64).diag() @ basis.T


def right_hand_sides(count, size):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_systems_are_solved_in_as_many_iterations_as_there_are_numbers():
    h, b = matrix([0.1, 1.0, 2.0, 5.0, 30.0]), right_hand_sides(3, 5)
    solution = solve(lambda v: v @ h, b, h.diagonal(), **OPTIONS)
    torch.testing.assert_close(solution.x, torch.linalg.solve(h, b.T).T)
    assert solution.residuals.max() < 1e-8
    assert solution.iterations.max() <= 6
    assert not solution.flat.any()
    assert (solution.curvature > 0).all()


def test_a_column_of_zeros_has_zeros_for_a_solution():
    h, b = matrix([1.0, 2.0, 3.0]), right_hand_sides(2, 3)
    b[0] = 0.0
    solution = solve(lambda v: v @ h, b, torch.ones(3, dtype=torch.float64), **OPTIONS)
    assert solution.x[0].tolist() == [0.0, 0.0, 0.0]
    assert solution.residuals[0] == 0
    assert solution.iterations[0] == 0


def test_negative_curvature_is_met_with_its_direction():
    h = matrix([-0.5, 1.0, 2.0, 3.0])
    solution = solve(lambda v: v @ h, right_hand_sides(2, 4), torch.ones(4, dtype=torch.float64), **OPTIONS)
    p = solution.direction
    lowest = solution.curvature.min()
    assert lowest < 0
    assert float(p @ h @ p / p.square().sum()) == pytest.approx(float(lowest))


def test_a_right_hand_side_outside_of_the_range_is_flat():
    h = matrix([0.0, 1.0, 2.0])
    solution = solve(lambda v: v @ h, right_hand_sides(1, 3), torch.ones(3, dtype=torch.float64), **OPTIONS)
    assert solution.flat.tolist() == [True]
    inside = right_hand_sides(1, 3) @ h
    solution = solve(lambda v: v @ h, inside, torch.ones(3, dtype=torch.float64), **OPTIONS)
    assert not solution.flat.any()
    torch.testing.assert_close(solution.x @ h, inside)


def test_what_was_not_solved_shows_in_the_residual():
    h, b = matrix([0.01, 1.0, 2.0, 5.0, 30.0]), right_hand_sides(1, 5)
    solution = solve(lambda v: v @ h, b, h.diagonal(), **{**OPTIONS, "max_iterations": 2})
    rest = ((b - solution.x @ h).square() / h.diagonal()).sum() / (b.square() / h.diagonal()).sum()
    assert solution.residuals[0] == pytest.approx(float(rest.sqrt()))
    assert solution.residuals[0] > 1e-3
