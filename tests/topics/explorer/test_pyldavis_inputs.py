import numpy as np
import pytest

from tests.topics.models import random_model
from vipack.errors import ShapeError, UsageError
from vipack.topics import to_pyldavis


def test_arguments_of_prepare_agree_with_the_corpus():
    topics, theta, corpus = random_model()
    given = to_pyldavis(topics, theta, corpus)
    assert set(given) == {"topic_term_dists", "doc_topic_dists", "doc_lengths", "vocab", "term_frequency"}
    counts = corpus.counts.toarray()
    used = counts.sum(0) > 0
    assert given["vocab"] == [word for word, kept in zip(corpus.vocabulary, used, strict=True) if kept]
    np.testing.assert_array_equal(given["term_frequency"], counts.sum(0)[used])
    np.testing.assert_array_equal(given["doc_lengths"], counts.sum(1))
    np.testing.assert_allclose(given["topic_term_dists"].sum(1), 1)
    np.testing.assert_allclose(given["doc_topic_dists"], theta)


def test_words_that_do_not_occur_are_left_out():
    topics, theta, corpus = random_model()
    wider = corpus.with_vocabulary(["unseen", *corpus.vocabulary])
    more = np.column_stack([np.full(len(topics), 0.5), topics / 2])
    one, two = to_pyldavis(more, theta, wider), to_pyldavis(topics, theta, corpus)
    assert one["vocab"] == two["vocab"]
    np.testing.assert_allclose(one["topic_term_dists"], two["topic_term_dists"])
    more[2] = np.eye(len(wider.vocabulary))[0]
    with pytest.raises(UsageError, match="topic 2 has no probability of any word that occurs in random"):
        to_pyldavis(more, theta, wider)


def test_weights_of_topics_are_refused_with_the_cure():
    topics, theta, corpus = random_model()
    with pytest.raises(UsageError, match=r"topics: row \d sums to 7.*pass topics / topics.sum"):
        to_pyldavis(7 * topics, theta, corpus)
    with pytest.raises(ShapeError, match=r"theta: shape \(39, 5\), expected \(40, 5\)"):
        to_pyldavis(topics, theta[:-1], corpus)
    with pytest.raises(UsageError, match=r"corpus: expected a vipack.datasets.Corpus, found list"):
        to_pyldavis(topics, theta, [])
