"""Document completion: exact values on corpora small enough to compute by hand, and refusals of what cannot be scored."""

import math

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

from vipack.datasets import Corpus
from vipack.errors import DataError, ShapeError, SignatureError, TrustWarning, UsageError
from vipack.topics import compare_completions, completion, token_halves
from vipack.topics.judging.estimates import rate, with_error
from vipack.topics.judging.folding import ALPHAS, choose_alpha, fold_in, word_log_probabilities

APART = np.array([[1.0, 0.0], [0.0, 1.0]])


def corpus(counts, name="small"):
    counts = np.asarray(counts)
    words = tuple("abcdefghij"[: counts.shape[1]])
    return Corpus(name, counts, words, tuple(f"text {i}" for i in range(len(counts))), "a test", "none")


def random_corpus(num_documents=40, num_words=8, seed=0):
    return corpus(np.random.default_rng(seed).poisson(1.5, (num_documents, num_words)))


def random_topics(num_topics=3, num_words=8, seed=1):
    return np.random.default_rng(seed).dirichlet(np.ones(num_words), num_topics)


def test_one_topic_gives_words_its_own_probabilities():
    result = completion([[0.8, 0.2]], corpus([[4, 0], [0, 2]]))
    np.testing.assert_allclose(result.log_probability, [2 * math.log(0.8), math.log(0.2)])
    assert result.num_tokens.tolist() == [2, 1]
    assert result.nats.value == pytest.approx(-(2 * math.log(0.8) + math.log(0.2)) / 3)
    assert result.perplexity.value == pytest.approx((0.8**2 * 0.2) ** (-1 / 3))
    assert result.per_document.value == pytest.approx(-(math.log(0.8) + math.log(0.2)) / 2)


@pytest.mark.parametrize("alpha", [0.1, 2.0])
def test_mixtures_are_the_tokens_of_each_topic_smoothed_by_alpha(alpha):
    result = completion(APART, corpus([[6, 0], [0, 6]]), alpha=alpha)
    share = (alpha + 3) / (2 * alpha + 3)
    np.testing.assert_allclose(result.log_probability, 2 * [3 * math.log(share)], rtol=1e-9)
    assert result.alpha == (alpha, alpha, alpha)


def test_an_alpha_for_each_topic_is_added_to_its_own():
    result = completion(APART, corpus([[6, 0], [0, 6]]), alpha=[0.5, 1.5], num_splits=1)
    np.testing.assert_allclose(result.log_probability, [3 * math.log(3.5 / 5), 3 * math.log(4.5 / 5)], rtol=1e-9)
    assert "alpha as given" in str(result)


def test_mixtures_are_those_of_em_written_out():
    documents, topics = random_corpus(), random_topics()
    counts = documents.counts.toarray()
    theta = np.full((40, 3), 1 / 3)
    for _ in range(60):
        theta = 0.3 + theta * ((counts / (theta @ topics)) @ topics.T)
        theta /= theta.sum(1, keepdims=True)
    found = fold_in(topics, documents.counts, 0.3)
    np.testing.assert_allclose(found, theta, rtol=1e-9)
    rows, columns = documents.counts.nonzero()
    np.testing.assert_allclose(
        word_log_probabilities(topics, found, documents.counts), np.log(theta @ topics)[rows, columns], rtol=1e-9
    )


def test_the_order_of_topics_changes_nothing():
    documents, topics = random_corpus(), random_topics()
    turned = completion(topics[::-1], documents)
    np.testing.assert_allclose(turned.log_probability, completion(topics, documents).log_probability, rtol=1e-9)


def test_blocks_of_documents_change_nothing(monkeypatch):
    documents, topics = random_corpus(), random_topics()
    whole = completion(topics, documents, alpha=0.1).log_probability
    monkeypatch.setattr("vipack.topics.judging.folding._BLOCK", 7)
    np.testing.assert_allclose(completion(topics, documents, alpha=0.1).log_probability, whole, rtol=1e-12)


def test_a_document_without_tokens_gets_the_shares_of_alpha():
    empty = scipy.sparse.csr_array((2, 8))
    np.testing.assert_allclose(fold_in(random_topics(), empty, np.array([1.0, 2.0, 1.0])), 2 * [[0.25, 0.5, 0.25]])


