"""Tokenizers and texts of the user's own."""

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer

import vipack as vi
from vipack.datasets import TextRules, corpus_from_texts, load_texts
from vipack.errors import DataError, DataWarning, UsageError

TEXTS = ["The cat sat. cat!", "a dog, the dog", "the cat and a dog", "mp3 of the_dog cat"]
KEEP_ALL = TextRules(stop_words=frozenset(), min_letters=1, min_documents=1, max_fraction=1.0)


class Vectorizer:
    """What is asked of a vectorizer, without scikit-learn."""

    def fit_transform(self, texts):
        self.words = sorted({word for text in texts for word in text.split()})
        return np.array([[text.split().count(word) for word in self.words] for text in texts])

    def get_feature_names_out(self):
        return np.array(self.words)


@pytest.mark.parametrize(
    "options", [{}, {"stop_words": "english"}, {"ngram_range": (1, 2), "min_df": 2}, {"max_features": 3}]
)
def test_a_count_vectorizer_decides_on_words_and_limits(options):
    corpus = corpus_from_texts(TEXTS, tokenizer=(own := CountVectorizer(**options)))
    expected = CountVectorizer(**options).fit(TEXTS)
    assert corpus.vocabulary == tuple(expected.get_feature_names_out())
    kept = [int(title) for title in corpus.titles]
    np.testing.assert_array_equal(corpus.counts.toarray(), expected.transform(TEXTS).toarray()[kept])
    np.testing.assert_array_equal(own.transform(["dog cat"]).toarray(), expected.transform(["dog cat"]).toarray())


def test_what_behaves_like_a_vectorizer_is_one():
    corpus = corpus_from_texts(["b a b", "c"], tokenizer=Vectorizer())
    assert corpus.vocabulary == ("a", "b", "c")
    np.testing.assert_array_equal(corpus.counts.toarray(), [[1, 2, 0], [0, 0, 1]])


def test_rules_prune_what_a_vectorizer_leaves():
    rules = TextRules(stop_words=frozenset({"the"}), min_documents=2, max_fraction=1.0)
    assert corpus_from_texts(TEXTS, tokenizer=CountVectorizer(), rules=rules).vocabulary == ("cat", "dog")


def test_a_function_is_a_tokenizer_and_its_words_are_kept_as_they_are():
    corpus = corpus_from_texts(["The THE a-b", "the a-b"], tokenizer=str.split, rules=KEEP_ALL)
    assert corpus.vocabulary == ("THE", "The", "a-b", "the")
    with pytest.warns(DataWarning, match="1 of 5 documents have no word left.*'4'"):
        own = corpus_from_texts(["go the", "go the", "cat", "cat", "x"], tokenizer=str.split)
    assert own.vocabulary == ("cat", "go", "the")  # in two texts, at most in half of them: the limits still hold
    ruled = corpus_from_texts(["go the cat", "cat the"], tokenizer=str.split, rules=TextRules(max_fraction=1.0))
    assert ruled.vocabulary == ("cat",)


def test_what_only_builds_an_analyzer_gives_its_words():
    found = corpus_from_texts(TEXTS, tokenizer=HashingVectorizer(), rules=KEEP_ALL)
    assert set(found.vocabulary) == set(CountVectorizer().fit(TEXTS).get_feature_names_out())


@pytest.mark.parametrize(("tokenizer", "kind", "message"), [
    (CountVectorizer, UsageError, r"pass an instance, CountVectorizer\(\)"),
    ("split", UsageError, "tokenizer: expected a function"),
    (lambda text: text, DataError, r"texts\[0\]: the tokenizer gave 'The cat"),
    (lambda text: [1], DataError, r"texts\[0\]: the tokenizer gave \[1\], expected a list of strings"),
    (lambda text: None, DataError, "expected a list of strings"),
    (lambda text: text.words, DataError, r"texts\[0\]: the tokenizer raised AttributeError"),
    (lambda text: [], DataError, "no words in 4 texts: the tokenizer finds none"),
    (TfidfVectorizer(), DataError, "counts are whole numbers"),
    (CountVectorizer(stop_words=["the", "cat"], token_pattern="the|cat"), DataError, "empty vocabulary"),
])  # fmt: skip
def test_tokenizers_that_do_not_work_are_named(tokenizer, kind, message):
    with pytest.raises(kind, match=message):
        corpus_from_texts(TEXTS, tokenizer=tokenizer)


# --- pandas

TABLE = pd.DataFrame(
    {"id": [3, 5, 7], "body": ["cat dog", "dog", "cat cat"], "head": ["A", "B", "C"]}, index=list("uvw")
)


