"""Bags of words have the density of a multinomial of mixed topics, and draws of it, without an array of documents by words."""

import math
import tracemalloc

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.sparse
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch.distributions import constraints

from vipack.errors import ShapeError, SupportError, UsageError
from vipack.sparse import BagOfWords, mixtures_of_topics

NUM_DOCUMENTS, NUM_TOPICS, NUM_WORDS = 9, 3, 14


def documents(dtype=torch.float64):
    """With an empty document and a long one."""
    generator = torch.Generator().manual_seed(0)
    counts = torch.poisson(torch.full((NUM_DOCUMENTS, NUM_WORDS), 0.5, dtype=dtype), generator=generator)
    counts[3] = 0
    counts[5] += 2
    return counts


def mixtures(*shape, dtype=torch.float64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    theta = torch.randn(*shape, NUM_DOCUMENTS, NUM_TOPICS, generator=generator, dtype=dtype).softmax(-1)
    beta = torch.randn(*shape, NUM_TOPICS, NUM_WORDS, generator=generator, dtype=dtype).softmax(-1)
    return theta, beta


def dense(theta, beta, counts):
    """A multinomial's density, which does not normalise."""
    coefficient = torch.lgamma(counts.sum(-1) + 1) - torch.lgamma(counts + 1).sum(-1)
    return coefficient + (counts * (theta @ beta).log()).sum(-1)


FORMS = {"dense": lambda counts: counts, "CSR": torch.Tensor.to_sparse_csr, "COO": torch.Tensor.to_sparse_coo}


@pytest.fixture(params=["compiled", "plain"])
def form(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr(mixtures_of_topics, "library", lambda *_: None)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("layout", FORMS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 4e-15), (torch.float32, 2e-6)])
def test_log_prob_and_gradients_are_those_of_the_dense_form(layout, dtype, tolerance):
    counts, (theta, beta) = documents(dtype), mixtures(dtype=dtype)
    weights = torch.arange(1.0, NUM_DOCUMENTS + 1, dtype=dtype)
    outcomes = []
    for density in (dense, lambda t, b, x: BagOfWords(t, b).log_prob(FORMS[layout](x))):
        inputs = [each.clone().requires_grad_() for each in (theta, beta)]
        log_prob = density(*inputs, counts)
        outcomes.append([log_prob.detach(), *torch.autograd.grad((weights * log_prob).sum(), inputs)])
    for expected, found in zip(*outcomes, strict=True):
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))
    assert outcomes[1][0][3] == 0  # nats, of the empty document


@pytest.mark.parametrize("layout", FORMS)
def test_it_is_the_multinomial_of_the_mixture(layout):
    counts, (theta, beta) = documents(), mixtures()
    multinomial = dist.Multinomial(probs=theta @ beta, validate_args=False)
    torch.testing.assert_close(BagOfWords(theta, beta).log_prob(FORMS[layout](counts)), multinomial.log_prob(counts))


@pytest.mark.usefixtures("form")
def test_gradients_are_differences_of_log_prob():
    counts, inputs = documents().to_sparse_csr(), [each.requires_grad_() for each in mixtures()]
    assert torch.autograd.gradcheck(lambda t, b: BagOfWords(t, b, validate_args=False).log_prob(counts), inputs)


@pytest.mark.parametrize("layout", ["dense", "CSR"])
def test_the_coefficient_may_be_left_out(layout):
    counts, mixed = documents(), mixtures()
    with_it, without = (BagOfWords(*mixed, coefficient=flag).log_prob(FORMS[layout](counts)) for flag in (True, False))
    coefficient = torch.lgamma(counts.sum(-1) + 1) - torch.lgamma(counts + 1).sum(-1)
    torch.testing.assert_close(with_it - without, coefficient)


