import numpy as np
import pytest

from vipack.datasets import TextRules, corpus_from_texts
from vipack.datasets.stopwords import DOCSTRING_BOILERPLATE, ENGLISH
from vipack.datasets.words import tokenize
from vipack.errors import DataError, UsageError

ALL = TextRules(stop_words=frozenset(), min_documents=1, max_fraction=1.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The cat, THE hat!", ["the", "cat", "the", "hat"]),
        ("go to a spa", ["spa"]),
        ("mp3 num_steps __init__ covid19 x86 plain", ["plain"]),
        ("the dog's bone isn't here", ["the", "dog", "bone", "here"]),
        ("the dog\N{RIGHT SINGLE QUOTATION MARK}s 'quoted' word", ["the", "dog", "quoted", "word"]),
        ("naïve Café, größer", ["naïve", "café", "größer"]),
        ("mean-field and/or sum(values)", ["mean", "field", "and", "sum", "values"]),
        ("1234 -- !!", []),
    ],
)
def test_words_are_runs_of_letters(text, words):
    assert tokenize(text) == words


def test_words_are_counted_in_alphabetical_columns():
    corpus = corpus_from_texts(["bee cat bee", "ape cat"], ["one", "two"], rules=ALL)
    assert corpus.vocabulary == ("ape", "bee", "cat")
    assert corpus.titles == ("one", "two")
    np.testing.assert_array_equal(corpus.counts.toarray(), [[0, 2, 1], [1, 0, 1]])


def test_a_generator_of_texts_is_read_once():
    assert corpus_from_texts((t for t in ["ape bee", "bee cat"]), rules=ALL).titles == ("0", "1")


def test_stop_words_and_limits_apply():
    texts = ["the ape and the bee", "the ape and a cat", "a gnu", "ape ape"]
    corpus = corpus_from_texts(texts, rules=TextRules(min_documents=2, max_fraction=1.0))
    assert corpus.vocabulary == ("ape",)
    assert corpus.titles == ("0", "1", "3")


def test_the_lists_of_stop_words_are_words_that_can_occur():
    for word in ENGLISH | DOCSTRING_BOILERPLATE:
        assert tokenize(word) == [word]
    assert "the" in ENGLISH
    assert "arguments" in DOCSTRING_BOILERPLATE


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "no texts"),
        ("one string", "give a list of texts"),
        (["fine", None], r"texts\[1\]: found NoneType, expected a string"),
        (["a b", "1 2"], "no words in 2 texts"),
        (["ape", "bee"], "nothing is left of 2 documents"),
    ],
)
def test_texts_without_words_are_refused(texts, message):
    with pytest.raises(DataError, match=message):
        corpus_from_texts(texts)


def test_titles_must_be_one_each():
    with pytest.raises(DataError, match="1 titles for 2 rows"):
        corpus_from_texts(["ape", "bee"], ["one"], rules=ALL)


@pytest.mark.parametrize(
    ("option", "value"),
    [("stop_words", "the"), ("min_letters", 0), ("min_documents", 0), ("max_fraction", 0.0), ("max_words", 0)],
)
def test_rules_out_of_range_are_refused(option, value):
    with pytest.raises(UsageError, match=f"^{option}: expected"):
        TextRules(**{option: value})
