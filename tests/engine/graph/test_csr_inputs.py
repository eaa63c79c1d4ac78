"""Graphs on CSR tensors, written anew on whole matrices and row numbers, give what they gave."""

import numpy as np
import pytest
import scipy.sparse
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional

from vipack.engine.graph import csr_products
from vipack.engine.graph.csr_inputs import NotByRows, by_rows
from vipack.engine.graph.csr_operators import ROW_OPERATORS, row_operator
from vipack.engine.graph.csr_products import dense_rows, product, transposed_product
from vipack.training.arrays import csr_tensor

HEIGHT, WIDTH = 12, 7
ROWS = torch.tensor([5, 0, 11, 3, 5])  # one of them is empty, one comes twice


def matrix():
    dense = np.random.default_rng(0).poisson(0.8, (HEIGHT, WIDTH)).astype(np.float64)
    dense[3] = 0
    return scipy.sparse.csr_matrix(dense)


WHOLE, BATCH = csr_tensor(matrix()), csr_tensor(matrix()[ROWS.numpy()])
WEIGHT = torch.randn(WIDTH, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
PROGRAMS = {
    "product": lambda x, w, rows: x @ w,
    "sparse.mm": lambda x, w, rows: torch.sparse.mm(x, w),
    "linear": lambda x, w, rows: functional.linear(x, w.t(), torch.ones(2, dtype=torch.float64)),
    "addmm": lambda x, w, rows: torch.addmm(w[:1].expand(len(rows), 2), x, w),
    "transposed product": lambda x, w, rows: x.t() @ (x @ w),
    "transpose": lambda x, w, rows: x.transpose(0, 1) @ rows[:, None].double(),
    "dense": lambda x, w, rows: x.to_dense(),
    "dense transpose": lambda x, w, rows: x.t().to_dense(),
    "values": lambda x, w, rows: (torch.log1p(x) * 2.0).to(torch.float64) @ w,
    "columns": lambda x, w, rows: w[rows % WIDTH].sum() * (x @ w),
}


def captured(program):
    return make_fx(program, tracing_mode="fake", _allow_non_fake_inputs=True)(BATCH, WEIGHT, ROWS)


def arrays(tensor):
    return tensor.crow_indices(), tensor.col_indices(), tensor.values()


@pytest.fixture(params=["compiled", "plain"])
def form(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr(csr_products, "functions_of", lambda *_: None)
    else:
        assert csr_products.functions_of(csr_products.SOURCE, torch.float64, torch.int64) is not None


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("name", PROGRAMS)
def test_rows_of_the_whole_give_what_the_batch_gave(name):
    expected = PROGRAMS[name](BATCH, WEIGHT, ROWS)
    module = by_rows(captured(PROGRAMS[name]), {0: (WHOLE, True)})
    torch.testing.assert_close(module(*arrays(WHOLE), WEIGHT, ROWS), expected)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_matrix_that_is_no_batch_is_read_as_it_is(name):
    module = by_rows(captured(PROGRAMS[name]), {0: (BATCH, False)})
    torch.testing.assert_close(module(*arrays(BATCH), WEIGHT, ROWS), PROGRAMS[name](BATCH, WEIGHT, ROWS))


@pytest.mark.parametrize(
    ("program", "operation"),
    [
        (lambda x, w, rows: x.sum() * w, "aten.sum"),
        (lambda x, w, rows: x.values().sum() * w, "aten.sum"),
        (lambda x, w, rows: x.crow_indices() * 2, "aten.mul.Tensor"),
        (lambda x, w, rows: w.t() @ x.t(), "aten.mm"),
        (lambda x, w, rows: x.sin().to_dense(), "aten.sin"),
    ],
    ids=["sum", "values", "crow", "dense times sparse", "sine"],
)
def test_what_there_is_no_operator_for_is_named(program, operation):
    with pytest.raises(NotByRows, match=rf"the program applies {operation} to it"):
        by_rows(captured(program), {0: (WHOLE, True)})


def test_arrays_of_two_matrices_are_not_mixed():
    operator = next(target for target, known in ROW_OPERATORS.items() if target is product)

    def program(x, y, rows):
        return operator(x.crow_indices(), y.col_indices(), y.values(), None, WEIGHT)

    module = make_fx(program, tracing_mode="fake", _allow_non_fake_inputs=True)(BATCH, BATCH.clone(), ROWS)
    with pytest.raises(NotByRows, match="csr_mm"):
        by_rows(module, {0: (WHOLE, True), 1: (WHOLE, True)})


def test_numbers_for_all_rows_are_computed_apart_from_the_batch():
    """So that a step need not compute them."""

    def lengths_shape(crow, col, values, rows):
        return crow.new_empty(crow.shape[0] - 1 if rows is None else rows.shape[0])

    @row_operator("lengths_of_this_test", "", "Tensor", lengths_shape)
    def lengths(crow, col, values, rows):
        every = crow.diff()
        return every if rows is None else every[rows]

    module = by_rows(captured(lambda x, w, rows: lengths(*arrays(x), None)), {0: (WHOLE, True)})
    assert module(*arrays(WHOLE), WEIGHT, ROWS).tolist() == BATCH.crow_indices().diff().tolist()
    (call,) = [node for node in module.graph.nodes if node.target is lengths]
    assert call.args[3] is None
    del ROW_OPERATORS[lengths]


@pytest.mark.parametrize("operator", [product, transposed_product])
def test_repetitions_stand_side_by_side(operator):
    dense = torch.randn(4, WIDTH if operator is product else len(ROWS), 3, dtype=torch.float64)
    more = () if operator is product else (WIDTH,)

    def one(each):
        return operator(*arrays(WHOLE), ROWS, each, *more)

    torch.testing.assert_close(torch.vmap(one)(dense), torch.stack([one(each) for each in dense]))
    torch.testing.assert_close(torch.vmap(one, in_dims=1)(dense.movedim(0, 1)), torch.stack([one(e) for e in dense]))


def test_rows_become_dense():
    torch.testing.assert_close(dense_rows(*arrays(WHOLE), ROWS, WIDTH), BATCH.to_dense())
