"""A scan is a Python loop in plain Pyro, and one operation with the same values and gradients while capturing."""

import functools
import math

import numpy as np
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


def times(carry, x, factor=2.0):
    return carry * factor + x, carry


class Times:
    def __init__(self, factor):
        self.factor = factor

    def body(self, carry, x):
        return carry * self.factor + x, carry


def by_a_tensor(number, dtype=torch.float32):
    return lambda carry, x: (carry * torch.tensor(number, dtype=dtype) + x, carry)


def by_a_vector(numbers):
    return lambda carry, x: (carry * torch.tensor(numbers).sum() + x, carry)


def of_a_default(number):
    def body(carry, x, factor=number):
        return carry * factor + x, carry

    return body


ALIKE = {
    "tensors without dimensions": [by_a_tensor(v) for v in (2.0, 3.0, -0.0, 0.0, math.inf, 2.0 + 2.0**-20)],
    "tensors of other types": [by_a_tensor(v, t) for v in (2, 3) for t in (torch.int64, torch.int32, torch.float16)],
    "tensors with dimensions": [by_a_vector(v) for v in ([1.0, 2.0], [2.0, 2.0], [1.0, 2.0, 3.0])],
    "numbers": [functools.partial(lambda c, x, v: (c * v + x, c), v=v) for v in (2.0, 3.0, 2, 3, 0.1 + 0.2, 0.3)],
    "NumPy's numbers": [of_a_default(np.float32(v)) for v in (0.1, 0.2)],
    "partials": [functools.partial(times, factor=v) for v in (2.0, 3.0)],
    "bound methods": [Times(v).body for v in (2.0, 3.0)],
    "defaults": [of_a_default(v) for v in (2.0, 3.0)],
}


@pytest.mark.parametrize("name", ALIKE)
def test_bodies_that_differ_in_a_constant_alone_are_told_apart(name):
    start, xs = torch.tensor(1.5), torch.linspace(0.0, 1.0, 4)
    for body in [*ALIKE[name], *ALIKE[name]]:
        expected = vi.scan(body, start, xs)
        with captured_scans():
            found = vi.scan(body, start, xs)
            side_by_side = torch.vmap(lambda c, body=body: vi.scan(body, c, xs)[0])(start.expand(2))
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])
        assert torch.equal(side_by_side, expected[0].expand(2))


@pytest.mark.parametrize(
    "make",
    [
        lambda held: lambda c, x: (c * held + x, c),
        lambda held: functools.partial(times, factor=held),
        lambda held: Times(held).body,
        of_a_default,
        lambda held: lambda c, x, many=(held,): (c * many[0] + x, c),
    ],
    ids=["a closure", "a partial", "a bound method", "a default", "a tuple"],
)
@pytest.mark.parametrize("held", [torch.tensor(2.0), torch.ones(1)], ids=["a number", "a vector"])
def test_a_tensor_from_elsewhere_is_refused_however_the_body_comes_by_it(make, held):
    """It may be written to, or be a latent value, which the captured body would go on without."""
    with captured_scans(), pytest.raises(UsageError, match=r"constants="):
        vi.scan(make(held), torch.ones(1), torch.ones(4))


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
