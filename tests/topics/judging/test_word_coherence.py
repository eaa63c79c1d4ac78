"""NPMI of leading words, on corpora whose probabilities are plain fractions."""

import math

import numpy as np
import pytest
import scipy.sparse
import torch

from vipack.datasets import Corpus
from vipack.errors import DataError, ShapeError, UsageError
from vipack.topics import coherence

# a and b together in half of the documents; c independent of a; d never with a; e in all of them.
COUNTS = np.array([[2, 1, 1, 0, 1], [1, 3, 0, 0, 1], [0, 0, 1, 1, 5], [0, 0, 0, 2, 1]])
PAIRS = {"ab": 1.0, "ac": 0.0, "ad": -1.0, "ae": 0.0}


def corpus(counts=COUNTS):
    return Corpus("zoo", counts, tuple("abcde"), tuple(map(str, range(len(counts)))), "a test", "none")


def topic(words):
    return [1.0 - 0.1 * words.index(word) if word in words else 0.01 for word in "abcde"]


@pytest.mark.parametrize("pair", PAIRS)
def test_pairs_of_words(pair):
    result = coherence([topic(pair)], corpus(), num_words=2)
    assert result.npmi[0] == pytest.approx(PAIRS[pair], abs=1e-12)
    assert result.words == (tuple(pair),)
    assert result.never_together.tolist() == [int(pair == "ad")]


def test_partial_association():
    # P(a) = 1/2, P(c) = 1/2, both in 2 of 5 documents
    counts = np.array([[1, 0, 1, 0, 0], [1, 0, 1, 0, 0], [1, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 1, 0, 0, 0]])
    result = coherence([topic("ac")], corpus(counts), num_words=2)
    assert result.mean == pytest.approx(math.log(0.4 / 0.36) / -math.log(0.4))


def test_words_of_every_document_say_nothing():
    assert coherence([topic("ae")], corpus(COUNTS + np.array([1, 0, 0, 0, 0])), num_words=2).npmi.tolist() == [0.0]


def test_a_topic_is_the_mean_of_its_pairs():
    result = coherence([topic("abd"), topic("ab")], corpus(), num_words=3)
    assert result.npmi[0] == pytest.approx((1.0 - 1.0 - 1.0) / 3)
    assert result.never_together[0] == 2
    assert result.to_frame().loc[0, "words"] == "a b d"
    assert result.mean == pytest.approx(result.npmi.mean())


def test_how_often_a_word_occurs_in_a_document_does_not_count():
    topics = [topic("abc"), topic("cde")]
    np.testing.assert_allclose(
        coherence(topics, corpus(), num_words=3).npmi, coherence(topics, corpus(COUNTS > 0), num_words=3).npmi
    )


def test_documents_without_words_are_left_out():
    padded = np.vstack([COUNTS, np.zeros((3, 5), int)])
    topics = [topic("abc")]
    result = coherence(topics, corpus(padded), num_words=3)
    assert result.num_documents == 4
    np.testing.assert_allclose(result.npmi, coherence(topics, corpus(), num_words=3).npmi)


def test_words_that_never_occur_count_as_never_together():
    assert coherence([topic("ab")], corpus(COUNTS * [1, 0, 1, 1, 1]), num_words=2).npmi.tolist() == [-1.0]


@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_matrix, scipy.sparse.coo_array, torch.tensor])
def test_counts_and_topics_come_in_any_form(form):
    result = coherence(torch.tensor([topic("abc")]), form(COUNTS), num_words=3)
    np.testing.assert_allclose(result.npmi, coherence([topic("abc")], corpus(), num_words=3).npmi)
    assert result.words == (("0", "1", "2"),)


def test_the_text_names_the_lowest_topic():
    text = str(coherence([topic("ab"), topic("ad")], corpus(), num_words=2))
    assert "NPMI 0.000, mean over 2 topics" in text
    assert "1 of 2 pairs are never together" in text
    assert "lowest: topic 1 -1.000 a d" in text


@pytest.mark.parametrize(
    ("topics", "num_words", "error", "message"),
    [
        (np.ones((2, 4)), 2, ShapeError, r"expected \(K, 5\)"),
        ([topic("ab")], 1, UsageError, "num_words"),
        ([topic("ab")], 6, UsageError, "gives weight to 5 words"),
        ([[1.0, 1.0, 0.0, 0.0, 0.0]], 3, UsageError, "topic 0 of topics gives weight to 2 words"),
        ([[np.nan, 1.0, 0.0, 0.0, 0.0]], 2, DataError, "NaN"),
    ],
)
def test_what_has_no_leading_words_is_refused(topics, num_words, error, message):
    with pytest.raises(error, match=message):
        coherence(topics, corpus(), num_words=num_words)


def test_a_corpus_without_words_is_refused():
    with pytest.raises(DataError, match="no document has any words"):
        coherence([topic("ab")], corpus(np.zeros((2, 5), int)), num_words=2)