def test_alpha_follows_how_mixed_the_documents_are():
    rng = np.random.default_rng(0)
    topics = np.kron(np.eye(3), np.ones(3) / 3) * 0.97 + 0.01 / 3
    pure = np.stack([rng.multinomial(40, topics[i % 3]) for i in range(60)])
    mixed = rng.multinomial(40, topics.mean(0), 60)
    low, high = (choose_alpha(topics, corpus(counts), 0) for counts in (pure, mixed))
    assert low <= 0.03
    assert high >= 1.0
    assert completion(topics, corpus(pure)).nats.value <= min(
        completion(topics, corpus(pure), alpha=alpha).nats.value for alpha in (0.3, 1.0, 3.0)
    )


def test_alpha_is_chosen_from_the_observed_half_alone(monkeypatch):
    documents, topics = random_corpus(), random_topics()
    read = []
    monkeypatch.setattr(
        "vipack.topics.judging.document_completion.choose_alpha",
        lambda *args: read.append(args[1]) or choose_alpha(*args),
    )
    result = completion(topics, documents, num_splits=1)
    ((observed, _),) = token_halves(documents, num_splits=1)
    assert set(result.alpha) <= set(ALPHAS)
    np.testing.assert_array_equal(read[0].counts.toarray(), observed.counts.toarray())
    given = completion(
        topics, documents, theta=lambda half: fold_in(topics, half.counts, result.alpha[0]), num_splits=1
    )
    np.testing.assert_allclose(given.log_probability, result.log_probability, rtol=1e-9)
    assert observed.num_tokens > documents.num_tokens - observed.num_tokens