def test_a_frame_gives_texts_and_titles():
    corpus = corpus_from_texts(TABLE, field="body", title="head", rules=KEEP_ALL)
    assert corpus.titles == ("A", "B", "C")
    np.testing.assert_array_equal(corpus.counts.toarray(), [[1, 1], [0, 1], [2, 0]])
    assert corpus_from_texts(TABLE, field="body", rules=KEEP_ALL).titles == ("u", "v", "w")
    assert corpus_from_texts(TABLE, field="body", title="id", rules=KEEP_ALL).titles == ("3", "5", "7")
    assert corpus_from_texts(TABLE, list("xyz"), field="body", rules=KEEP_ALL).titles == ("x", "y", "z")
    assert corpus_from_texts(TABLE["body"], rules=KEEP_ALL).titles == ("u", "v", "w")
    assert corpus_from_texts(TABLE["body"].reset_index(drop=True), rules=KEEP_ALL).titles == ("0", "1", "2")
    assert corpus_from_texts(TABLE[["id", "body"]], rules=KEEP_ALL).num_tokens == 5  # the one column of text


@pytest.mark.parametrize(("table", "options", "kind", "message"), [
    (TABLE, {}, UsageError, "say which column holds the texts; it may be 'body', 'head'"),
    (TABLE[["id"]], {}, UsageError, "there are 'id'"),
    (TABLE, {"field": "boddy"}, UsageError, "expected one column 'boddy', found 'id', 'body', 'head'"),
    (TABLE, {"field": "body", "title": "haed"}, UsageError, "title: expected one column 'haed'"),
    (TABLE, {"field": "id"}, DataError, r"texts\[0\] \(u\): found int"),
    (TABLE.assign(body=["cat", None, "dog"]), {"field": "body"}, DataError, r"texts\[1\] \(v\): found"),
    (["cat"], {"field": "body"}, UsageError, "name columns of a DataFrame, found list"),
    (TABLE[:0], {"field": "body"}, DataError, "there are no texts"),
])  # fmt: skip
def test_columns_that_are_not_there_or_hold_no_text_are_named(table, options, kind, message):
    with pytest.raises(kind, match=message):
        corpus_from_texts(table, rules=KEEP_ALL, **options)


def test_texts_in_files_and_docstrings_take_a_tokenizer_too(tmp_path):
    TABLE.to_csv(tmp_path / "texts.csv")
    corpus = load_texts(tmp_path / "texts.csv", field="body", tokenizer=CountVectorizer())
    assert corpus.vocabulary == ("cat", "dog")
    with pytest.warns(DataWarning, match="documents have no word left"):
        words = vi.datasets.docstrings(tokenizer=CountVectorizer(max_features=20))
    assert words.num_words == 20
    with pytest.raises(UsageError, match="corpus_from_texts"):
        load_texts(TABLE, field="body")


def test_a_corpus_is_a_frame_of_documents_by_words():
    corpus = corpus_from_texts(TABLE, field="body", rules=KEEP_ALL)
    frame = corpus.to_frame()
    assert frame.loc["w", "cat"] == 2
    assert (list(frame.index), list(frame.columns)) == (["u", "v", "w"], ["cat", "dog"])


def test_other_columns_are_metadata():
    corpus = corpus_from_texts(TABLE, field="body", title="head", rules=KEEP_ALL)
    pd.testing.assert_frame_equal(corpus.metadata, TABLE[["id"]].reset_index(drop=True))
    kept = TextRules(stop_words={"dog"}, min_documents=1, max_fraction=1.0)
    with pytest.warns(DataWarning, match="1 of 3 documents have no word left.*'v'"):
        fewer = corpus_from_texts(TABLE, field="body", rules=kept)
    assert fewer.metadata.to_dict("list") == {"id": [3, 7], "head": ["A", "C"]}
    assert corpus_from_texts(TABLE[["body"]], rules=KEEP_ALL).metadata is None
    given = corpus_from_texts(["cat", "dog"], metadata={"year": [1, 2]}, rules=KEEP_ALL)
    assert given.metadata["year"].tolist() == [1, 2]
    with pytest.raises(DataError, match="metadata 'year' has 1 values for 2 documents"):
        corpus_from_texts(["cat", "dog"], metadata={"year": [1]}, rules=KEEP_ALL)


def test_runs_of_words_are_the_vectorizers_business_where_there_is_one():
    with pytest.raises(UsageError, match=r"ngrams: CountVectorizer decides .* ngram_range"):
        corpus_from_texts(TEXTS, tokenizer=CountVectorizer(), rules=TextRules(ngrams=(1, 2)))


def test_a_vocabulary_with_a_word_twice_is_refused():
    class Twice(Vectorizer):
        def get_feature_names_out(self):
            return np.array([self.words[0]] * len(self.words))

    with pytest.raises(DataError, match="the word 'a' occurs twice in the vocabulary"):
        corpus_from_texts(["b a b", "c"], tokenizer=Twice())


def test_tables_of_other_libraries_are_turned_into_frames():
    class Table:
        columns = tuple(TABLE.columns)

        def to_pandas(self):
            return TABLE

    corpus = corpus_from_texts(Table(), field="body", rules=KEEP_ALL)
    assert corpus.metadata["head"].tolist() == ["A", "B", "C"]
