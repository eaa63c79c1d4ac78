"""Topics as rows of probabilities, and the words that lead them."""

import numpy as np
import pytest
import torch

from vipack.errors import DataError, UsageError
from vipack.topics.judging.topic_words import as_corpus, leading_words, word_probabilities


@pytest.mark.parametrize("form", [np.asarray, torch.tensor, np.ndarray.tolist])
def test_weights_become_rows_that_sum_to_1(form):
    np.testing.assert_allclose(
        word_probabilities(form(np.array([[1e-20, 3e-20], [6.0, 2.0]]))), [[0.25, 0.75], [0.75, 0.25]]
    )


def test_the_users_array_is_left_alone():
    weights = np.array([[1.0, 3.0]])
    word_probabilities(weights)
    assert weights.tolist() == [[1.0, 3.0]]


def test_words_of_equal_weight_lead_in_the_order_of_the_columns():
    assert leading_words(np.array([[0.2, 0.3, 0.2, 0.3]]), 3).tolist() == [[1, 3, 0]]


def test_a_word_without_weight_leads_nothing():
    with pytest.raises(UsageError, match="topic 1 of runs gives weight to 1 words only"):
        leading_words(np.array([[0.5, 0.5], [1.0, 0.0]]), 2, name="runs")


def test_the_first_fault_is_shown():
    with pytest.raises(DataError, match="run 3: 2 negative weights, the first -1 of word 1 in topic 0"):
        word_probabilities([[1.0, -1.0], [-2.0, 1.0]], name="run 3")


def test_a_matrix_gets_numbers_for_words():
    corpus = as_corpus(np.eye(2))
    assert corpus.vocabulary == ("0", "1")
    assert corpus.titles == ("document 0", "document 1")
    assert as_corpus(corpus) is corpus
