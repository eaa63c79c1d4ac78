"""Products of few rows by many weights: whatever the sizes, strides and number of threads, they are what float64 gives."""

import itertools

import pytest
import torch

from tests.engine.interpreter.interpreted import run

ROWS = (4, 7, 8, 13, 16, 17, 31, 40, 128, 130)
COLUMNS = (16, 17, 50, 100)
MIDDLE = (5, 16, 83)


def matrix(*size):
    return torch.randn(size, generator=torch.Generator().manual_seed(sum(size)))


def forms(a, b, bias):
    """Products of a's rows by b's columns as networks have them: forwards, backwards, and summed over the rows."""
    return [
        a @ b,
        a @ b.t().contiguous().t(),
        a.t().contiguous().t() @ b,
        a.t().contiguous().t() @ b.t().contiguous().t(),
        torch.addmm(bias, a, b),
        torch.addmm(bias, a, b.t().contiguous().t()),
        torch.addmm(a @ b, a, b),
        torch.addmm(a @ b, a, b.t().contiguous().t()),
        torch.addmm((a @ b)[:, :1], a, b),
        torch.addmm((a @ b)[:, :1], a, b.t().contiguous().t()),
        torch.addmm(bias, a, b, beta=2.0),
    ]


def assert_those_of_float64(folder, rows, sizes):
    for columns, middle in sizes:
        inputs = [matrix(rows, middle), matrix(middle, columns), matrix(columns)]
        found, _ = run(folder, forms, inputs)
        for got, wanted in zip(found, forms(*[v.double() for v in inputs]), strict=True):
            torch.testing.assert_close(got.double(), wanted, rtol=1e-6, atol=3e-6 * middle**0.5)


@pytest.mark.parametrize("rows", ROWS)
def test_products_are_those_of_float64(folder, rows):
    """Every two sizes occur together."""
    first = ROWS.index(rows)
    sizes = [(columns, MIDDLE[(first + i) % len(MIDDLE)]) for i, columns in enumerate(COLUMNS)]
    assert_those_of_float64(folder, rows, sizes)


@pytest.mark.slow
@pytest.mark.parametrize("rows", ROWS)
def test_products_of_all_sizes_are_those_of_float64(folder, rows):
    assert_those_of_float64(folder, rows, itertools.product(COLUMNS, MIDDLE))


def test_threads_share_the_work_and_change_no_bit(folder):
    inputs = [matrix(40, 700), matrix(700, 410), matrix(410)]
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(run(folder, forms, inputs)[0])
    finally:
        torch.set_num_threads(before)
    for got, wanted in zip(results[0], forms(*[v.double() for v in inputs]), strict=True):
        torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-4)
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


def test_what_is_not_finite_stays_in_its_row_and_column(folder):
    a, b = matrix(13, 83), matrix(83, 50)
    a[3, 80], b[2, 49] = float("nan"), float("inf")
    (plain, turned, *_), _ = run(folder, forms, [a, b, matrix(50)])
    for found in (plain, turned):
        assert found[3].isnan().all()
        assert not found[[i for i in range(13) if i != 3], 49].isfinite().any()
        assert found[[i for i in range(13) if i != 3], :49].isfinite().all()
