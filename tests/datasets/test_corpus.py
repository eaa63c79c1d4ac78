import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

from vipack.datasets import Corpus
from vipack.errors import DataError, DataWarning, ShapeError, UsageError

COUNTS = np.array([[2, 0, 1, 0], [0, 3, 1, 0], [1, 1, 1, 5]])
WORDS = ("ape", "bee", "cat", "dog")


def corpus(counts=COUNTS, words=WORDS, titles=("a", "b", "c")):
    return Corpus("zoo", counts, words, titles, "a test", "none")


def random_corpus(num_documents=50, num_words=30, rate=1.0, seed=0):
    counts = np.random.default_rng(seed).poisson(rate, (num_documents, num_words))
    names = [str(i) for i in range(num_documents)]
    return corpus(counts, [f"w{i}" for i in range(num_words)], names)


def test_sizes():
    zoo = corpus()
    assert (zoo.num_documents, zoo.num_words, zoo.num_tokens) == (3, 4, 15)
    assert zoo.lengths.tolist() == [3, 4, 8]
    assert zoo.document_frequency.tolist() == [2, 2, 3, 1]
    assert repr(zoo) == "Corpus('zoo': 3 documents, 4 words, 15 tokens)"


@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_matrix, scipy.sparse.coo_array, scipy.sparse.csc_array])
def test_counts_come_in_any_form_and_leave_as_float32_csr(form):
    counts = corpus(form(COUNTS)).counts
    assert isinstance(counts, scipy.sparse.csr_array)
    assert counts.dtype == np.float32
    np.testing.assert_array_equal(counts.toarray(), COUNTS)


def test_duplicate_entries_are_added_and_zeros_dropped():
    entries = ([1, 2, 0], ([0, 0, 1], [1, 1, 0]))
    counts = corpus(scipy.sparse.coo_array(entries, shape=(3, 4))).counts
    assert counts.nnz == 1
    assert counts[0, 1] == 3


def test_the_callers_matrix_is_left_alone():
    counts = scipy.sparse.csr_array((np.array([0.0, 2.0]), ([0, 1], [0, 1])), shape=(3, 4))
    stored = counts.nnz
    corpus(counts).counts.data[:] = 7
    assert counts.nnz == stored
    assert counts[1, 1] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"words": WORDS[:3]}, "3 words in the vocabulary for 4 columns"),
        ({"titles": ("a",)}, "1 titles for 3 rows"),
        ({"words": ("ape", "bee", "ape", "dog")}, "'ape' occurs twice"),
        ({"counts": -COUNTS}, "found the count -2"),
        ({"counts": COUNTS + 0.5}, "found the count 2.5"),
        ({"counts": np.where(COUNTS == 5, np.inf, COUNTS)}, "found the count inf"),
        ({"counts": np.where(COUNTS == 5, np.nan, COUNTS)}, "found the count nan"),
        ({"counts": COUNTS.astype(str)}, "expected whole numbers"),
        ({"counts": np.zeros((0, 4)), "titles": ()}, "needs documents and words"),
        ({"counts": COUNTS[0]}, "needs documents and words"),
    ],
)
def test_counts_that_cannot_be_are_refused(change, message):
    with pytest.raises(DataError, match=f"zoo.*{message}"):
        corpus(**change)


@pytest.mark.parametrize("form", [np.asarray, torch.tensor, list])
def test_top_words_come_largest_first(form):
    topics = form([[0.1, 0.2, 0.3, 0.4], [0.5, 0.0, 0.0, 0.5]])
    assert corpus().top_words(topics, 2) == [("dog", "cat"), ("ape", "dog")]


def test_top_words_need_one_weight_for_each_word():
    with pytest.raises(ShapeError, match=r"shape \(2, 3\), expected \(K, 4\)"):
        corpus().top_words(np.zeros((2, 3)))


