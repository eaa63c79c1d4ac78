import time

import numpy as np
import pytest

from vipack.datasets import word_counting
from vipack.datasets.word_counting import WordCounts, occurrences, tokenize, tokens_of, words_of_token


def counted(texts, ngrams=(1, 1), min_documents=1):
    counts = WordCounts(words_of_token, lambda word: len(word) > 2, ngrams)
    for text in texts:
        counts.add(tokens_of(text))
    matrix, vocabulary = counts.finish(min_documents)
    return matrix.toarray(), vocabulary


@pytest.mark.parametrize("ngrams", [(1, 1), (1, 3), (2, 2)])
def test_long_texts_are_counted_piece_by_piece_with_the_runs_across(monkeypatch, ngrams):
    texts = ["ape bee cat l'air ape bee, dog " * 40, "bee", "", "über ape bee " * 30]
    whole, words = counted(texts, ngrams)
    for size in (7, 50):
        monkeypatch.setattr(word_counting, "_PIECE", size)
        pieces, same = counted(texts, ngrams)
        assert same == words
        np.testing.assert_array_equal(pieces, whole)
        assert tokenize(texts[0], 1) == ["ape", "bee", "cat", "l", "air", "ape", "bee", "dog"] * 40


def test_blocks_join_without_a_seam(monkeypatch):
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice([f"w{c}x" for c in "abcdefgh"], n)) for n in rng.integers(0, 9, 60)]
    whole, words = counted([*texts, "rare"], min_documents=2)
    monkeypatch.setattr(word_counting, "_BLOCK", 7)
    blocks, same = counted([*texts, "rare"], min_documents=2)
    assert same == words
    assert "rare" not in words
    np.testing.assert_array_equal(blocks, whole)
    numbers = rng.integers(0, 9, 100)
    np.testing.assert_array_equal(occurrences(numbers, 12), np.bincount(numbers, minlength=12))


def test_where_no_word_is_in_enough_documents_all_are_given():
    assert counted(["ape", "bee"], min_documents=2)[1] == ("ape", "bee")


def test_time_grows_with_the_length_of_a_text():
    def seconds(count):
        begin = time.process_time()
        assert counted(["café naïve plain " * count])[0].sum() == 3 * count
        return time.process_time() - begin

    seconds(10_000)
    assert seconds(400_000) < 40 * max(seconds(40_000), 0.01)  # ten times the text; a hundred if quadratic