def test_halves_are_dealt_without_loss_and_differ_between_splits():
    documents = random_corpus()
    halves = token_halves(documents, num_splits=3, seed=4)
    for observed, held_out in halves:
        np.testing.assert_array_equal((observed.counts + held_out.counts).toarray(), documents.counts.toarray())
        np.testing.assert_array_equal(held_out.lengths, documents.lengths // 2)
    assert len({half.counts.toarray().tobytes() for half, _ in halves}) == 3
    assert (token_halves(documents, seed=5)[0][0].counts != halves[0][0].counts).nnz > 0


def test_uniform_log_probabilities_have_the_perplexity_of_the_vocabulary():
    result = completion(
        None, random_corpus(), log_probability=lambda observed, held_out: np.full(held_out.counts.nnz, -math.log(8))
    )
    assert result.perplexity.value == pytest.approx(8)
    assert result.perplexity.se == pytest.approx(0, abs=1e-9)
    assert result.alpha == ()


@pytest.mark.parametrize("form", [np.asarray, torch.tensor])
def test_log_probabilities_of_a_mixture_are_scored_as_the_mixture(form):
    documents, topics = random_corpus(), random_topics()
    mixture = completion(topics, documents, alpha=0.1)
    thetas = [fold_in(topics, observed.counts, 0.1) for observed, _ in token_halves(documents)]
    dense = [form(np.log(theta @ topics)) for theta in thetas]
    sparse = [
        form(word_log_probabilities(topics, theta, held_out.counts))
        for theta, (_, held_out) in zip(thetas, token_halves(documents), strict=True)
    ]
    unnormalised = [form(5 * theta) for theta in thetas]
    for result in (
        completion(None, documents, log_probability=dense),
        completion(None, documents, log_probability=sparse),
        completion(topics, documents, theta=unnormalised),
    ):
        np.testing.assert_allclose(result.log_probability, mixture.log_probability, rtol=1e-9)
        assert abs(result.difference(mixture).nats.value) < 1e-9


@pytest.mark.parametrize(
    "form",
    [
        lambda c: c.counts,
        lambda c: c.counts.toarray(),
        lambda c: c.counts.tocoo(),
        lambda c: torch.tensor(c.counts.toarray()),
        lambda c: torch.tensor(c.counts.toarray()).to_sparse_csr(),
    ],
)
def test_counts_come_in_any_form(form):
    documents, topics = random_corpus(), random_topics()
    expected = completion(topics, documents)
    result = completion(torch.tensor(7 * topics, dtype=torch.float64), form(documents))
    np.testing.assert_allclose(result.log_probability, expected.log_probability, rtol=1e-9)
    assert result.halves == expected.halves
    assert result.titles[3] == "document 3"


@pytest.mark.parametrize(
    "form", [scipy.sparse.csr_matrix, pd.DataFrame, np.ndarray.tolist, lambda p: torch.tensor(p, requires_grad=True)]
)
def test_topics_come_in_any_form(form):
    documents, topics = random_corpus(), random_topics()
    result = completion(form(topics), documents)
    np.testing.assert_allclose(result.log_probability, completion(topics, documents).log_probability, rtol=1e-9)


def test_torchs_defaults_do_not_matter():
    documents, topics = random_corpus(), random_topics()
    expected = completion(topics, documents).log_probability
    torch.set_default_device("meta")
    try:
        np.testing.assert_array_equal(completion(topics, documents).log_probability, expected)
    finally:
        torch.set_default_device(None)


def test_the_standard_error_is_the_jackknifes():
    values, sizes = np.array([3.0, 1.0, 7.0, 2.0]), np.array([2.0, 1.0, 5.0, 4.0])
    without = [(values.sum() - values[i]) / (sizes.sum() - sizes[i]) for i in range(4)]
    assert rate(values, sizes).se == pytest.approx(math.sqrt(3 / 4 * sum((w - np.mean(without)) ** 2 for w in without)))
    assert rate(values, np.ones(4)).se == pytest.approx(values.std(ddof=1) / 2)
    assert math.isnan(rate(values[:1], sizes[:1]).se)


def test_standard_errors_cover_the_spread_between_corpora():
    rng, topics = np.random.default_rng(3), random_topics()
    results = []
    for _ in range(60):
        lengths = rng.geometric(0.1, 50) + 1
        counts = np.stack([rng.multinomial(n, rng.dirichlet(np.ones(3)) @ topics) for n in lengths])
        results.append(completion(topics, corpus(counts), alpha=0.5, num_splits=1).nats)
    spread, claimed = np.std([r.value for r in results], ddof=1), np.mean([r.se for r in results])
    assert 0.7 < claimed / spread < 1.4  # the spread of 60 has a relative standard error of 9%


def test_a_difference_is_paired():
    documents = corpus([[4, 0], [0, 2], [3, 3]])
    first = completion(None, documents, log_probability=lambda _, h: np.full(h.counts.nnz, math.log(0.5)))
    second = completion(None, documents, log_probability=lambda _, h: np.full(h.counts.nnz, math.log(0.25)))
    gap = first.difference(second)
    assert gap.nats.value == pytest.approx(math.log(2))
    assert gap.nats.se == pytest.approx(0, abs=1e-12)  # the same for every token, however much the documents differ
    assert gap.perplexity_ratio == pytest.approx(0.5)
    assert second.difference(first).nats.value == pytest.approx(-math.log(2))


def test_a_difference_has_the_error_of_its_documents():
    documents, topics = random_corpus(), random_topics()
    one, two = completion(topics, documents), completion(topics[:2], documents)
    gap = one.log_probability - two.log_probability
    scored = one.num_tokens > 0
    expected = rate(gap[scored], one.num_tokens[scored])
    assert one.difference(two).nats == expected
    assert f"{scored.sum()} documents" in str(one.difference(two))


def test_a_difference_says_better_or_worse():
    documents, topics = random_corpus(), random_topics()
    one, two = completion(topics, documents), completion(topics[:1], documents)
    better, worse = sorted([one, two], key=lambda each: each.nats.value)
    assert "nats a token better (" in str(better.difference(worse))
    assert "nats a token worse (" in str(worse.difference(better))
    assert "standard errors" not in str(one.difference(one))


def test_models_are_compared_with_the_best():
    documents = random_corpus()
    completions = {f"K = {k}": completion(random_topics(k), documents) for k in (1, 2, 5)}
    table = compare_completions(completions)
    assert table.perplexity.is_monotonic_increasing
    best = completions[table.index[0]]
    assert table.behind.iloc[0] == 0
    assert table.behind.iloc[2] == pytest.approx(best.difference(completions[table.index[2]]).nats.value)
    assert table.behind_se.iloc[2] == pytest.approx(best.difference(completions[table.index[2]]).nats.se)


@pytest.mark.parametrize(
    ("completions", "message"),
    [({}, "at least one name"), ([1], "at least one name"), ({"a": 3}, "'a' is of type int")],
)
def test_what_is_no_completion_is_not_compared(completions, message):
    with pytest.raises(UsageError, match=message):
        compare_completions(completions)


def test_new_words_are_those_that_the_observed_half_has_not():
    documents, topics = random_corpus(), random_topics()
    result = completion(topics, documents, alpha=0.1)
    new = []
    for observed, held_out in token_halves(documents):
        theta = fold_in(topics, observed.counts, 0.1)
        kept = np.where(observed.counts.toarray() == 0, held_out.counts.toarray(), 0)
        new.append([(kept * np.log(theta @ topics)).sum(1), kept.sum(1)])
    expected, tokens = np.mean(new, axis=0)
    np.testing.assert_allclose(result.new_log_probability, expected, rtol=1e-9)
    np.testing.assert_allclose(result.num_new_tokens, tokens)
    assert result.perplexity_of_new_words.value == pytest.approx(math.exp(-expected.sum() / tokens.sum()))


def test_documents_of_one_word_have_no_new_ones():
    result = completion(APART, corpus([[4, 0], [0, 4]]))
    assert math.isnan(result.perplexity_of_new_words.value)
    assert "nan" not in str(result)


def test_a_frame_of_counts_names_words_and_documents():
    frame = pd.DataFrame([[4, 0], [0, 0]], columns=["ape", "bee"], index=["first", "second"])
    assert completion([[0.8, 0.2]], frame).left_out == ("second",)
    with pytest.raises(DataError, match="'ape' occurs twice"):
        completion([[0.8, 0.2]], frame.set_axis(["ape", "ape"], axis=1))


def test_a_mixture_may_be_a_nested_list():
    result = completion(APART, corpus([[4, 0], [0, 2]]), theta=[[0.5, 0.5], [0.25, 0.75]])
    np.testing.assert_allclose(result.log_probability, [2 * math.log(0.5), math.log(0.75)], rtol=1e-9)


@pytest.mark.parametrize("options", [{"seed": 1}, {"num_splits": 2}])
def test_scores_of_other_halves_are_not_compared(options):
    documents, topics = random_corpus(), random_topics()
    with pytest.raises(UsageError, match="same corpus, seed and num_splits"):
        completion(topics, documents).difference(completion(topics, documents, **options))


def test_documents_that_cannot_be_halved_are_named_and_left_out():
    documents = corpus([[4, 0], [0, 0], [1, 0], [0, 2]])
    result = completion(APART, documents, alpha=0.1)
    assert result.left_out == ("text 1", "text 2")
    assert "left out, with fewer than two tokens: 2 (text 1, text 2)" in str(result)
    assert np.isnan(result.log_probability).tolist() == [False, True, True, False]
    shorter = completion(APART, documents.take([0, 3]), alpha=0.1)
    assert result.nats.value == pytest.approx(shorter.nats.value)
    assert result.to_frame().loc["text 1", "tokens"] == 0


def test_a_handed_in_mixture_of_an_empty_document_is_not_looked_at():
    theta = np.array([[1.0, 0.0], [np.nan, np.nan]])
    result = completion([[0.8, 0.2], [0.2, 0.8]], corpus([[4, 0], [0, 0]]), theta=theta)
    assert result.num_splits == 1
    np.testing.assert_allclose(result.log_probability[0], 2 * math.log(0.8))


def test_words_that_no_topic_knows_are_warned_of():
    with pytest.warns(TrustWarning, match=r"2 held-out tokens \(50\.00%\).*27\.6 nats"):
        result = completion([[1.0, 0.0]], corpus([[4, 0], [0, 4]]))
    np.testing.assert_allclose(result.log_probability, [0, 2 * math.log(1e-12)], atol=1e-9)


TOPICS = np.full((2, 8), 0.5)


def topics_with(value):
    changed = TOPICS.copy()
    changed[1, 3] = value
    return changed


@pytest.mark.parametrize(
    ("topics", "error", "message"),
    [
        (np.ones((2, 7)), ShapeError, r"shape \(2, 7\), expected \(K, 8\).*with_vocabulary"),
        (np.ones((8, 2)), ShapeError, "transpose it"),
        (np.ones(8), ShapeError, "one row a topic"),
        (topics_with(np.nan), DataError, "1 NaN or infinite weights, the first nan of word 3 in topic 1"),
        (topics_with(np.inf), DataError, "NaN or infinite"),
        (topics_with(-0.5), DataError, "1 negative weights.*exp of log probabilities"),
        (np.stack([np.ones(8), np.zeros(8)]), DataError, "topic 1 gives no word any weight"),
        (np.full((2, 8), "a"), DataError, "of numbers"),
    ],
)
def test_topics_that_are_none_are_refused(topics, error, message):
    with pytest.raises(error, match=message):
        completion(topics, random_corpus())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"alpha": 0.0}, UsageError, "positive numbers, found 0"),
        ({"alpha": [1.0, 2.0, 3.0]}, UsageError, "one for each of 2 topics"),
        ({"alpha": "auto"}, UsageError, "alpha"),
        ({"theta": np.ones((3, 2))}, ShapeError, r"shape \(3, 2\), expected \(40, 2\)"),
        ({"theta": np.full((40, 2), -1.0)}, DataError, "the first 'text 0'"),
        ({"theta": [np.ones((40, 2))], "num_splits": 2}, UsageError, "2 for 1 arrays"),
        ({"theta": np.ones((40, 2)), "alpha": 0.1}, UsageError, "one of alpha, theta"),
        ({"num_splits": 0}, UsageError, "num_splits"),
        ({"seed": -1}, UsageError, "seed"),
        ({"splits": 3}, SignatureError, "num_splits"),
    ],
)
def test_options_that_cannot_be_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        completion(TOPICS, random_corpus(), **options)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (lambda h: np.zeros(3), ShapeError, "one for each entry"),
        (lambda h: np.full(h.counts.nnz, -np.inf), DataError, "-inf for the word"),
        (lambda h: np.full(h.counts.nnz, np.nan), DataError, "nan for the word"),
        (lambda h: np.full(h.counts.nnz, -0.01), DataError, "at most 1"),
        (lambda h: np.full(h.counts.nnz, 0.1), DataError, "at most 1"),
        (lambda h: np.full((40, 8), -1.0), DataError, "sums to 2.94, expected 1; pass log_softmax"),
    ],
)
def test_what_is_no_log_probability_is_refused(value, error, message):
    with pytest.raises(error, match=message):
        completion(None, random_corpus(), log_probability=lambda observed, held_out: value(held_out))


