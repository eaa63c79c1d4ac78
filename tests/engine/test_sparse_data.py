"""Sparse data train in every tier: minibatches are rows of one matrix, whose arrays have the same shapes at every step."""

import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.sparse
import torch
from pyro.infer.autoguide import AutoNormal
from torch import nn
from torch.nn import functional

import vipack
from vipack.engine.steps import runner
from vipack.engine.steps.training_step import assemble
from vipack.sparse import BagOfWords

NUM_DOCUMENTS, NUM_WORDS, NUM_TOPICS = 60, 25, 3
TIERS = ["traced", "interpreted", "compiled"]


def ragged():
    """Counts whose rows have from none to all words."""
    random = np.random.default_rng(0)
    rates = random.gamma(0.5, 1.0, (NUM_DOCUMENTS, 1))
    table = scipy.sparse.csr_matrix(random.poisson(rates, (NUM_DOCUMENTS, NUM_WORDS)).astype(np.float64))
    table[7] = 0
    table.eliminate_zeros()
    lengths = np.diff(table.indptr)
    assert lengths.min() == 0
    assert lengths.max() > 10
    return table


class Topics(nn.Module):
    """Documents with logistic-normal shares of topics, and an encoder whose first layer reads sparse counts."""

    def __init__(self, first_layer):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.topics = nn.Parameter(torch.randn(NUM_TOPICS, NUM_WORDS, generator=generator, dtype=torch.float64))
        self.weight = nn.Parameter(torch.randn(NUM_WORDS, 2 * NUM_TOPICS, generator=generator, dtype=torch.float64) / 5)
        self.first_layer = first_layer

    def model(self, x):
        pyro.module("topics", self)
        with pyro.plate("documents", x.shape[0]):
            z = pyro.sample("z", dist.Normal(torch.zeros(NUM_TOPICS), 1.0).to_event(1))
            pyro.sample("x", BagOfWords(z.softmax(-1), self.topics.softmax(-1)), obs=x)

    def guide(self, x):
        pyro.module("topics", self)
        loc, log_scale = self.first_layer(x, self.weight).chunk(2, -1)
        with pyro.plate("documents", x.shape[0]):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


LAYERS = {
    "@": lambda x, w: x @ w,
    "sparse.mm": torch.sparse.mm,
    "linear": lambda x, w: functional.linear(x, w.t(), torch.ones(len(w.t()))),
    "log1p": lambda x, w: torch.log1p(x) @ w,
    "scaled": lambda x, w: (x * 0.5) @ w,
    "dense": lambda x, w: x.to_dense() @ w,
    "transposed": lambda x, w: (w.t() @ x.t().to_dense()).t(),
}


def trained(layer, tier, steps=12, **options):
    program = Topics(LAYERS.get(layer, layer))
    data = {"data": ragged(), "batch_size": 16} | options
    return vipack.fit(program.model, program.guide, steps=steps, engine=tier, seed=0, dtype=torch.float64, **data)


@pytest.fixture(scope="module")
def eager():
    cache = {}

    def losses(layer, **options):
        key = (layer, *sorted(options))
        if key not in cache:
            cache[key] = trained(layer, "eager", **options).losses
        return cache[key]

    return losses


@pytest.mark.parametrize(
    ("layer", "tier"),
    [
        *((layer, "interpreted") for layer in LAYERS),
        *(pytest.param(layer, "traced", marks=[pytest.mark.slow] * (layer not in ("@", "log1p"))) for layer in LAYERS),
        ("log1p", "compiled"),
    ],
)
def test_minibatches_of_every_number_of_words_take_eagers_steps(layer, tier, eager):
    fit = trained(layer, tier)
    assert (fit.engine.tier, fit.engine.reason) == (tier, "")
    np.testing.assert_allclose(fit.losses, eager(layer), rtol=1e-11)


@pytest.mark.parametrize("tier", ["traced", "interpreted"])
def test_all_rows_at_once_take_eagers_steps(tier, eager):
    fit = trained("@", tier, batch_size=None)
    assert (fit.engine.tier, fit.engine.reason) == (tier, "")
    np.testing.assert_allclose(fit.losses, eager("@", batch_size=None), rtol=1e-11)


def test_starts_side_by_side_see_the_same_sparse_batches(eager):
    fit = trained("@", "interpreted", restarts=2)
    assert (fit.engine.tier, fit.engine.reason) == ("interpreted", "")
    assert len(fit.restarts) == 2


def test_predictions_have_as_many_words_as_the_documents():
    fit = trained("@", "traced")
    draws = fit.predict(num_draws=3)["x"]
    assert draws.shape == (3, NUM_DOCUMENTS, NUM_WORDS)
    assert (draws.sum(-1) == torch.from_numpy(ragged().toarray()).sum(-1)).all()


def test_a_sparse_matrix_beside_the_data_is_no_batch():
    matrix = ragged()

    def model(y, design):
        slope = pyro.sample("slope", dist.Normal(torch.zeros(NUM_WORDS), 1.0).to_event(1))
        total = (design @ slope[:, None])[:, 0].sum()
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(total, 1.0), obs=y)

    runs = [
        vipack.fit(
            model, AutoNormal, data=np.arange(30.0), fixed={"design": matrix}, batch_size=10, steps=6, engine=tier, seed=0,
            dtype=torch.float64,
        )
        for tier in ("eager", "interpreted")
    ]  # fmt: skip
    assert runs[1].engine.tier == "interpreted"
    np.testing.assert_allclose(runs[1].losses, runs[0].losses, rtol=1e-11)


