"""LDA as an estimator."""

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.sparse
import scipy.stats
from sklearn.base import clone
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.pipeline import make_pipeline

import vipack as vi
from tests.topics.estimator_checks import WANTED_OTHERWISE, failed_checks, whole
from vipack.errors import DataError, DataWarning, ShapeError, TrustWarning, UsageError
from vipack.topics import LDA
from vipack.topics.report_section import topics_section

TEXTS = [
    "cats purr and cats sleep",
    "dogs bark and dogs run",
    "cats sleep all day",
    "dogs run and bark",
    "stars shine at night",
] * 6


@pytest.fixture(scope="module")
def model(planted):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        return LDA(3, progress=False).fit(planted.counts)


def matched(topics, truth):
    distance = np.abs(topics[:, None] - truth[None]).sum(-1) / 2
    return scipy.optimize.linear_sum_assignment(distance)


def test_topics_and_shares_are_recovered(model, planted):
    rows, columns = matched(model.topics_, planted.topics)
    assert np.abs(model.topics_[rows] - planted.topics[columns]).sum(1).max() / 2 < 0.12
    errors = np.abs(model.shares_[:, rows] - planted.shares[:, columns])
    assert np.delete(errors, 5, 0).mean() < 0.06
    np.testing.assert_allclose(model.shares_.sum(1), 1)
    np.testing.assert_allclose(model.topics_.sum(1), 1)


def test_new_documents_get_the_shares_that_old_ones_have(model, planted):
    shares = model.transform(planted.counts)
    assert np.abs(shares - model.shares_).mean() < 0.02
    np.testing.assert_allclose(shares[5], 1 / 3, rtol=1e-5)  # an empty one, those of the prior


def test_intervals_of_words_are_those_of_the_posterior(model):
    table = model.word_table(4, level=0.8)
    assert list(table.columns) == ["topic", "word", "mean", "lower", "upper"]
    row = table.iloc[0]
    own = model.components_[0, int(row["word"])]
    exact = scipy.stats.beta(own, model.components_[0].sum() - own)
    np.testing.assert_allclose(
        [row["mean"], row["lower"], row["upper"]], [exact.mean(), exact.ppf(0.1), exact.ppf(0.9)]
    )


def test_measures_of_words(model):
    best = [int(words[0]) for words in model.top_words(1, measure="frex", weight=1.0)]
    assert best == list((model.topics_ / model.topics_.sum(0)).argmax(1))
    assert model.top_words(5, measure="relevance", weight=1.0) == model.top_words(5)
    with pytest.raises(UsageError, match="measure"):
        model.top_words(3, measure="tf-idf")
    with pytest.raises(UsageError, match="weight"):
        model.top_words(3, measure="frex", weight=2)


def test_merged_topics_take_words_and_documents_along(model, tmp_path):
    model.save(tmp_path / "lda.pt")
    other = LDA.load(tmp_path / "lda.pt").rename({0: "animals"})
    before = other.components_.copy()
    other.merge([[0, 2]])
    np.testing.assert_allclose(other.components_[0], before[0] + before[2])
    np.testing.assert_allclose(other.shares_[:, 0], model.shares_[:, 0] + model.shares_[:, 2])
    assert other.topic_names_ == ["animals", "topic 1"]
    with pytest.raises(UsageError, match="each once"):
        other.merge([[0, 1], [1]])


@pytest.mark.filterwarnings("ignore::vipack.errors.DataWarning")
@pytest.mark.parametrize("seeded", [False, True])
def test_a_split_topic_becomes_the_two_that_it_was_of(planted, model, seeded, tmp_path):
    words = [str(w) for w in planted.topics[0].argsort()[-2:]]
    own = LDA(3, seeds={0: words}, progress=False).fit(planted.counts) if seeded else model
    own.save(tmp_path / "lda.pt")
    other = LDA.load(tmp_path / "lda.pt").merge([[0, 2]]).rename({0: "both"})
    before, names = copy.deepcopy(other), list(other.topic_names_)
    other.split(0, planted.counts)
    assert other.topic_names_ == ["both, part 1", names[1], "both, part 2"]
    rows, columns = matched(other.topics_, planted.topics)
    reached = np.abs(other.topics_[rows] - planted.topics[columns]).sum(1).max() / 2
    assert reached < (0.4 if seeded else 0.15)  # pseudo-counts of seeds are not of the truth
    np.testing.assert_array_equal(other.components_[1], before.components_[1])
    np.testing.assert_allclose(other.shares_[:, [0, 2]].sum(1), before.shares_[:, 0])
    assert np.abs(other.transform(planted.counts) - other.shares_).mean() < 0.05  # anew, where all shares may move
    other.save(tmp_path / "split.pt")
    loaded = LDA.load(tmp_path / "split.pt")
    assert loaded.top_words(5) == other.top_words(5)
    merged = loaded.merge([[0, 2]])
    np.testing.assert_allclose(merged.documents_, before.documents_)
    pseudo_counts = 0 if seeded else 0.5  # eta is one number for each word and topic, also of the parts
    np.testing.assert_allclose(merged.components_[0] - pseudo_counts, before.components_[0])