def test_split_shares_the_documents_out():
    whole = random_corpus()
    kept, tested = whole.split(0.2, seed=3)
    assert (kept.num_documents, tested.num_documents) == (40, 10)
    assert set(kept.titles) | set(tested.titles) == set(whole.titles)
    row = whole.titles.index(tested.titles[4])
    np.testing.assert_array_equal(tested.counts[[4]].toarray(), whole.counts[[row]].toarray())
    assert whole.split(0.2, seed=3)[1].titles == tested.titles
    with pytest.raises(UsageError, match="held_out"):
        whole.split(0.0)


def test_halves_add_up_to_the_whole_and_are_equal_in_length():
    whole = random_corpus()
    first, second = whole.halve(seed=0)
    np.testing.assert_array_equal((first.counts + second.counts).toarray(), whole.counts.toarray())
    np.testing.assert_array_equal(first.lengths, (whole.lengths + 1) // 2)
    assert (first.counts != whole.halve(seed=0)[0].counts).nnz == 0
    assert (first.counts != whole.halve(seed=1)[0].counts).nnz > 0


def test_halves_are_dealt_without_favour():
    one_word_each = corpus(np.ones((2_000, 4)), titles=[str(i) for i in range(2_000)])
    first, _ = one_word_each.halve(seed=0)
    share = np.asarray(first.counts.mean(axis=0))
    assert np.all(np.abs(share - 0.5) < 4 * np.sqrt(0.25 / 2_000))


def test_empty_documents_halve_into_empty_documents():
    counts = COUNTS.copy()
    counts[1] = 0
    first, second = corpus(counts).halve()
    assert first.lengths.tolist() == [2, 0, 4]
    assert second.lengths.tolist() == [1, 0, 4]


def test_another_vocabulary_drops_adds_and_reorders_words():
    moved = corpus().with_vocabulary(["dog", "eel", "ape"])
    assert moved.vocabulary == ("dog", "eel", "ape")
    np.testing.assert_array_equal(moved.counts.toarray(), [[0, 0, 2], [0, 0, 0], [5, 0, 1]])
    for words in ([], "dog"):
        with pytest.raises(UsageError, match="non-empty sequence of words"):
            corpus().with_vocabulary(words)


@pytest.mark.parametrize(
    ("limits", "words", "titles"),
    [
        ({}, "ape bee cat dog", "a b c"),
        ({"min_documents": 2}, "ape bee cat", "a b c"),
        ({"max_fraction": 0.7}, "ape bee dog", "a b c"),
        ({"max_words": 2, "min_tokens": 2}, "bee dog", "b c"),
        ({"max_words": 2, "min_tokens": 0}, "bee dog", "a b c"),
        ({"min_tokens": 4}, "ape bee cat dog", "b c"),
        ({"drop": {"dog", "yak"}}, "ape bee cat", "a b c"),
    ],
)
def test_pruning(limits, words, titles):
    pruned = corpus().prune(**limits)
    assert pruned.vocabulary == tuple(words.split())
    assert pruned.titles == tuple(titles.split())


def test_pruning_everything_away_is_refused():
    # c loses its dogs and is too short then, as a is, so that b is left alone and no word is in two documents.
    with pytest.raises(DataError, match="nothing is left of 3 documents and 4 words with min_documents=2"):
        corpus().prune(min_documents=2, min_tokens=4)


def test_pruning_keeps_its_promises_on_what_is_left():
    whole = random_corpus(80, 60, rate=np.linspace(0.02, 1, 60), seed=2)
    pruned = whole.prune(min_documents=10, min_tokens=28)
    assert pruned.num_documents < whole.num_documents
    assert pruned.num_words < whole.num_words
    assert pruned.document_frequency.min() >= 10
    assert pruned.lengths.min() >= 28


def test_documents_without_a_word_left_are_named_once_and_left_out():
    with pytest.warns(
        DataWarning, match=r"zoo: 1 of 3 documents have no word left.*: 'a'; min_tokens=0 keeps"
    ) as warned:
        pruned = corpus().prune(max_words=2)
    assert len(warned) == 1
    assert pruned.titles == ("b", "c")
    many = corpus(np.eye(8), [f"w{i}" for i in range(8)], "abcdefgh")
    with pytest.warns(DataWarning, match=r"7 of 8 documents.*: 'a', 'b', 'c', 'd', 'e', \.\.\.;"):
        many.prune(drop={f"w{i}" for i in range(7)})


def test_rows_are_summed_in_float64_with_empty_ones_between():
    counts = scipy.sparse.lil_array((9_000, 2))
    counts[5_000, 0], counts[5_000, 1], counts[8_999, 1] = 2**24, 1, 3
    lengths = corpus(counts, ("ape", "bee"), [str(i) for i in range(9_000)]).lengths
    assert lengths[[4_999, 5_000, 8_999]].tolist() == [0, 2**24 + 1, 3]
    assert lengths.sum() == 2**24 + 4


# --- metadata

TABLE = pd.DataFrame({"year": [1999, 2005, 2007], "party": ["x", None, "z"]}, index=[7, 7, 9])


def with_metadata(metadata=TABLE, counts=COUNTS):
    return Corpus("zoo", counts, WORDS, ("a", "b", "c"), "a test", "none", metadata)


@pytest.mark.parametrize("metadata", [TABLE, dict(TABLE), {"year": [1999, 2005, 2007], "party": ["x", None, "z"]}])
def test_metadata_are_a_table_numbered_like_the_documents(metadata):
    zoo = with_metadata(metadata)
    assert zoo.metadata["year"].tolist() == [1999, 2005, 2007]
    assert zoo.metadata.index.tolist() == [0, 1, 2]
    assert zoo.metadata.loc[2, "party"] == "z"
    zoo.metadata.loc[0, "year"] = 0
    assert TABLE["year"].iloc[0] == 1999


def test_metadata_follow_the_documents():
    zoo = with_metadata()
    assert zoo.take([2, 0]).metadata["year"].tolist() == [2007, 1999]
    assert zoo.take(np.array([False, True, True])).metadata.index.tolist() == [0, 1]
    for each in zoo.split(0.34, seed=1):
        assert [dict(zip("abc", [1999, 2005, 2007], strict=True))[t] for t in each.titles] == each.metadata[
            "year"
        ].tolist()
    assert zoo.prune(min_tokens=4).metadata["party"].tolist()[1] == "z"
    assert zoo.prune(min_tokens=4).metadata["year"].tolist() == [2005, 2007]
    for same in (*zoo.halve(), zoo.with_vocabulary(["dog", "eel"]), zoo.prune(), zoo.prune(min_documents=2)):
        pd.testing.assert_frame_equal(same.metadata, zoo.metadata)
    with pytest.warns(DataWarning, match="'a'"):
        assert zoo.prune(max_words=2).metadata["year"].tolist() == [2005, 2007]
    assert corpus().metadata is None
    assert repr(zoo) == "Corpus('zoo': 3 documents, 4 words, 15 tokens; metadata year, party)"


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (TABLE[:2], "metadata has 2 rows for 3 documents"),
        ({"year": [1, 2]}, "metadata 'year' has 2 values for 3 documents"),
        ({"year": "abc"}, "metadata 'year' is 'abc'; expected a value for each document"),
        ({"year": 3}, "metadata 'year' is 3; expected a value for each"),
        ({"year": np.ones((3, 2))}, "expected a value for each document"),
        ([1, 2, 3], "metadata is a list; expected a DataFrame or a dict"),
        (pd.concat([TABLE, TABLE], axis=1), "two columns of metadata are called 'year'"),
    ],
)
def test_metadata_that_fit_no_documents_are_refused(metadata, message):
    with pytest.raises(DataError, match=f"zoo: .*{message}"):
        with_metadata(metadata)