@pytest.mark.parametrize("shapes", [((4,), (4,)), ((4,), ()), ((), (4,)), ((4, 1), (2,))], ids=str)
@pytest.mark.parametrize("layout", ["dense", "CSR"])
def test_particles_stand_in_front(shapes, layout):
    counts, theta, beta = documents(), mixtures(*shapes[0])[0], mixtures(*shapes[1])[1]
    inputs = [theta.requires_grad_(), beta.requires_grad_()]
    found = BagOfWords(theta, beta).log_prob(FORMS[layout](counts))
    expected = dense(theta, beta, counts)
    torch.testing.assert_close(found, expected)
    for one, other in zip(*(torch.autograd.grad(v.square().sum(), inputs) for v in (found, expected)), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("in_dims", [(0, 0), (0, None), (None, 0)])
def test_vmap_repeats_it(in_dims):
    crow, col, values = (getattr(documents().to_sparse_csr(), n)() for n in ("crow_indices", "col_indices", "values"))
    many, one = mixtures(4), mixtures()
    inputs = [m if dim == 0 else o for m, o, dim in zip(many, one, in_dims, strict=True)]

    def total(theta, beta):
        matrix = torch.sparse_csr_tensor(crow, col, values, (NUM_DOCUMENTS, NUM_WORDS))
        return BagOfWords(theta, beta, validate_args=False).log_prob(matrix)

    each = [[v[i] if dim == 0 else v for v, dim in zip(inputs, in_dims, strict=True)] for i in range(4)]
    torch.testing.assert_close(torch.vmap(total, in_dims)(*inputs), torch.stack([total(*own) for own in each]))


def test_one_set_of_shares_serves_all_documents():
    counts, (theta, beta) = documents(), mixtures()
    expected = dense(theta[0], beta, counts)
    torch.testing.assert_close(BagOfWords(theta[0], beta).log_prob(counts.to_sparse_csr()), expected)
    torch.testing.assert_close(BagOfWords(theta[0], beta).log_prob(counts), expected)
    assert BagOfWords(theta[0], beta).log_prob(counts[0]).shape == ()


def test_stored_zeros_and_words_of_probability_0():
    beta = torch.tensor([[0.5, 0.5, 0.0]])
    crow, col = torch.tensor([0, 2, 3]), torch.tensor([0, 2, 2])
    never, once = (torch.sparse_csr_tensor(crow, col, torch.tensor([1.0, 0.0, count]), (2, 3)) for count in (0.0, 1.0))
    theta = torch.ones(2, 1, requires_grad=True)
    log_prob = BagOfWords(theta, beta).log_prob(never)
    assert log_prob.tolist() == [pytest.approx(math.log(0.5)), 0.0]
    log_prob.sum().backward()
    assert theta.grad.tolist() == [[1.0], [0.0]]
    assert BagOfWords(theta, beta).log_prob(once)[1] == -math.inf


def test_it_expands_and_declares_what_it_is():
    one = BagOfWords(*mixtures(), total_count=7)
    assert (one.batch_shape, one.event_shape, one.event_dim) == ((NUM_DOCUMENTS,), (NUM_WORDS,), 1)
    assert one.has_rsample is False
    assert one.support.is_discrete
    assert one.support.event_dim == 1
    wide = one.expand((2, NUM_DOCUMENTS))
    assert wide.sample().shape == (2, NUM_DOCUMENTS, NUM_WORDS)
    torch.testing.assert_close(wide.log_prob(documents().to_sparse_csr())[1], one.log_prob(documents().to_sparse_csr()))
    assert one.support.check(documents().to_sparse_csr()).all()


def test_draws_have_the_totals_and_the_means_of_the_mixture():
    theta, beta = mixtures(2)
    pyro.set_rng_seed(0)
    totals = torch.arange(NUM_DOCUMENTS) * 1_000
    draws = BagOfWords(theta, beta, total_count=totals).sample((5,))
    assert draws.shape == (5, 2, NUM_DOCUMENTS, NUM_WORDS)
    assert (draws.sum(-1) == totals).all()
    probs, n = theta @ beta, 5 * totals[1:, None]
    errors = (draws.sum(0)[:, 1:] - n * probs[:, 1:]) / (n * probs[:, 1:] * (1 - probs[:, 1:])).sqrt()
    assert errors.abs().max() < 4.5  # standard errors, of 224 binomial counts
    csr = BagOfWords(theta[0], beta[0], total_count=totals).sample_csr()
    assert csr.layout == torch.sparse_csr
    assert (csr.to_dense().sum(-1) == totals).all()


def test_a_large_vocabulary_takes_no_dense_array():
    documents_, words, topics = 2_000, 100_000, 4
    columns = np.sort(np.random.default_rng(0).integers(0, words, (documents_, 20), dtype=np.int32), 1).ravel()
    x = scipy.sparse.csr_array(
        (np.ones(len(columns), np.float32), columns, np.arange(0, len(columns) + 1, 20, dtype=np.int32))
    )
    x.resize(documents_, words)
    x.sum_duplicates()
    value = torch.sparse_csr_tensor(*(torch.from_numpy(a) for a in (x.indptr, x.indices, x.data)), x.shape)
    theta = torch.rand(documents_, topics).softmax(-1).requires_grad_()
    beta = torch.rand(topics, words).softmax(-1).requires_grad_()
    sizes = []

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            results = result if isinstance(result, tuple) else (result,)
            sizes.extend(r.numel() for r in results if isinstance(r, torch.Tensor) and r.layout == torch.strided)
            return result

    BagOfWords(theta, beta).log_prob(value).sum().backward()  # which compiles what it needs
    tracemalloc.start()
    with Largest():
        BagOfWords(theta, beta).log_prob(value).sum().backward()
    peak = tracemalloc.get_traced_memory()[1]  # NumPy's and Python's
    tracemalloc.stop()
    assert max(sizes) <= 2 * topics * words  # of 200,000,000
    assert peak < 50_000_000


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda t, b: BagOfWords(t[:, :2], b), ["theta has shape (9, 2), so 2 topics", "(3, 14), so 3"]),
        (lambda t, b: BagOfWords(t, b[0]), ["(9, 3)", "(14,)", "expected (..., D, K) and (..., K, V)"]),
        (lambda t, b: BagOfWords(t.expand(2, 9, 3), b.expand(5, 3, 14)), ["(2, 9, 3)", "(5, 3, 14)", "do not broadcast"]),
        (lambda t, b: BagOfWords(t, b).log_prob(documents()[:, :9].to_sparse_csr()), ["(9, 9)", "each of the 14 words"]),
        (lambda t, b: BagOfWords(t, b).log_prob(documents()[:5].to_sparse_csr()), ["(5,) documents", "(9, 3)"]),
    ],
    ids=["topics", "one topic", "particles", "words", "documents"],
)  # fmt: skip
def test_shapes_that_do_not_fit_are_named(make, words):
    with pytest.raises(ShapeError) as caught:
        make(*mixtures())
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("layout", FORMS)
@pytest.mark.parametrize("wrong", [-1.0, 0.5])
def test_values_that_are_no_counts_are_refused(layout, wrong):
    counts = documents()
    counts[2, 4] = wrong
    with pytest.raises(SupportError, match=rf"1 of the counts, such as {wrong:g}, are negative or no whole numbers"):
        BagOfWords(*mixtures()).log_prob(FORMS[layout](counts))