@pytest.mark.parametrize("operation", ["values", "sum"])
def test_what_native_steps_do_not_know_is_named_and_traced(operation, eager):
    layers = {
        "values": lambda x, w: x @ w + x.values().sum() / 100,
        "sum": lambda x, w: x @ w + x.sum() / 100,
    }
    with pytest.warns(
        vipack.errors.EngineWarning, match=r"the program applies aten.sum to it; native steps know x @ w"
    ):
        fit = trained(layers[operation], "interpreted")
    assert fit.engine.tier == "traced"
    np.testing.assert_allclose(fit.losses, trained(layers[operation], "eager").losses, rtol=1e-11)


def test_a_loader_of_sparse_batches_is_traced(eager):
    table = ragged()

    class Numbers(torch.utils.data.Dataset):
        def __len__(self):
            return NUM_DOCUMENTS

        def __getitem__(self, index):
            return index

    def collate(indices):
        rows = table[indices]
        arrays = (torch.from_numpy(each) for each in (rows.indptr, rows.indices, rows.data))
        return torch.sparse_csr_tensor(*arrays, rows.shape)

    losses = []
    for tier in ("eager", "interpreted"):
        loader = torch.utils.data.DataLoader(Numbers(), batch_size=20, shuffle=True, collate_fn=collate)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", vipack.errors.EngineWarning)
            fit = trained("@", tier, data=loader, batch_size=None)
        losses.append(fit.losses)
    assert fit.engine.tier == "traced"
    assert "every batch comes as a sparse tensor of its own" in fit.engine.reason
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-11)


def test_a_step_does_not_compute_what_depends_on_the_matrix_alone(monkeypatch):
    """The multinomial coefficients of all rows, and whether their values are counts."""
    steps = []

    def noted(*args, **options):
        steps.append(assemble(*args, **options))
        return steps[-1]

    monkeypatch.setattr(runner, "assemble", noted)
    trained("log1p", "traced")
    (step,) = steps
    operators = [str(node.target) for node in step.module.graph.nodes]
    assert "vipack.bag_of_words.default" in operators
    assert not [name for name in operators if "coefficient" in name or "are_counts" in name or "log1p" in name]


def test_no_check_makes_batches_dense(monkeypatch):
    """Two batches of 2,048 documents by 100,000 words take 1.6 GB when dense."""
    made_dense = []

    def noted(self, *args, **options):
        if self.layout != torch.strided:
            made_dense.append(tuple(self.shape))
        return original(self, *args, **options)

    original = torch.Tensor.to_dense
    monkeypatch.setattr(torch.Tensor, "to_dense", noted)
    fit = trained("@", "traced")
    fit.elbo(2)
    fit.diagnose(num_draws=100)
    assert made_dense == []


@pytest.mark.parametrize("wrong", [-1.0, 0.5])
def test_a_sparse_value_that_is_no_count_is_named_with_its_position(wrong):
    table = ragged().tolil()
    table[9, 4] = wrong
    program = Topics(LAYERS["@"])
    message = rf"site 'x': observed value\(s\) \[{wrong:g}\] .*the first at index \[9, 4\]\) are outside the support"
    with pytest.raises(vipack.errors.SupportError, match=message):
        vipack.fit(program.model, program.guide, data=table.tocsr(), steps=3, dtype=torch.float64)


@pytest.mark.parametrize(
    "layer",
    [
        lambda x, w: x @ w + x.sum(-1)[:, None],
        lambda x, w: (x / 2.0) @ w,
        lambda x, w: x.softmax(-1) @ w,
        lambda x, w: x.mean(-1)[:, None] + x @ w,
    ],
    ids=["sum", "quotient", "softmax", "mean"],
)
def test_what_torch_cannot_compute_with_a_sparse_tensor_has_a_cure(layer):
    with pytest.raises(
        vipack.errors.ModelError, match=r"CSR tensor\(16, 25\).*x.to_dense\(\), or use vipack.sparse.BagOfWords"
    ):
        trained(layer, "eager")


def counts(table):
    rate = pyro.sample("rate", dist.Gamma(1.0, 1.0))
    with pyro.plate("document", table.shape[0]):
        pyro.sample("table", dist.Poisson(rate).expand(table.shape).to_event(1), obs=table.to_dense())


@pytest.mark.parametrize("tier", ["auto", "traced", "interpreted", pytest.param("compiled", marks=pytest.mark.slow)])
def test_a_sparse_matrix_trains_in_minibatches(tier):
    table = scipy.sparse.random(60, 10, density=0.3, format="csr", random_state=0)
    table.data[:] = 2.0
    fit = vipack.fit(counts, AutoNormal, data=table, batch_size=20, steps=300, engine=tier, seed=0)
    assert fit.steps == 300
    assert fit.engine.tier == tier or (tier == "auto" and fit.engine.tier != "eager")