def test_topics_of_a_stream_are_split_by_any_documents(planted):
    stream = LDA(2, total_documents=120)
    for _ in range(40):
        stream.partial_fit(planted.counts)
    assert stream.split(1, planted.counts[:60], into=3).partial_fit(planted.counts).components_.shape == (4, 40)


def test_splits_that_cannot_be_are_named(model, planted):
    for arguments, message in (
        ((3, planted.counts), "topic: expected a number from 0 to 2, found 3"),
        ((0, planted.counts[:7]), "X: 7 documents, and the model was fitted to 120"),
    ):
        with pytest.raises(UsageError, match=message):
            copy.deepcopy(model).split(*arguments)
    with pytest.raises(UsageError, match="into"):
        copy.deepcopy(model).split(0, planted.counts, into=1)


def test_merged_and_loaded_models_take_more_of_a_stream(model, planted, tmp_path):
    model.save(tmp_path / "lda.pt")
    loaded = LDA.load(tmp_path / "lda.pt").partial_fit(planted.counts)
    assert not hasattr(loaded, "shares_")  # those of the topics as they were
    assert loaded.merge([[0, 1]]).partial_fit(planted.counts).components_.shape == (2, 40)


def test_other_words_in_the_columns_are_refused():
    table = pd.DataFrame(np.random.default_rng(0).poisson(1.0, (20, 4)), columns=["cat", "dog", "cow", "hen"])
    fitted = LDA(2, steps=5, progress=False).fit(table)
    for method in (fitted.transform, fitted.score, fitted.perplexity, fitted.partial_fit):
        with pytest.raises(
            DataError, match=r"column 0 is the word 'hen', that of the fit is 'cat'.*in the order of vocabulary_"
        ):
            method(table[["hen", "cow", "dog", "cat"]])
    np.testing.assert_array_equal(fitted.transform(table.to_numpy()), fitted.transform(table))


def test_seeds_hold_in_a_stream(planted):
    """Their pseudo-counts are of the stream, not of its first batch."""
    rare = int(planted.counts.sum(0).argsort()[5])
    stream = LDA(3, seeds={1: [str(rare)]}, seed_weight=20.0, total_documents=10_000)
    for _ in range(20):
        stream.partial_fit(planted.counts)
    pseudo_counts = 20.0 * planted.counts.sum(0)[rare] * 10_000 / 120
    assert stream.components_[1, rare] > 0.9 * pseudo_counts


def test_it_is_copied_and_pickled(model, planted):
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.transform(planted.counts), model.transform(planted.counts))
        assert other.fit_.steps == model.fit_.steps


def test_a_saved_model_answers_alike(model, planted, tmp_path):
    model.save(tmp_path / "lda.pt")
    loaded = LDA.load(tmp_path / "lda.pt")
    np.testing.assert_array_equal(loaded.transform(planted.counts), model.transform(planted.counts))
    assert loaded.top_words(5) == model.top_words(5)
    assert loaded.get_params() == model.get_params()


def test_streams_are_learned_in_steps(planted):
    stream = LDA(3, total_documents=120)
    for _ in range(30):
        for start in range(0, 120, 40):
            stream.partial_fit(planted.counts[start : start + 40])
    rows, columns = matched(stream.topics_, planted.topics)
    assert np.abs(stream.topics_[rows] - planted.topics[columns]).sum(1).max() / 2 < 0.15
    assert stream.n_iter_ == 90
    with pytest.raises(ShapeError, match="expecting 40 features"):
        stream.partial_fit(planted.counts[:, :30])


def test_seed_words_hold_at_convergence():
    corpus = vi.datasets.docstrings().prune(min_documents=8, max_fraction=0.15, min_tokens=15)
    seeds = {0: ["socket", "path"], 1: ["path", "archive"]}
    model = LDA(6, seeds=seeds, progress=False).fit(corpus)
    for topic, words in seeds.items():
        assert set(words) <= set(model.top_words(5)[topic])


