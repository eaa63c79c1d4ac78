"""Log-linear bags of words have the density and gradients of a multinomial of logits, without an array of documents by words."""

import pyro
import pyro.distributions as dist
import pytest
import scipy.sparse
import torch

import vipack as vi
from vipack.errors import ShapeError, SupportError, UsageError
from vipack.sparse import LogLinearBagOfWords, log_linear_operators

NUM_DOCUMENTS, NUM_TOPICS, NUM_WORDS = 9, 3, 14


def documents(dtype=torch.float64):
    """With an empty document and a long one."""
    counts = torch.poisson(torch.full((NUM_DOCUMENTS, NUM_WORDS), 0.5), generator=torch.Generator().manual_seed(0))
    counts[3] = 0
    counts[5] += 2
    return counts.to(dtype)


def numbers(*lead, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    shapes = (*lead, NUM_DOCUMENTS, NUM_TOPICS), (*lead, NUM_TOPICS, NUM_WORDS), (NUM_WORDS,)
    return [3 * torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


def dense(theta, weights, bias, counts):
    coefficient = torch.lgamma(counts.sum(-1) + 1) - torch.lgamma(counts + 1).sum(-1)
    return coefficient + (counts * (theta @ weights + bias).log_softmax(-1)).sum(-1)


FORMS = {"dense": lambda counts: counts, "CSR": torch.Tensor.to_sparse_csr, "COO": torch.Tensor.to_sparse_coo}


@pytest.fixture(params=["all at once", "by rows"])
def pieces(request, monkeypatch):
    if request.param == "by rows":
        monkeypatch.setattr(log_linear_operators, "_AT_ONCE", 2 * NUM_WORDS)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("layout", FORMS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 4e-15), (torch.float32, 2e-6)])
def test_log_prob_and_gradients_are_those_of_the_dense_form(layout, dtype, tolerance):
    counts, given = documents(dtype), numbers(dtype=dtype)
    scale = torch.arange(1.0, NUM_DOCUMENTS + 1, dtype=dtype)
    outcomes = []
    for density in (dense, lambda t, w, b, x: LogLinearBagOfWords(t, w, b).log_prob(FORMS[layout](x))):
        inputs = [each.clone().requires_grad_() for each in given]
        log_prob = density(*inputs, counts)
        outcomes.append([log_prob.detach(), *torch.autograd.grad((scale * log_prob).sum(), inputs)])
    for expected, found in zip(*outcomes, strict=True):
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))
    assert outcomes[1][0][3] == 0  # nats, of the empty document


@pytest.mark.usefixtures("pieces")
def test_gradients_are_differences_of_log_prob():
    counts, inputs = documents().to_sparse_csr(), [each.requires_grad_() for each in numbers()]
    assert torch.autograd.gradcheck(lambda *given: LogLinearBagOfWords(*given).log_prob(counts), inputs)


def test_particles_are_as_one_after_the_other():
    counts, (theta, weights, bias) = documents().to_sparse_csr(), numbers(4)
    together = LogLinearBagOfWords(theta, weights, bias).log_prob(counts)
    each = [LogLinearBagOfWords(t, w, bias).log_prob(counts) for t, w in zip(theta, weights, strict=True)]
    torch.testing.assert_close(together, torch.stack(each))
    mapped = torch.func.vmap(lambda t, w: LogLinearBagOfWords(t, w, bias, validate_args=False).log_prob(counts))
    torch.testing.assert_close(mapped(theta, weights), together)


def test_a_large_vocabulary_makes_no_array_of_documents_by_words():
    matrix = scipy.sparse.random_array((20_000, 5_000), density=1e-3, rng=0, format="csr", dtype="float32").astype(bool)
    counts = torch.sparse_csr_tensor(
        torch.from_numpy(matrix.indptr), torch.from_numpy(matrix.indices), torch.ones(matrix.nnz), matrix.shape
    )
    theta, weights = torch.randn(20_000, 2, requires_grad=True), torch.randn(2, 5_000, requires_grad=True)
    with torch.profiler.profile(profile_memory=True) as profile:
        LogLinearBagOfWords(theta, weights).log_prob(counts).sum().backward()
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest < 20e6  # bytes, where the array has 400e6


def test_draws_have_the_frequencies_of_the_probabilities():
    theta, weights, bias = numbers()
    pyro.set_rng_seed(0)
    totals = torch.full((NUM_DOCUMENTS,), 4_000)
    totals[2] = 0
    counts = LogLinearBagOfWords(theta, weights, bias, totals).sample((2,))
    assert counts.shape == (2, NUM_DOCUMENTS, NUM_WORDS)
    assert torch.equal(counts.sum(-1), totals.expand(2, -1).double())
    probs = (theta @ weights + bias).softmax(-1)
    kept = totals > 0
    errors = (probs * (1 - probs) / 4_000).sqrt()[kept]
    assert bool(((counts[:, kept] / 4_000 - probs[kept]).abs() < 5 * errors + 1e-3).all())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda t, w, b: LogLinearBagOfWords(t, w[:2], b), ShapeError, "with the same K"),
        (lambda t, w, b: LogLinearBagOfWords(t, w, b[:3]), ShapeError, "bias has shape"),
        (lambda t, w, b: LogLinearBagOfWords(t, w, b).log_prob(documents()[:, :5]), ShapeError, "a column for each"),
        (lambda t, w, b: LogLinearBagOfWords(t, w, b).log_prob(documents()[:4]), ShapeError, "belongs to each"),
        (lambda t, w, b: LogLinearBagOfWords(t, w, b).log_prob(documents() - 1), SupportError, "negative"),
        (lambda t, w, b: LogLinearBagOfWords(t, w, b).sample(), UsageError, "total_count"),
    ],
)
def test_what_cannot_be_is_said(call, error, message):
    with pytest.raises(error, match=message):
        call(*numbers())


@pytest.mark.parametrize("engine", ["traced", "interpreted"])
def test_steps_of_other_tiers_are_those_of_eager(engine):
    counts = scipy.sparse.csr_matrix(documents(torch.float32).numpy())

    def model(x):
        weights = pyro.param("weights", lambda: 0.1 * torch.randn(NUM_TOPICS, NUM_WORDS))
        bias = pyro.param("bias", torch.zeros(NUM_WORDS))
        with pyro.plate("document", x.shape[0]):
            theta = pyro.sample("theta", dist.Normal(0.0, 1.0).expand([NUM_TOPICS]).to_event(1))
            pyro.sample("counts", LogLinearBagOfWords(theta, weights, bias), obs=x)

    def guide(x):
        encoder = pyro.param("encoder", lambda: 0.1 * torch.randn(NUM_WORDS, NUM_TOPICS))
        with pyro.plate("document", x.shape[0]):
            pyro.sample("theta", dist.Normal(x @ encoder, 0.5).to_event(1))

    runs = [
        vi.fit(model, guide, data=counts, batch_size=4, steps=20, seed=0, engine=tier, progress=False)
        for tier in ("eager", engine)
    ]
    assert runs[1].losses == pytest.approx(runs[0].losses, rel=1e-5)
    assert runs[1].engine.tier == engine
