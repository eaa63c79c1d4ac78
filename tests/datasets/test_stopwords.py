"""Languages: the package stop-words is stood in for where it is not what is tested."""

import sys
import types

import pytest

from vipack.datasets import TextRules, corpus_from_texts
from vipack.datasets.stopwords import ENGLISH, stop_words_of
from vipack.errors import MissingExtraError, UsageError


@pytest.fixture
def package(monkeypatch):
    module = types.ModuleType("stop_words")
    module.LANGUAGE_MAPPING = {"de": "german", "fr": "french"}
    lists = {"german": ["der", "Die", "das"], "french": ["le", "qu'elle"]}
    module.get_stop_words = lambda name: lists[module.LANGUAGE_MAPPING.get(name, name)]
    monkeypatch.setitem(sys.modules, "stop_words", module)


@pytest.mark.parametrize("language", ["german", "German", "de", " DE "])
def test_a_language_goes_by_its_name_or_code(package, language):
    assert stop_words_of(language) == {"der", "die", "das"}


def test_contractions_are_left_out_as_they_are_and_as_they_are_split(package):
    assert stop_words_of("fr") == {"le", "qu'elle", "qu", "elle"}


def test_rules_take_a_language(package):
    rules = TextRules(stop_words="german", min_documents=1, max_fraction=1.0)
    assert corpus_from_texts(["Der Hund und die Katze"], rules=rules).vocabulary == ("hund", "katze", "und")


def test_a_language_that_is_not_there_is_named_with_those_that_are(package):
    with pytest.raises(
        UsageError, match=r"stop_words: .* found 'germn'; did you mean 'german'\? .*french \(fr\), german \(de\)"
    ):
        TextRules(stop_words="germn")


def test_the_extra_is_named_where_it_is_missing_and_english_needs_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "stop_words", None)
    with pytest.raises(MissingExtraError, match=r"stop_words='de': .*pip install 'vipack\[topics\]'"):
        TextRules(stop_words="de")
    assert stop_words_of("english") == ENGLISH


def test_the_package_has_the_languages_that_it_says():
    pytest.importorskip("stop_words")
    assert {"aber", "und", "nicht"} <= stop_words_of("german") == stop_words_of("de")
    assert stop_words_of("ru").isdisjoint(stop_words_of("french"))
