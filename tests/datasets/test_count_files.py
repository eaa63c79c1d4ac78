import gzip

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from vipack.datasets import load_lda_c, load_matrix_market
from vipack.errors import DataError

COUNTS = np.array([[2, 0, 1], [0, 0, 0], [0, 3, 1]])
WORDS = ("ape", "bee", "cat")
HEADER = "%%MatrixMarket matrix coordinate integer general\n"


@pytest.fixture
def write(tmp_path):
    def write(text, name="corpus", pack=False):
        content = text.encode()
        (tmp_path / name).write_bytes(gzip.compress(content) if pack else content)
        return tmp_path / name

    return write


@pytest.mark.parametrize("pack", [False, True])
def test_lda_c_files_are_read(write, pack):
    path = write("2 0:2 2:1\n0\n2 1:3 2:1\n", pack=pack)
    corpus = load_lda_c(path, write("ape\nbee\ncat\n", "vocab"), licence="CC0")
    np.testing.assert_array_equal(corpus.counts.toarray(), COUNTS)
    assert corpus.vocabulary == WORDS
    assert corpus.titles == ("0", "1", "2")
    assert (corpus.name, corpus.source, corpus.licence) == ("corpus", str(path), "CC0")


def test_a_word_that_stands_twice_in_a_line_is_added_up(write):
    assert load_lda_c(write("2 0:2 0:1"), WORDS).counts[0, 0] == 3


def test_titles_come_from_a_file(write):
    assert load_lda_c(write("1 0:1\n1 1:1"), WORDS, titles=write("first\nsecond", "t")).titles == ("first", "second")
    with pytest.raises(DataError, match="3 titles for 1 rows"):
        load_lda_c(write("1 0:1"), WORDS, titles=["a", "b", "c"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; expected a line 'N id:count"),
        ("1 0:1\n1 3:1", r"line 2: word id 3 is beyond the vocabulary of 3 words \(ids 0 to 2\)"),
        ("1 0:1\n2 0:1", "line 2: announces 2 words but has 1 pairs"),
        ("1 0:1 1:1", "line 1: announces 1 words but has 2 pairs"),
        ("1 0=1", "line 1: found '0=1', expected id:count"),
        ("1 0:", "line 1: found '0:', expected id:count"),
        ("1 0:-2", "line 1: found '0:-2', expected id:count"),
        ("1 0:1.5", "line 1: found '0:1.5', expected id:count"),
        ("1 -1:1", "line 1: found '-1:1', expected id:count"),
        ("1 ape:1", "line 1: found 'ape:1', expected id:count"),
        ("1 0:1\n\n1 0:1", "line 2: starts with '', expected the number of different words"),
        ("0:1 1:1", "line 1: starts with '0:1', expected the number"),
    ],
)
def test_malformed_lda_c_lines_are_named(write, text, message):
    with pytest.raises(DataError, match=f"corpus: {message}"):
        load_lda_c(write(text), WORDS)


@pytest.mark.parametrize("pack", [False, True])
def test_matrix_market_files_are_read(write, pack):
    path = write(HEADER + "3 3 4\n1 1 2\n1 3 1\n3 2 3\n3 3 1\n", "c.mtx.gz" if pack else "c.mtx", pack)
    corpus = load_matrix_market(path, WORDS)
    np.testing.assert_array_equal(corpus.counts.toarray(), COUNTS)


def test_what_scipy_writes_is_read_back(tmp_path):
    counts = np.random.default_rng(0).poisson(0.5, (7, 3))
    scipy.io.mmwrite(tmp_path / "c.mtx", scipy.sparse.csr_array(counts))
    np.testing.assert_array_equal(load_matrix_market(tmp_path / "c.mtx", WORDS).counts.toarray(), counts)
    scipy.io.mmwrite(tmp_path / "dense.mtx", counts)
    np.testing.assert_array_equal(load_matrix_market(tmp_path / "dense.mtx", WORDS).counts.toarray(), counts)


def test_words_by_documents_are_turned_on_request_only(write):
    path = write(HEADER + "3 2 2\n1 1 2\n3 2 1\n")
    np.testing.assert_array_equal(
        load_matrix_market(path, WORDS, transpose=True).counts.toarray(), [[2, 0, 0], [0, 0, 1]]
    )
    with pytest.raises(DataError, match=r"3 documents by 2 words, but the vocabulary has 3 words; pass transpose=True"):
        load_matrix_market(path, WORDS)
    with pytest.raises(DataError, match="give the vocabulary that belongs to this file"):
        load_matrix_market(path, ["only"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 is '', expected a header"),
        ("1 0:1\n", "line 1 is '1 0:1', expected a header"),
        (HEADER, "ends after its header"),
        (HEADER + "% a comment\n\n", "ends after its header"),
        (HEADER + "2 3 2\n1 1 1\n", "is not a readable"),
        (HEADER + "2 3 1\n1 1 1\n1 2 1\n", "is not a readable"),
        (HEADER + "2 3 1\n1 4 1\n", "is not a readable"),
        (HEADER + "2 3 1\n1 x 1\n", "is not a readable"),
        (HEADER + "2 3 1\n1 1 -1\n", "found the count -1"),
        (HEADER + "2 3 1\n1 1 1.5\n", "found the count 1.5"),
        (HEADER.replace("integer", "complex") + "2 3 1\n1 1 1 1\n", "holds complex numbers"),
        ("%%MatrixMarket nonsense\n1 1 1\n", "is not a readable"),
    ],
)
def test_malformed_matrix_market_files_are_refused(write, text, message):
    with pytest.raises(DataError, match=f"corpus: .*{message}"):
        load_matrix_market(write(text), WORDS)


@pytest.mark.parametrize("load", [load_lda_c, load_matrix_market])
def test_missing_files_are_named(load, tmp_path, write):
    with pytest.raises(DataError, match="nothing: no such file"):
        load(tmp_path / "nothing", WORDS)
    with pytest.raises(DataError, match="no-words: no such file"):
        load(write("1 0:1"), tmp_path / "no-words")
