"""From texts to a corpus: words of running text, stop words, and a vocabulary pruned by document frequency."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from vipack.datasets.corpus import Corpus, OwnCounts
from vipack.datasets.stopwords import ENGLISH, stop_words_of
from vipack.datasets.tokenizers import is_vectorizer, said_of, texts_of, vectorized, words_by
from vipack.datasets.word_counting import WordCounts, tokens_of, words_of_token
from vipack.errors import DataError, UsageError
from vipack.hints import checked, checked_class

__all__ = ["TextRules", "corpus_from_texts", "corpus_of"]


@checked_class
@dataclass(frozen=True, repr=False)
class TextRules:
    """How texts become counts.

    Attributes:
        stop_words: words to leave out, in lower case, or a language by its English name or ISO 639-1 code, such as "german" or
            "de" (extra ``topics``); English function words unless you say otherwise. Of several languages:
            ``stop_words_of("german") | stop_words_of("english")``.
        min_letters: shortest word that counts; with 2, "AI" is a word.
        ngrams: the shortest and the longest run of words that count; with (1, 2), pairs of neighbours such as "new york" do
            as well as single words. Stop words and short words are left out beforehand.
        min_documents, max_fraction, max_words, min_tokens: see :meth:`Corpus.prune`.

    Raises:
        UsageError: a limit out of range, or a language of which there is no list.
        MissingExtraError: a language other than English without the package stop-words.
    """

    stop_words: Collection[str] = ENGLISH
    min_letters: int = 3
    min_documents: int = 2
    max_fraction: float = 0.5
    max_words: int | None = None
    min_tokens: int = 1
    ngrams: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        given = self.stop_words
        if not isinstance(given, Collection) or isinstance(given, bytes | Mapping):
            raise UsageError(
                f"stop_words: expected a set of words or a language, found {given!r}; give () to leave out none."
            )
        words = stop_words_of(given) if isinstance(given, str) else frozenset(given)
        object.__setattr__(self, "stop_words", words)
        for name, least in (("min_letters", 1), ("min_documents", 1), ("min_tokens", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"{name}: expected {least} or more, found {getattr(self, name)!r}.")
        if not 0.0 < self.max_fraction <= 1.0:
            raise UsageError(f"max_fraction: expected a fraction above 0 and up to 1, found {self.max_fraction!r}.")
        if self.max_words is not None and self.max_words < 1:
            raise UsageError(f"max_words: expected 1 or more, or None for no limit, found {self.max_words!r}.")
        lengths = self.ngrams if isinstance(self.ngrams, tuple | list) else ()
        if not (len(lengths) == 2 and all(type(n) is int for n in lengths) and 1 <= lengths[0] <= lengths[1]):
            raise UsageError(
                f"ngrams: expected the shortest and the longest run of words, such as (1, 2), found {self.ngrams!r}."
            )
        object.__setattr__(self, "ngrams", tuple(lengths))

    def __repr__(self) -> str:
        limits = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "stop_words"}
        listed = ", ".join(f"{name}={value!r}" for name, value in limits.items())
        return f"TextRules({len(self.stop_words)} stop words, {listed})"


@checked
def corpus_from_texts(
    texts: Any,
    titles: Sequence[str] | None = None,
    *,
    field: str | None = None,
    title: str | None = None,
    metadata: Any = None,
    rules: TextRules | None = None,
    tokenizer: Any = None,
    name: str = "texts",
    source: str = "given by the user",
    licence: str = "not stated",
) -> Corpus:
    """Word counts of `texts`, one document each; the vocabulary is in alphabetical order, or the vectorizer's.

    Args:
        texts: strings, a pandas Series of them, or a DataFrame with a column of them.
        titles: a name for each text; if left out, the column `title`, a Series' or DataFrame's index, or "0", "1", ...
        field: the DataFrame's column of texts; may be left out where it is the only one of text.
        title: the DataFrame's column of titles.
        metadata: what is known of each text: a DataFrame, or a dict of columns. A DataFrame's other columns by default.
        rules: what counts as a word, and which words and documents stay.
        tokenizer: a function from a text to its words, in place of :func:`tokenize`; stop words and ``min_letters`` then
            count only where `rules` are given. Or a vectorizer like scikit-learn's ``CountVectorizer``: it is fitted to
            the texts and decides on words and limits by itself, and `rules`, where given, prune what it leaves.

    Raises:
        DataError: there is no text, something is not a string, the tokenizer fails, or the rules leave nothing.
        UsageError: `field` is no column, or could be several; `tokenizer` is none.

    Warns:
        DataWarning: documents without a word are left out, with their titles and metadata; see :meth:`Corpus.prune`.
    """
    if isinstance(texts, str):
        raise DataError("texts: found one string; give a list of texts, one for each document.")
    read = texts_of(texts, field, title)
    return corpus_of(
        read.texts,
        read.titles if titles is None else list(titles),
        read.metadata if metadata is None else metadata,
        rules=rules,
        tokenizer=tokenizer,
        name=name,
        source=source,
        licence=licence,
    )


def corpus_of(
    texts: Iterable[str],
    titles: Sequence[str],
    metadata: Any,
    *,
    rules: TextRules | None,
    tokenizer: Any,
    name: str,
    source: str,
    licence: str,
) -> Corpus:
    """Counts of texts that come one after the other; `titles` and a mapping as `metadata` may fill as they do."""
    if is_vectorizer(tokenizer):
        if rules is not None and rules.ngrams != (1, 1):
            raise UsageError(f"ngrams: {type(tokenizer).__name__} decides on runs of words; give it ngram_range.")
        rules = TextRules(frozenset(), 1, 1, 1.0) if rules is None else rules
        read = list(texts)
        counts, vocabulary = vectorized(read, tokenizer) if read else (None, ())
        num_documents = len(read)
        cure = f"{type(tokenizer).__name__} keeps none; loosen its limits"
    elif tokenizer is None:
        rules = TextRules() if rules is None else rules
        counts, vocabulary, num_documents = _counted(texts, tokens_of, words_of_token, rules)
        cure = (
            f"a word has {rules.min_letters} letters or more, no digits or underscores, and is no stop word; change "
            "rules=TextRules(...)"
        )
    else:
        rules = TextRules(frozenset(), 1) if rules is None else rules
        words_of = words_by(tokenizer)
        counts, vocabulary, num_documents = _counted(texts, lambda text: [words_of(text)], _as_it_is, rules)
        cure = "the tokenizer finds none, or rules=TextRules(...) leaves none"
    if not num_documents:
        raise DataError(f"{name}: there are no texts; a corpus needs at least one document.")
    if not vocabulary:
        raise DataError(f"{name}: no words in {num_documents} texts: {cure}.")
    return Corpus(name, counts, vocabulary, tuple(titles), source, licence, metadata).prune(
        min_documents=rules.min_documents,
        max_fraction=rules.max_fraction,
        max_words=rules.max_words,
        min_tokens=rules.min_tokens,
        drop=rules.stop_words if is_vectorizer(tokenizer) else (),
    )


def _counted(
    texts: Iterable[str],
    tokens: Callable[[str], Iterable[Sequence[str]]],
    words_of: Callable[[str], Sequence[str]],
    rules: TextRules,
) -> tuple[Any, tuple[str, ...], int]:
    """Counts ``(D, V)`` in CSR, the vocabulary in alphabetical order, and D."""
    shortest, stop_words = rules.min_letters, rules.stop_words
    table = WordCounts(words_of, lambda word: len(word) >= shortest and word not in stop_words, rules.ngrams)
    for i, text in enumerate(texts):
        with said_of(f"texts[{i}]"):
            table.add(tokens(text))
    counts, vocabulary = table.finish(rules.min_documents, rules.max_fraction)
    return OwnCounts(counts), vocabulary, counts.shape[0]


def _as_it_is(token: str) -> tuple[str, ...]:
    return (token,)
