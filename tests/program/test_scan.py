"""A scan is a Python loop in plain Pyro, and one operation with the same values and gradients while capturing."""

import pytest
import torch

import vipack as vi
from vipack.errors import UsageError
from vipack.program import captured_scans

T = 7


def decay(carry, x, rate, shift):
    level, count = carry
    level = torch.exp(-rate) * level + shift @ x
    return (level, count + 1.0), {"level": level, "twice": 2 * level.sum()}


def run(xs, rate, shift):
    start = (torch.zeros(3, dtype=xs.dtype), torch.zeros((), dtype=xs.dtype))
    (level, count), ys = vi.scan(decay, start, xs, constants=(rate, shift))
    return (level**2).sum() + count * ys["level"].sum() + (ys["twice"] ** 3).sum()


@pytest.fixture
def inputs():
    xs, rate = torch.randn(T, 2, dtype=torch.float64), torch.rand(3, dtype=torch.float64)
    return xs, rate, torch.randn(3, 2, dtype=torch.float64)


def test_it_is_a_loop(inputs):
    xs, rate, shift = inputs
    level = torch.zeros(3, dtype=xs.dtype)
    (last, count), ys = vi.scan(decay, (level, torch.zeros((), dtype=xs.dtype)), xs, constants=(rate, shift))
    for x in xs:
        level = torch.exp(-rate) * level + shift @ x
    torch.testing.assert_close(last, level)
    assert count == T
    assert ys["level"].shape == (T, 3)


def test_values_and_gradients_of_one_operation_are_those_of_the_loop(inputs):
    leaves = [v.requires_grad_(True) for v in inputs]
    plain = run(*leaves)
    wanted = torch.autograd.grad(plain, leaves)
    with captured_scans():
        single = run(*leaves)
        found = torch.autograd.grad(single, leaves)
    torch.testing.assert_close(single, plain)
    for got, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("dims", [(None, 0, 0), (0, None, 1), (1, 0, None)])
def test_many_side_by_side(inputs, dims):
    wide = [torch.stack([v, v + 0.1, v - 0.2], d) if d is not None else v for v, d in zip(inputs, dims, strict=True)]
    leaves = [v.clone().requires_grad_(True) for v in wide]
    plain = torch.vmap(run, in_dims=dims)(*leaves)
    wanted = torch.autograd.grad(plain.sum(), leaves)
    with captured_scans():
        single = torch.vmap(run, in_dims=dims)(*leaves)
        found = torch.autograd.grad(single.sum(), leaves)
    torch.testing.assert_close(single, plain)
    for got, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, want)


def test_without_xs_it_takes_a_length():
    carry, ys = vi.scan(lambda c, _: (c * 2, c), torch.ones(()), length=4)
    assert carry == 16
    assert ys.tolist() == [1, 2, 4, 8]


@pytest.mark.parametrize("captured", [False, True])
def test_a_carry_that_changes_its_shape_is_named(captured):
    with captured_scans() if captured else torch.no_grad(), pytest.raises(UsageError, match="carry went in as"):
        vi.scan(lambda c, x: (c + x, c), torch.zeros(()), torch.ones(4, 3))


def test_a_tensor_from_around_the_body_is_named():
    slope = torch.ones(())
    with captured_scans(), pytest.raises(UsageError, match=r"'slope'.*constants="):
        vi.scan(lambda c, x: (c + slope * x, c), torch.zeros(()), torch.ones(4))


def test_random_numbers_inside_are_refused():
    with captured_scans(), pytest.raises(UsageError, match="draws random numbers"):
        vi.scan(lambda c, x: (c + torch.randn(()), c), torch.zeros(()), torch.ones(4))


@pytest.mark.parametrize(
    ("xs", "length"), [(torch.ones(3), 4), (None, None), (torch.ones(()), None), ((torch.ones(2), torch.ones(3)), None)]
)
def test_lengths_that_do_not_agree(xs, length):
    with pytest.raises(UsageError, match="scan: "):
        vi.scan(lambda c, x: (c, c), torch.zeros(()), xs, length=length)