def test_it_works_in_a_pipeline():
    pipeline = make_pipeline(CountVectorizer(), LDA(2, progress=False))
    shares = pipeline.fit_transform(TEXTS)
    assert shares.shape == (30, 2)
    new = pipeline.transform(["cats purr", "dogs bark"])
    assert new.argmax(1)[0] != new.argmax(1)[1]
    assert list(pipeline[-1].get_feature_names_out()) == ["topic0", "topic1"]


def test_vocabulary_and_titles_follow_a_table():
    table = pd.DataFrame({"cat": [3, 0, 2], "dog": [0, 4, 1]}, index=["a", "b", "c"])
    model = LDA(2, steps=20, progress=False).fit(table)
    assert model.vocabulary_ == ("cat", "dog")
    assert set(model.top_documents(1)[0]) <= {"a", "b", "c"}
    with pytest.raises(DataError, match="'cat' occurs twice"):
        LDA(2).fit(table.to_numpy(), vocabulary=["cat", "cat"])


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (-np.ones((3, 4)), "Negative values"),
        (np.full((3, 4), 0.5), r"count 0.5.*tf-idf"),
        (np.full((3, 4), np.nan), "NaN"),
        (np.zeros((3, 4)), "all counts are 0"),
        (np.zeros((0, 4)), r"0 sample\(s\)"),
        (TEXTS, "found texts"),
        (np.ones(5), "2D"),
        (scipy.sparse.csr_array(np.full((2, 2), -3)), "Negative values"),
    ],
)
def test_bad_counts_are_named(counts, message):
    with pytest.raises(DataError, match=message):
        LDA(2).fit(counts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "gibbs"}, "method"),
        ({"random_state": "x"}, "random_state"),
        ({"seeds": {0: ["zebra"]}}, "not in the vocabulary: 'zebra'"),
        ({"seeds": {9: ["1"]}}, "no topic 9"),
        ({"seeds": {0: "1"}}, "list of words"),
        ({"num_topics": 2.5}, "num_topics"),
    ],
)
def test_bad_options_are_named(planted, options, message):
    with pytest.raises(UsageError, match=message):
        LDA(**{"num_topics": 3, **options}).fit(planted.counts[:5])


def test_empty_documents_are_named(planted):
    with pytest.warns(DataWarning, match=r"1 document\(s\) have no word of the vocabulary \(5\)"):
        LDA(3, steps=2, progress=False).fit(planted.counts)


@pytest.mark.filterwarnings("ignore::vipack.errors.DataWarning")
def test_topics_of_no_document_are_named(planted, tmp_path):
    """There are 3 topics."""
    with pytest.warns(TrustWarning, match=r"of 30 topics are of no document \(.*num_topics=2\d is enough") as caught:
        model = LDA(30, progress=False).fit(planted.counts)
    unused = model.unused_topics()
    expected = (model.shares_ * (planted.counts.sum(1)[:, None] + 15) - 0.5).max(0)  # words of each topic
    assert unused == [k for k in range(30) if expected[k] < 1]
    assert f"{len(unused)} of 30" in str(caught[-1].message)
    assert f"No document has a word of topic {unused[0]}" in " ".join(topics_section(model).texts)
    model.save(tmp_path / "lda.pt")
    loaded = LDA.load(tmp_path / "lda.pt")
    assert loaded.unused_topics() == unused
    largest = int(model.shares_.sum(0).argmax())
    assert len(loaded.merge([[unused[0], largest]]).unused_topics()) == len(unused) - 1
    with pytest.raises(UsageError, match="partial_fit keeps no documents"):
        LDA(3).partial_fit(planted.counts).unused_topics()


def test_parameters_are_read_set_and_cloned():
    model = LDA(4, learn_alpha=True)
    assert repr(clone(model).set_params(alpha=0.1)) == "LDA(num_topics=4, alpha=0.1, learn_alpha=True)"
    with pytest.raises(UsageError, match="no parameter 'K'"):
        model.set_params(K=3)


class WholeLDA(LDA):
    """LDA of counts rounded up."""

    def fit(self, X, y=None):
        return super().fit(whole(X))

    def partial_fit(self, X, y=None):
        return super().partial_fit(whole(X))

    def transform(self, X):
        return super().transform(whole(X))

    def score(self, X, y=None):
        return super().score(whole(X))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_scikit_learns_own_checks():
    assert failed_checks(WholeLDA(2, steps=3, progress=False)) == WANTED_OTHERWISE
