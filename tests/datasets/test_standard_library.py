import shutil
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from vipack.datasets import docstrings, standard_library
from vipack.datasets.stopwords import DOCSTRING_BOILERPLATE, ENGLISH
from vipack.errors import DataError, DataWarning


@pytest.fixture
def small_library(tmp_path, monkeypatch):
    """A library of twelve modules on two subjects, in place of Python's own."""
    root = tmp_path / "library"
    root.mkdir()
    for i in range(12):
        subject = "socket server port host" if i % 2 else "widget window button colour"
        (root / f"module{i}.py").write_text(f'"""The {subject} {subject} of {"number " * i} returns."""')
    monkeypatch.setattr(standard_library.sysconfig, "get_path", lambda name: str(root))
    monkeypatch.setattr(standard_library, "_RULES", standard_library.TextRules(max_fraction=1.0, min_documents=3))
    return root


def same(a, b):
    return (a.counts != b.counts).nnz == 0 and (a.vocabulary, a.titles) == (b.vocabulary, b.titles)


def test_it_is_a_corpus_of_a_size_for_topic_models(library):
    assert 600 < library.num_documents < 2_000
    assert 1_500 < library.num_words < 4_500
    assert library.lengths.min() >= 8
    assert library.document_frequency.min() >= 3
    assert library.document_frequency.max() < 0.3 * library.num_documents + 1
    assert not set(library.vocabulary) & (ENGLISH | DOCSTRING_BOILERPLATE)
    assert "Python" in library.source
    assert library.licence == "PSF License Version 2"


def test_words_go_with_the_modules_that_are_about_them(library):
    def heaviest(word):
        column = library.counts[:, [library.vocabulary.index(word)]].toarray().ravel()
        return {library.titles[i].split(".")[0] for i in np.argsort(-column)[:5]}

    assert "tkinter" in heaviest("widget")
    assert "threading" in heaviest("lock")
    assert "email" in heaviest("header")
    assert "xml" in heaviest("element")


def test_the_second_use_reads_the_cache(library, shared_cache, monkeypatch):
    monkeypatch.setenv("VIPACK_CACHE", str(shared_cache))
    monkeypatch.setattr(standard_library, "library_texts", None)
    assert same(docstrings(), library)


def test_building_twice_gives_the_same(small_library, cache):
    first = docstrings()
    shutil.rmtree(cache)
    assert same(docstrings(), first)
    assert first.num_documents == 12


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-9], lambda b: b[:200] + b"\0\1" + b[202:], lambda b: b"", lambda b: b"x"]
)
def test_a_damaged_cache_is_built_again(small_library, cache, damage):
    first = docstrings()
    [file] = cache.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert same(docstrings(), first)
    assert file.read_bytes() == whole


def test_other_sources_or_rules_get_another_file(small_library, cache, monkeypatch):
    first = docstrings()
    (small_library / "module12.py").write_text('"""The widget window."""')
    assert docstrings().num_documents == first.num_documents + 1
    monkeypatch.setattr(
        standard_library, "_RULES", standard_library.TextRules(max_fraction=1.0, min_documents=8, min_tokens=2)
    )
    assert docstrings().num_words < first.num_words
    assert len(list(cache.iterdir())) == 3


def test_a_cache_that_cannot_be_written_costs_a_warning_only(small_library, cache):
    cache.write_text("a file where the folder should be")
    with pytest.warns(DataWarning, match="cache cannot be written.*VIPACK_CACHE"):
        corpus = docstrings()
    assert corpus.num_documents == 12


def test_a_python_without_sources_is_an_error(small_library):
    for path in small_library.iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"found no \.py files"):
        docstrings()


def test_nothing_of_the_library_is_imported_to_read_it(library):
    assert Path(sysconfig.get_path("stdlib"), "antigravity.py").is_file()
    assert "antigravity" not in sys.modules
