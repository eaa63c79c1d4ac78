"""ProdLDA: the program is what it says, and the estimator reads its topics through the decoder."""

import warnings

import numpy as np
import pytest
import torch

import vipack as vi
from tests.topics.estimator_checks import WANTED_OTHERWISE, failed_checks, whole
from vipack.errors import CheckpointError, DataWarning, ShapeError, TrustWarning, UsageError
from vipack.topics import LDA, ProdLDA, ProductOfExperts


def fitted(counts, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        return ProdLDA(3, batch_size=60, hidden=(16,), progress=False, **options).fit(counts)


@pytest.fixture(scope="module")
def model(planted):
    return fitted(planted.counts, steps=400, learning_rate=0.02)


def test_batch_normalization_by_the_covariance_of_shares_is_torchs():
    generator = torch.Generator().manual_seed(0)
    module = ProductOfExperts(np.ones((1, 12)), 4).double()
    outcomes = []
    torch_norm = torch.nn.BatchNorm1d(12, eps=1e-3, affine=False).double()
    for normalize in (
        lambda shares: torch_norm(shares @ module.decoder.weights),
        lambda shares: torch.matmul(*module.decoder.normalized(shares, training=True)),
    ):
        shares = torch.rand(30, 4, generator=generator.manual_seed(1), dtype=torch.float64).requires_grad_()
        logits = normalize(shares)
        gradients = torch.autograd.grad(logits.sin().sum(), [shares, module.decoder.weights])
        outcomes.append([logits.detach(), *gradients])
    for expected, found in zip(*outcomes, strict=True):
        torch.testing.assert_close(found, expected)
    for _ in range(200):  # so that running figures are those of these documents
        module.decoder.normalized(shares, training=True), torch_norm(shares @ module.decoder.weights)
    torch_norm.eval()
    after = torch.matmul(*module.decoder.normalized(shares, training=False))
    torch_norm.running_var *= 29 / 30  # torch keeps variances over n - 1
    torch.testing.assert_close(after, torch_norm(shares @ module.decoder.weights))


def test_topics_of_known_words_are_recovered(model, planted):
    distance = np.abs(model.topics_[:, None] - planted.topics[None]).sum(-1)
    order = distance.argmin(0)
    assert sorted(order) == [0, 1, 2]
    for k, topic in enumerate(order):
        leading = set(np.argsort(-planted.topics[k])[:10])
        assert len(leading & set(np.argsort(-model.topics_[topic])[:5])) >= 4
    used = planted.counts.sum(1) > 0
    agreement = np.corrcoef(model.shares_[:, order][used].ravel(), planted.shares[used].ravel())[0, 1]
    assert agreement > 0.85


def test_topics_are_what_the_decoder_makes_of_one_topic(model):
    decoded = model.module_.decoder(torch.eye(3))
    probs = (decoded.theta @ decoded.weights + decoded.bias).softmax(-1)
    np.testing.assert_allclose(model.topics_, probs.detach().numpy(), rtol=1e-4)
    np.testing.assert_allclose(model.topics_.sum(1), 1)
    assert len(model.top_words(4)[0]) == 4
    assert list(model.word_table(2).columns) == ["topic", "word", "mean"]  # no posterior, so no interval
    assert model.topic_proportions().sum() == pytest.approx(1)


def test_new_documents_get_the_shares_that_old_ones_have(model, planted):
    np.testing.assert_allclose(model.transform(planted.counts), model.shares_, rtol=1e-5)
    np.testing.assert_allclose(model.shares_.sum(1), 1)
    with pytest.raises(ShapeError, match="40 features"):
        model.transform(planted.counts[:, :5])


def test_it_predicts_held_out_words_better_than_their_frequencies(model, planted):
    train, new = planted.counts, planted.counts[:60]
    ours = vi.topics.completion(None, new, log_probability=model.log_probability, num_splits=1)
    frequencies = np.asarray(train.sum(0)).ravel() + 0.5
    logs = np.log(frequencies / frequencies.sum())
    plain = vi.topics.completion(
        None, new, log_probability=lambda _, held: np.tile(logs, (held.num_documents, 1)), num_splits=1
    )
    assert ours.perplexity.value < 0.8 * plain.perplexity.value


def test_a_file_brings_all_of_it_back(model, planted, tmp_path):
    model.rename({0: "first"}).save(tmp_path / "model.pt")
    again = ProdLDA.load(tmp_path / "model.pt")
    np.testing.assert_array_equal(again.topics_, model.topics_)
    np.testing.assert_allclose(again.transform(planted.counts), model.shares_, rtol=1e-5)
    assert again.get_params() | {"hidden": (16,)} == model.get_params()
    assert again.topic_names_[0] == "first"
    with pytest.raises(CheckpointError, match="holds a ProdLDA"):
        LDA.load(tmp_path / "model.pt")


def test_topics_of_the_same_words_are_said_to_have_collapsed(planted, monkeypatch):
    same = torch.arange(1.0, 41.0).expand(3, 40) / 820
    monkeypatch.setattr(ProductOfExperts, "topics", lambda _: same.clone())
    with pytest.warns(TrustWarning, match=r"0 and 1.*leading words in common.*collapsed"):
        fitted(planted.counts, steps=1)


def test_documents_without_topics_are_said_to_have_collapsed():
    counts = np.random.default_rng(0).multinomial(60, np.full(40, 1 / 40), 120)
    with pytest.warns(TrustWarning, match="the latents have collapsed"):
        fitted(counts, steps=400, learning_rate=0.02)


def test_a_seed_decides_everything(planted):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustWarning)
        one, two = (fitted(planted.counts, steps=3).topics_ for _ in range(2))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_topics": 1}, "num_topics: expected"),
        ({"alpha": 0.0}, "alpha: expected"),
        ({"dropout": 1.0}, "dropout: expected"),
        ({"hidden": ()}, "hidden: expected"),
        ({"batch_size": 0}, "batch_size"),
        ({"steps": -1}, "steps"),
    ],
)
@pytest.mark.filterwarnings("ignore::vipack.errors.DataWarning")
def test_what_cannot_be_is_said(planted, options, message):
    model = ProdLDA(**{"num_topics": 3, "steps": 1, "progress": False} | options)
    with pytest.raises(UsageError, match=message):
        model.fit(planted.counts)


class WholeProdLDA(ProdLDA):
    """ProdLDA of counts rounded up."""

    def fit(self, X, y=None):
        return super().fit(whole(X))

    def transform(self, X):
        return super().transform(whole(X))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_scikit_learns_own_checks():
    assert failed_checks(WholeProdLDA(2, steps=3, hidden=(8,), progress=False)) == WANTED_OTHERWISE
