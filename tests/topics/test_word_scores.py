import numpy as np
import pytest

from tests.topics.models import random_model
from vipack.topics.model_arrays import topic_model
from vipack.topics.word_scores import LAMBDAS, expected_tokens, frex, relevance, relevant_words


def test_tokens_are_divided_as_the_mixture_says():
    model = topic_model(*random_model())
    counts = model.corpus.counts.toarray()
    responsibility = model.theta[:, :, None] * model.topics[None]
    responsibility /= responsibility.sum(1, keepdims=True)
    np.testing.assert_allclose(expected_tokens(model), (counts[:, None] * responsibility).sum(0), rtol=1e-10)


def test_no_token_is_lost_or_counted_twice(monkeypatch):
    """Nor where the documents are divided into many blocks, or no topic knows a word."""
    monkeypatch.setattr("vipack.topics.word_scores._MOST_WEIGHTS", 500)
    topics, theta, corpus = random_model()
    topics[:, 3] = 0
    model = topic_model(topics / topics.sum(1, keepdims=True), theta, corpus)
    np.testing.assert_allclose(expected_tokens(model).sum(0), corpus.counts.sum(axis=0), rtol=1e-10)


@pytest.mark.parametrize("weight", [0.0, 0.6, 1.0])
def test_the_words_of_a_stop_are_those_of_the_formula(weight):
    topics, _, corpus = random_model()
    marginal = np.asarray(corpus.counts.sum(axis=0)) + 0.5
    marginal = marginal / marginal.sum()
    score = topics[2] ** weight * (topics[2] / marginal) ** (1 - weight)
    orders = relevant_words(np.log(topics[2]), np.log(topics[2] / marginal), 7)
    stop = int(np.abs(LAMBDAS - weight).argmin())
    assert orders[stop].tolist() == np.argsort(-score)[:7].tolist()


def test_words_without_probability_are_never_relevant():
    logs = np.log(np.array([0.5, 0.5, 1e-300, 0.25])) + np.array([0, 0, -np.inf, 0])
    assert (relevance(logs, logs + 1, 0.0)[2], relevance(logs, logs + 1, 1.0)[2]) == (-np.inf, -np.inf)
    assert all(2 not in order for order in relevant_words(logs, logs + 1, 4))


def test_frex_is_the_harmonic_mean_of_two_ranks():
    topics = np.array([[0.6, 0.3, 0.1], [0.6, 0.1, 0.3]])
    # Of topic 0: frequency ranks 1, 2/3, 1/3; exclusivity .5, .75, .25 ranks 2/3, 1, 1/3.
    np.testing.assert_allclose(frex(topics)[0], [2 / (1 + 3 / 2), 2 / (3 / 2 + 1), 1 / 3])