@pytest.mark.parametrize("name", ["theta", "beta"])
def test_shares_that_are_no_probabilities_are_refused(name):
    given = dict(zip(("theta", "beta"), mixtures(), strict=True))
    with pytest.raises(ValueError, match=rf"Expected parameter {name} .*probabilities \(nonnegative rows with sum 1\)"):
        BagOfWords(**{**given, name: given[name] * 1.5})


def test_to_draw_takes_totals():
    with pytest.raises(UsageError, match="pass total_count="):
        BagOfWords(*mixtures()).sample()
    with pytest.raises(UsageError, match=r"batch shape is \(2, 9\); use sample\(\)"):
        BagOfWords(*mixtures(2), total_count=3).sample_csr()


@pytest.mark.parametrize("vectorize", [False, True])
def test_pyro_alone_trains_it(vectorize):
    counts = documents(torch.float32).to_sparse_csr()

    def model():
        with pyro.plate("topics", NUM_TOPICS):
            beta = pyro.sample("beta", dist.Dirichlet(torch.ones(NUM_WORDS)))
        with pyro.plate("documents", NUM_DOCUMENTS):
            theta = pyro.sample("theta", dist.Dirichlet(torch.ones(NUM_TOPICS)))
            pyro.sample("counts", BagOfWords(theta, beta), obs=counts)

    pyro.set_rng_seed(0)
    loss = Trace_ELBO(num_particles=4, vectorize_particles=vectorize, max_plate_nesting=1)
    svi = SVI(model, AutoNormal(model), pyro.optim.Adam({"lr": 0.05}), loss)
    losses = [svi.step() for _ in range(60)]
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 5  # nats
    pyro.clear_param_store()


def test_shares_of_words_sum_to_one_up_to_rounding():
    """A simplex's own check refuses what softmax gives in float32."""
    many = torch.randn(50, 60_000, generator=torch.Generator().manual_seed(0)).softmax(-1)
    assert BagOfWords(torch.full((1, 50), 0.02), many).support.is_discrete
    assert not constraints.simplex.check(many * (1 + 2e-6)).all()


def test_functorch_differentiates_it():
    """As fits without a guide do, though torch.func has no rule for the arrays of a CSR tensor."""
    counts, (theta, beta) = documents().to_sparse_csr(), mixtures()

    def total(theta, beta):
        return BagOfWords(theta, beta).log_prob(counts).sum()

    found = torch.func.grad(total, argnums=(0, 1))(theta, beta)
    inputs = [each.clone().requires_grad_() for each in (theta, beta)]
    for one, other in zip(found, torch.autograd.grad(total(*inputs), inputs), strict=True):
        torch.testing.assert_close(one, other)
