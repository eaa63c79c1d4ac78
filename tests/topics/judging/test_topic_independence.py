"""Words and documents within topics: information written out, and topics that are right or stand for two themes."""

import numpy as np
import pytest

from vipack.datasets import Corpus
from vipack.errors import DataError, ShapeError, UsageError
from vipack.topics import check_independence
from vipack.topics.judging.topic_independence import _Table

V = 20
TRUE = 0.96 * np.kron(np.eye(4), np.full(5, 0.2)) + 0.04 / V


def corpus(counts):
    counts = np.asarray(counts)
    words = [f"w{i}" for i in range(counts.shape[1])]
    return Corpus("made", counts, words, [f"d{i}" for i in range(len(counts))], "a test", "none")


def drawn(num_documents=200, seed=0):
    rng = np.random.default_rng(seed)
    return corpus(np.stack([rng.multinomial(40, rng.dirichlet(np.full(4, 0.2)) @ TRUE) for _ in range(num_documents)]))


def test_information_is_that_of_the_table_written_out():
    counts = np.random.default_rng(0).poisson(1.0, (6, 4))  # of one topic
    table = _Table((1, 4))
    rows, columns = counts.nonzero()
    table.add(0, rows, columns, counts[rows, columns])
    p = counts / counts.sum()
    by_document, by_word = p.sum(1), p.sum(0)
    total, of_words = table.information(np.array([[2, 0]]))
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.nansum(p * np.log(p / np.outer(by_document, by_word)))
        conditional = -np.nansum(p / by_word * np.log(p / by_word), 0)
    assert total[0] == pytest.approx(expected)
    entropy = -(by_document * np.log(by_document)).sum()
    np.testing.assert_allclose(of_words[0], (entropy - conditional)[[2, 0]])
    assert (by_word * (entropy - conditional)).sum() == pytest.approx(expected)


def test_blocks_of_documents_add_up(monkeypatch):
    counts = np.random.default_rng(0).poisson(1.0, (6, 4))
    whole, pieces = _Table((1, 4)), _Table((1, 4))
    for table, blocks in ((whole, [counts]), (pieces, [counts[:2], counts[2:]])):
        for block in blocks:
            rows, columns = block.nonzero()
            table.add(0, rows, columns, block[rows, columns])
    for one, other in zip(whole.information(np.array([[1]])), pieces.information(np.array([[1]])), strict=True):
        np.testing.assert_allclose(one, other)


def test_topics_that_made_the_documents_are_not_found_wrong():
    deviations = np.concatenate(
        [check_independence(TRUE, drawn(seed=s), alpha=0.2, num_words=5).deviation for s in range(5)]
    )
    assert abs(deviations.mean()) < 0.6  # of 20, with an sd of at most 1 each, and less where draws average it out
    assert np.abs(deviations).max() < 3.0


def test_a_topic_of_two_themes_deviates_most():
    merged = np.stack([TRUE[0], TRUE[1], TRUE[2:].mean(0)])
    result = check_independence(merged, drawn(), num_words=10)
    assert result.deviation.argmax() == 2
    assert result.deviation[2] > 10
    assert result.pvalues[2] == pytest.approx(1 / 21)
    assert result.tokens.sum() == pytest.approx(200 * 40)
    assert "topic 2:" in str(result).splitlines()[1]
    assert result.to_frame().loc[2, "information"] > result.to_frame().loc[2, "replicated"]


def test_a_word_that_comes_in_bursts_deviates_most():
    documents = drawn()
    counts = documents.counts.toarray()
    rng = np.random.default_rng(1)
    total, lucky = counts[:, 3].sum(), rng.permutation(200)
    counts[:, 3] = 0
    counts[lucky[: int(total) // 20], 3] = 20
    result = check_independence(TRUE, corpus(counts), num_words=5)
    assert result.words[0][int(np.nanargmax(result.word_deviation[0]))] == "w3"
    assert result.to_frame().loc[0, "words"].startswith("w3 ")


def test_a_topic_that_no_token_has_deviates_in_nothing():
    unused = np.vstack([TRUE[:1], np.eye(V)[-1:] + 1e-9])
    counts = np.zeros((4, V), int)
    counts[:, :5] = 3
    result = check_independence(unused, corpus(counts), alpha=0.1, num_words=2)
    assert result.tokens[1] == 0
    assert result.pvalues[1] == 1.0
    assert "in 0 of 2 topics" in str(result)


def test_documents_in_blocks_give_the_same(monkeypatch):
    whole = check_independence(TRUE, drawn(20), num_words=5, num_draws=3)
    monkeypatch.setattr("vipack.topics.judging.topic_independence._BLOCK", 7)
    blocks = check_independence(TRUE, drawn(20), num_words=5, num_draws=3)
    np.testing.assert_allclose(blocks.information, whole.information)
    np.testing.assert_allclose(blocks.tokens, whole.tokens)


def test_a_seed_decides_it():
    one, two, other = (
        check_independence(TRUE, drawn(20), num_words=5, num_draws=3, seed=seed).information for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


@pytest.mark.parametrize(
    ("topics", "documents", "options", "error", "message"),
    [
        (TRUE[:, 1:], drawn(3), {}, ShapeError, r"expected \(K, 20\)"),
        (-TRUE, drawn(3), {}, DataError, "negative"),
        (TRUE, np.zeros((2, V)), {}, DataError, "no document has any words"),
        (TRUE, drawn(3), {"num_draws": 1}, UsageError, "num_draws"),
        (TRUE, drawn(3), {"alpha": -1}, UsageError, "alpha"),
    ],
)
def test_what_cannot_be_checked_is_refused(topics, documents, options, error, message):
    with pytest.raises(error, match=message):
        check_independence(topics, documents, **options)
