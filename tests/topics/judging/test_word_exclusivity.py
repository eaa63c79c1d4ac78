"""Diversity, FREX and exclusivity, computed by hand."""

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from vipack.errors import DataError, UsageError
from vipack.topics import diversity, exclusivity, frex

# The first topic ranks words 1, 2, 3 by frequency, and 2, 1, 3 by exclusivity: .6 / 1.1, .3 / .35, .1 / .55.
TOPICS = np.array([[0.6, 0.3, 0.1], [0.5, 0.05, 0.45]])


def test_frex_is_the_harmonic_mean_of_two_ranks():
    np.testing.assert_allclose(frex(TOPICS)[0], [0.8, 0.8, 1 / 3])
    np.testing.assert_allclose(frex(TOPICS, weight=0.7)[0], [1 / 1.35, 1 / 1.15, 1 / 3])
    np.testing.assert_allclose(frex(TOPICS, weight=1.0)[0], [2 / 3, 1.0, 1 / 3])
    np.testing.assert_allclose(frex(TOPICS, weight=0.0)[0], [1.0, 2 / 3, 1 / 3])


def test_exclusivity_sums_it_over_the_most_probable_words():
    np.testing.assert_allclose(exclusivity(TOPICS, num_words=2)[0], 1 / 1.35 + 1 / 1.15)
    np.testing.assert_allclose(exclusivity(TOPICS, num_words=1, weight=0.5)[0], 0.8)


def test_exclusivity_is_the_sum_written_out():
    topics = np.random.default_rng(0).dirichlet(np.full(30, 0.3), 4)
    shares = topics / topics.sum(0)
    for row, found in enumerate(exclusivity(topics)):
        exclusive, frequent = rankdata(shares[row]) / 30, rankdata(topics[row]) / 30
        best = np.argsort(-topics[row])[:10]
        assert found == pytest.approx(sum(1 / (0.7 / exclusive[i] + 0.3 / frequent[i]) for i in best))


def test_topics_with_words_of_their_own_are_more_exclusive():
    apart = np.kron(np.eye(2), np.arange(5, 0, -1)) + 0.01
    alike = np.tile(np.arange(10, 0, -1), (2, 1)) + 0.01 * np.random.default_rng(0).random((2, 10))
    assert exclusivity(apart, num_words=3).min() > exclusivity(alike, num_words=3).max()


def test_weights_need_not_be_normalised():
    topics = np.random.default_rng(0).dirichlet(np.ones(30), 3)
    scaled = torch.tensor(topics * [[3.0], [50.0], [0.1]])
    np.testing.assert_allclose(frex(scaled), frex(topics))
    np.testing.assert_allclose(exclusivity(scaled), exclusivity(topics))


def test_a_word_that_no_topic_uses_is_not_exclusive():
    scores = frex(np.hstack([TOPICS, np.zeros((2, 1))]))
    assert np.isfinite(scores).all()
    assert (scores[:, 3] == 0.25).all()


def test_diversity_is_the_share_of_different_words():
    assert diversity(np.eye(4) + 0.01, num_words=1) == 1.0
    assert diversity(TOPICS, num_words=1) == 0.5
    assert diversity(TOPICS, num_words=2) == 0.75


@pytest.mark.parametrize("weight", [-0.1, 1.1, "half", True])
def test_a_weight_outside_0_to_1_is_refused(weight):
    with pytest.raises(UsageError, match="weight"):
        frex(TOPICS, weight=weight)


def test_more_words_than_there_are_are_refused():
    with pytest.raises(UsageError, match="num_words"):
        diversity(TOPICS)
    with pytest.raises(DataError, match="negative"):
        exclusivity(-TOPICS)
