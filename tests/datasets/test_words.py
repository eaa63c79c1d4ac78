import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from vipack.datasets import TextRules, corpus_from_texts
from vipack.datasets.stopwords import DOCSTRING_BOILERPLATE, ENGLISH
from vipack.datasets.word_counting import tokenize
from vipack.errors import DataError, DataWarning, UsageError

ALL = TextRules(stop_words=frozenset(), min_documents=1, max_fraction=1.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The cat, THE hat!", ["the", "cat", "the", "hat"]),
        ("go to a spa", ["spa"]),
        ("L'économie d\N{RIGHT SINGLE QUOTATION MARK}abord, qu'elle", ["économie", "abord", "elle"]),
        ("we're I'd don't y'all rock'n'roll", ["all", "rock", "roll"]),
        ("hi\N{EM DASH}there\N{RIGHT DOUBLE QUOTATION MARK}end\N{NO-BREAK SPACE}now", ["there", "end", "now"]),
        ("cafe\N{COMBINING ACUTE ACCENT} हिन्दी", ["café", "हिन्दी"]),
        ("кот Собака", ["кот", "собака"]),
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
    with pytest.warns(DataWarning, match="1 of 4 documents have no word left.*'2'"):
        corpus = corpus_from_texts(texts, rules=TextRules(min_documents=2, max_fraction=1.0))
    assert corpus.vocabulary == ("ape",)
    assert corpus.titles == ("0", "1", "3")


def test_the_lists_of_stop_words_are_words_that_can_occur():
    for word in ENGLISH | DOCSTRING_BOILERPLATE:
        assert tokenize(word, 1) == [word]
    assert {"the", "of", "a"} <= ENGLISH
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
    [
        ("stop_words", None),
        ("stop_words", b"the"),
        ("min_letters", 0),
        ("min_documents", 0),
        ("max_fraction", 0.0),
        ("max_words", 0),
        ("min_tokens", -1),
        *(("ngrams", each) for each in [(0, 1), (2, 1), (1,), 2, (1, 2.0), "12", (True, 2)]),
    ],
)
def test_rules_out_of_range_are_refused(option, value):
    with pytest.raises(UsageError, match=f"^{option}: expected"):
        TextRules(**{option: value})


def test_short_words_count_on_request():
    texts = ["AI is a go", "ai of US"]
    rules = TextRules(min_letters=2, min_documents=1, max_fraction=1.0)
    assert corpus_from_texts(texts, rules=rules).vocabulary == ("ai",)


def test_stop_words_may_be_any_collection():
    for words in (["ape"], ("ape",), {"ape"}, {"ape": 1}.keys()):
        rules = TextRules(stop_words=words, min_documents=1, max_fraction=1.0)
        assert corpus_from_texts(["ape bee"], rules=rules).vocabulary == ("bee",)
    assert TextRules(stop_words="English") == TextRules(stop_words="en") == TextRules()


@pytest.mark.parametrize(("min_documents", "max_fraction"), [(1, 1.0), (2, 1.0), (1, 0.4), (2, 0.6)])
@pytest.mark.parametrize("ngrams", [(1, 1), (1, 2), (2, 2), (2, 3), (1, 3)])
def test_runs_of_words_are_counted_as_scikit_learn_counts_them(ngrams, min_documents, max_fraction):
    rng = np.random.default_rng(0)
    texts = [
        " ".join(rng.choice(["ape", "bee", "cat", "dog", "emu", "fox", "gnu", "yak"], n))
        for n in rng.integers(2, 7, 12)
    ]
    vectorizer = CountVectorizer(ngram_range=ngrams, stop_words=["dog"], min_df=min_documents, max_df=max_fraction)
    expected = vectorizer.fit_transform(texts).toarray()
    rules = TextRules(
        stop_words={"dog"}, ngrams=ngrams, min_documents=min_documents, max_fraction=max_fraction, min_tokens=0
    )
    corpus = corpus_from_texts(texts, rules=rules)
    assert corpus.vocabulary == tuple(vectorizer.get_feature_names_out())
    np.testing.assert_array_equal(corpus.counts.toarray(), expected)


def test_a_run_of_words_and_a_word_of_the_same_letters_are_one():
    rules = TextRules(stop_words=(), min_documents=1, max_fraction=1.0, ngrams=(1, 2))
    corpus = corpus_from_texts(["new york, new,york"], rules=rules, tokenizer=lambda text: ["new york", "new", "york"])
    assert corpus.vocabulary == ("new", "new york", "new york new", "york")
    assert corpus.counts.toarray().tolist() == [[1, 2, 1, 1]]


def test_documents_without_words_stay_on_request():
    rules = TextRules(min_documents=1, max_fraction=1.0, min_tokens=0)
    corpus = corpus_from_texts(["ape", "", "the"], metadata={"n": [0, 1, 2]}, rules=rules)
    assert corpus.lengths.tolist() == [1, 0, 0]
    assert corpus.metadata["n"].tolist() == [0, 1, 2]
