"""Products with the Hessian agree, however they are made."""

import torch

from tests.posterior.linear_response.known import PRECISION, gaussian_fit
from vipack.posterior.linear_response.fixed_draws import FixedDraws, Parameters, even_sizes
from vipack.posterior.linear_response.hessian import Hessian


def fixed_draws(number=16):
    posterior = gaussian_fit().posterior
    parameters = Parameters(posterior.program, posterior.evaluation)
    return FixedDraws(posterior.evaluation, parameters, number, 0, None)


def test_second_derivatives_are_those_of_a_gaussian():
    draws = fixed_draws()
    hessian = draws.product(torch.eye(6, dtype=torch.float64))
    torch.testing.assert_close(hessian[:3, :3], PRECISION)
    torch.testing.assert_close(hessian[:3, 3:], torch.zeros(3, 3, dtype=torch.float64))
    torch.testing.assert_close(hessian[3:, 3:], 2 * torch.eye(3, dtype=torch.float64))


def test_differences_of_gradients_are_second_derivatives():
    draws = fixed_draws()
    vectors = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lengths = torch.tensor([1e-4, 1e-4, 1e-4, 0.0])
    differences = draws.differences(vectors, lengths)
    torch.testing.assert_close(differences[:3], draws.product(vectors)[:3], rtol=1e-6, atol=1e-6)
    assert differences[3].tolist() == [0.0] * 6


def test_blocks_of_draws_give_the_mean_of_all(monkeypatch):
    monkeypatch.setattr("vipack.posterior.linear_response.fixed_draws.NUMBERS_AT_ONCE", 200)
    draws = fixed_draws()
    assert len(draws.blocks) > 1
    assert sum(block.number for block in draws.blocks) == 16
    hessian = draws.product(torch.eye(6, dtype=torch.float64))
    torch.testing.assert_close(hessian[:3, :3], PRECISION)


def test_the_matrix_itself_has_the_same_products():
    products, matrix = Hessian(fixed_draws(), 0), Hessian(fixed_draws(), 100)
    generator = torch.Generator().manual_seed(0)
    norms = matrix.row_norms(generator)
    torch.testing.assert_close(norms[:3], PRECISION.square().sum(1).sqrt())
    assert (products.row_norms(generator) / norms).log().abs().max() < 1.0
    vectors = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(matrix(vectors), products(vectors))


def test_even_sizes_add_up():
    assert even_sizes(10, 4) == [4, 4, 2]
    assert even_sizes(10, 5) == [4, 4, 2]
    assert even_sizes(6, 1) == [2, 2, 2]
    assert even_sizes(2, 100) == [2]
