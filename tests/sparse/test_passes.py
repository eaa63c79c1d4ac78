"""Passes over sparse counts equal their formulas, compiled and not."""

import numpy as np
import pytest
import scipy.sparse
import torch
from torch.distributions import Dirichlet, kl_divergence

from vipack.engine.graph.compiled_functions import functions_of
from vipack.errors import DataError, ShapeError
from vipack.sparse import library, passes
from vipack.sparse.count_rows import CountRows
from vipack.sparse.passes import column_expectations, fused_pass, relaxed, row_expectations

NUM_TOPICS = 5


def counts(num_rows=40, num_words=30, seed=0):
    """With an empty row, a long one and a word that no row has."""
    dense = np.random.default_rng(seed).poisson(0.3, (num_rows, num_words)).astype(float)
    dense[3] = 0
    dense[7] += 1
    dense[:, 11] = 0
    return dense


def mixtures(dense, dtype, seed=1):
    generator = torch.Generator().manual_seed(seed)
    theta = torch.rand(len(dense), NUM_TOPICS, generator=generator, dtype=torch.float64).add(0.01).to(dtype)
    beta = torch.rand(dense.shape[1], NUM_TOPICS, generator=generator, dtype=torch.float64).add(0.01).to(dtype)
    return theta, beta


@pytest.fixture(params=["compiled", "plain"])
def form(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr(passes, "library", lambda *_: None)
    else:
        assert library.library(NUM_TOPICS, torch.float32, torch.int32) is not None


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_a_pass_is_the_log_likelihood_and_its_gradients(dtype, tolerance, index):
    dense = counts()
    matrix = scipy.sparse.csr_array(dense)
    matrix.indptr, matrix.indices = matrix.indptr.astype(index), matrix.indices.astype(index)
    theta, beta = mixtures(dense, dtype)
    outcome = fused_pass(CountRows.of(matrix, dtype), theta, beta)
    exact = [each.double().requires_grad_() for each in (theta, beta)]
    log_likelihood = (torch.as_tensor(dense) * (exact[0] @ exact[1].T).log()).sum(1)
    log_likelihood.sum().backward()
    torch.testing.assert_close(outcome.log_likelihood, log_likelihood.detach(), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(outcome.theta_sums.double(), exact[0].grad, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(outcome.word_sums.double(), exact[1].grad, rtol=tolerance, atol=tolerance)


def test_threads_add_up_to_one(monkeypatch):
    dense = counts(400)
    theta, beta = mixtures(dense, torch.float64)
    rows = CountRows.of(scipy.sparse.csr_array(dense), torch.float64)
    alone = fused_pass(rows, theta, beta)
    monkeypatch.setattr(passes, "_FEWEST", 100)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for one, other in zip(fused_pass(rows, theta, beta), alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=0)


@pytest.mark.usefixtures("form")
def test_expectations_are_those_of_dirichlets():
    x = 10 ** torch.empty(50, NUM_TOPICS, dtype=torch.float64).uniform_(
        -3, 4, generator=torch.Generator().manual_seed(2)
    )
    prior = torch.tensor([0.1, 0.5, 1.0, 2.0, 7.0], dtype=torch.float64)
    for outcome, values, priors in [
        (row_expectations(x, prior), x, prior.expand_as(x)),
        (column_expectations(x, prior), x.T, prior[:, None].expand_as(x.T)),
    ]:
        q, p = Dirichlet(values), Dirichlet(priors.contiguous())
        normalisers = (priors.sum(-1).lgamma() - priors.lgamma().sum(-1)).sum()
        assert outcome.divergence == pytest.approx(float(kl_divergence(q, p).sum() + normalisers), rel=1e-10)
        expected = values.digamma() - values.sum(-1, keepdim=True).digamma()
        expected = expected if values is x else expected.T
        torch.testing.assert_close(outcome.shifts, expected.amax(1), rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(
            outcome.weights, (expected - expected.amax(1, keepdim=True)).exp(), rtol=1e-9, atol=0
        )


@pytest.mark.usefixtures("form")
def test_a_step_is_lengthened():
    old, updated = torch.rand(2, 9, NUM_TOPICS).add(0.1)
    expected = updated * (updated / old) ** 0.8
    torch.testing.assert_close(relaxed(old, updated.clone(), 0.8), expected)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_documents_end_where_coordinate_ascent_stands_still(dtype, tolerance):
    dense = counts()
    _, beta = mixtures(dense, dtype)
    prior = torch.tensor([0.02, 0.5, 0.5, 1.0, 3.0], dtype=torch.float64)
    start = prior.to(dtype) + torch.as_tensor(dense.sum(1), dtype=dtype)[:, None] / NUM_TOPICS
    rows = CountRows.of(scipy.sparse.csr_array(dense), dtype)
    gamma = passes.fold_in(rows, beta, prior, start, most_steps=5_000, tolerance=tolerance).double()
    weights = gamma.digamma().exp()
    quotient = torch.as_tensor(dense) / (weights @ beta.double().T)
    torch.testing.assert_close(gamma, prior + weights * (quotient @ beta.double()), rtol=0, atol=5 * tolerance)
    torch.testing.assert_close(gamma[3], prior, rtol=0, atol=tolerance)  # an empty document


@pytest.mark.parametrize("most_steps", [1, 2, 7])
def test_the_first_steps_of_documents_are_the_same_in_both_forms(most_steps, monkeypatch):
    dense = counts()
    theta, beta = mixtures(dense, torch.float64)
    rows, prior = CountRows.of(scipy.sparse.csr_array(dense), torch.float64), torch.full((NUM_TOPICS,), 0.5).double()
    compiled = passes.fold_in(rows, beta, prior, theta, most_steps=most_steps)
    monkeypatch.setattr(passes, "library", lambda *_: None)
    torch.testing.assert_close(compiled, passes.fold_in(rows, beta, prior, theta, most_steps=most_steps))


def test_loading_leaves_the_processor_as_it_was():
    """A library linked with -ffast-math would have tiny numbers be 0 in all of the process."""
    assert library.library(7, torch.float64, torch.int64) is not None
    assert np.float32(1e-40) * np.float32(0.5) > 0


@pytest.mark.parametrize("compiler", ["none-of-this-name", "false"])
def test_without_a_compiler_the_plain_form_serves(compiler, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv("VIPACK_CACHE", str(tmp_path))
    functions_of.cache_clear()
    try:
        assert library.library(NUM_TOPICS, torch.float64, torch.int32) is None
        dense = counts()
        theta, beta = mixtures(dense, torch.float64)
        outcome = fused_pass(CountRows.of(scipy.sparse.csr_array(dense), torch.float64), theta, beta)
        expected = (torch.as_tensor(dense) * (theta @ beta.T).log()).sum(1)
        torch.testing.assert_close(outcome.log_likelihood, expected)
    finally:
        functions_of.cache_clear()


def test_rows_are_chosen_in_an_order_of_their_own():
    dense = counts()
    rows = CountRows.of(scipy.sparse.csr_array(dense), torch.float64)
    some = rows.take(torch.tensor([7, 3, 0, 7]))
    rebuilt = scipy.sparse.csr_array((some.counts, some.words, some.starts), shape=(4, 30)).toarray()
    assert (rebuilt == dense[[7, 3, 0, 7]]).all()
    assert (rows.totals.numpy() == dense.sum(1)).all()
    assert (rows.word_totals.numpy() == dense.sum(0)).all()


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda r, t, b: fused_pass(r, t[:-1], b), "theta"),
        (lambda r, t, b: fused_pass(r, t, b[:, :-1]), "beta"),
        (lambda r, t, b: fused_pass(r, t.float(), b), "theta"),
        (lambda r, t, b: fused_pass(r, t, b[:-1]), "beta"),
        (lambda r, t, b: passes.fold_in(r, b, t[0, :-1], t), "prior"),
        (lambda r, t, b: passes.fold_in(r, b, t[0], t[:-1]), "start"),
        (lambda r, t, b: row_expectations(t, t[0, :-1]), "prior"),
        (lambda r, t, b: column_expectations(b, b[:-1]), "prior"),
        (lambda r, t, b: relaxed(t[:-1], t, 0.5), "old"),
    ],
)
def test_shapes_that_would_reach_beyond_memory_are_refused(call, name):
    dense = counts()
    rows = CountRows.of(scipy.sparse.csr_array(dense), torch.float64)
    with pytest.raises(ShapeError, match=f"{name}: expected shape"):
        call(rows, *mixtures(dense, torch.float64))


@pytest.mark.parametrize(
    ("pointer", "column"), [([0, 2, 1], [0, 1]), ([0, 1, 3], [0, 1]), ([0, 1, 2], [0, 7]), ([0, 1, 2], [-1, 0])]
)
def test_counts_that_point_beyond_memory_are_refused(pointer, column):
    matrix = scipy.sparse.csr_array(np.eye(2, 5))
    matrix.indptr, matrix.indices = np.array(pointer, np.int32), np.array(column, np.int32)
    with pytest.raises(DataError, match="make the matrix anew"):
        CountRows.of(matrix, torch.float64)