def test_topics_or_log_probabilities_are_needed():
    with pytest.raises(UsageError, match="either topics"):
        completion(None, random_corpus())
    with pytest.raises(UsageError, match="either topics"):
        completion(TOPICS, random_corpus(), log_probability=lambda observed, held_out: None)


def test_documents_of_one_token_alone_are_refused():
    with pytest.raises(DataError, match="no document has two tokens"):
        completion(APART, corpus([[1, 0], [0, 1]]))


@pytest.mark.parametrize(
    ("counts", "message"), [([[-1, 2]], "count -1"), ([[0.5, 2]], "count 0.5"), ([3, 4], r"\(D, V\)")]
)
def test_counts_that_are_none_are_refused(counts, message):
    with pytest.raises(DataError, match=message):
        completion(APART, np.array(counts))


@pytest.mark.parametrize(
    ("value", "se", "text"),
    [
        (0.01402, 0.00404, "0.0140 ± 0.0040"),
        (2163.8, 32.2, "2,164 ± 32"),
        (7.1, 0.96, "7.10 ± 0.96"),
        (8.0, 0.0, "8"),
        (1.23456, math.nan, "1.235"),
        (math.nan, 1.0, "nan"),
    ],
)
def test_an_error_decides_how_many_decimals_are_shown(value, se, text):
    assert with_error(value, se) == text
