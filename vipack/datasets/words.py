"""From texts to a corpus: words of running text, stop words, and a vocabulary pruned by document frequency."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import scipy.sparse

from vipack.datasets.corpus import Corpus
from vipack.datasets.stopwords import ENGLISH
from vipack.datasets.tokenizers import is_vectorizer, said_of, texts_of, vectorized, words_by
from vipack.errors import DataError, UsageError
from vipack.hints import checked, checked_class

__all__ = ["TextRules", "corpus_from_texts", "tokenize"]

# A run of letters that no digit or underscore touches, with the rest of a contraction: "mp3" and "num_steps" are no words.
_WORD = re.compile(r"(?<!\w)([^\W\d_]+)('[^\W\d_]+)?(?!\w)")


@checked_class
@dataclass(frozen=True, repr=False)
class TextRules:
    """How texts become counts.

    Attributes:
        stop_words: words to leave out, in lower case; English function words unless you say otherwise.
        min_letters: shortest word that counts.
        min_documents, max_fraction, max_words, min_tokens: see :meth:`Corpus.prune`.
    """

    stop_words: frozenset[str] = ENGLISH
    min_letters: int = 3
    min_documents: int = 2
    max_fraction: float = 0.5
    max_words: int | None = None
    min_tokens: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.stop_words, str):
            raise UsageError(f"stop_words: expected a set of words, found the text {self.stop_words!r}.")
        for name in ("min_letters", "min_documents", "min_tokens"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}: expected 1 or more, found {getattr(self, name)!r}.")
        if not 0.0 < self.max_fraction <= 1.0:
            raise UsageError(f"max_fraction: expected a fraction above 0 and up to 1, found {self.max_fraction!r}.")
        if self.max_words is not None and self.max_words < 1:
            raise UsageError(f"max_words: expected 1 or more, or None for no limit, found {self.max_words!r}.")

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
        rules: what counts as a word, and which words and documents stay.
        tokenizer: a function from a text to its words, in place of :func:`tokenize`; stop words and ``min_letters`` then
            count only where `rules` are given. Or a vectorizer like scikit-learn's ``CountVectorizer``: it is fitted to
            the texts and decides on words and limits by itself, and `rules`, where given, prune what it leaves.

    Raises:
        DataError: there is no text, something is not a string, the tokenizer fails, or the rules leave nothing.
        UsageError: `field` is no column, or could be several; `tokenizer` is none.
    """
    if isinstance(texts, str):
        raise DataError("texts: found one string; give a list of texts, one for each document.")
    read, own_titles = texts_of(texts, field, title)
    names = own_titles if titles is None else list(titles)
    if not read:
        raise DataError(f"{name}: there are no texts; a corpus needs at least one document.")
    if tokenizer is None:
        rules = TextRules() if rules is None else rules
        counts, vocabulary = _counted(read, functools.partial(tokenize, min_letters=rules.min_letters), rules)
        cure = (
            f"a word has {rules.min_letters} letters or more, no digits or underscores, and is no stop word; change "
            "rules=TextRules(...)"
        )
    elif is_vectorizer(tokenizer):
        counts, vocabulary = vectorized(read, tokenizer)
        rules = TextRules(frozenset(), 1, 1, 1.0) if rules is None else rules
        cure = f"{type(tokenizer).__name__} keeps none; loosen its limits"
    else:
        rules = TextRules(frozenset(), 1) if rules is None else rules
        counts, vocabulary = _counted(read, words_by(tokenizer), rules)
        cure = "the tokenizer finds none, or rules=TextRules(...) leaves none"
    if not vocabulary:
        raise DataError(f"{name}: no words in {len(read)} texts: {cure}.")
    return Corpus(name, counts, vocabulary, tuple(names), source, licence).prune(
        min_documents=rules.min_documents,
        max_fraction=rules.max_fraction,
        max_words=rules.max_words,
        min_tokens=rules.min_tokens,
        drop=rules.stop_words if is_vectorizer(tokenizer) else (),
    )


def _counted(
    texts: Sequence[str], words_of: Callable[[str], Sequence[str]], rules: TextRules
) -> tuple[Any, tuple[str, ...]]:
    """Counts ``(D, V)`` in CSR, and the vocabulary in alphabetical order."""
    bags = []
    for i, text in enumerate(texts):
        with said_of(f"texts[{i}]"):
            words = words_of(text)
        bags.append(Counter(w for w in words if w not in rules.stop_words and len(w) >= rules.min_letters))
    vocabulary = sorted(set().union(*bags))
    column = {word: i for i, word in enumerate(vocabulary)}
    indices = np.array([column[word] for bag in bags for word in bag], dtype=np.int32)
    values = np.array([count for bag in bags for count in bag.values()], dtype=np.float32)
    ends = np.concatenate([[0], np.cumsum([len(bag) for bag in bags])])
    counts = scipy.sparse.csr_array((values, indices, ends), shape=(len(bags), len(vocabulary)))
    return counts, tuple(vocabulary)


def tokenize(text: str, min_letters: int = 3) -> list[str]:
    """The words of `text` in lower case and in order; possessives lose their 's, other contractions are left out."""
    matches = _WORD.findall(text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))
    return [word for word, rest in matches if len(word) >= min_letters and rest in ("", "'s")]
