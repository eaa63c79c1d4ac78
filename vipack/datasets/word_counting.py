"""Words of running text, counted document by document: memory goes by what is counted, not by the texts."""

from __future__ import annotations

import functools
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import scipy.sparse

__all__ = ["WordCounts", "occurrences", "tokenize", "tokens_of", "words_of_token"]

# Letters, digits, underscores and the marks of scripts that write vowels or accents as characters of their own.
_CHARACTER = r"[\w\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff\u0e31-\u0e4e]"
_TOKEN = re.compile(rf"{_CHARACTER}+(?:'{_CHARACTER}+)*")
_WHITE = re.compile(r"\s")
_QUOTES = {"\N{LEFT SINGLE QUOTATION MARK}": "'", "\N{RIGHT SINGLE QUOTATION MARK}": "'"}
_PUNCTUATION = {
    **_QUOTES,
    **dict.fromkeys(
        ["\N{LEFT DOUBLE QUOTATION MARK}", "\N{RIGHT DOUBLE QUOTATION MARK}", "\N{EN DASH}", "\N{EM DASH}", "\N{HORIZONTAL ELLIPSIS}", "\N{NO-BREAK SPACE}"],
        " ",
    ),
}  # fmt: skip
# All of ASCII in lower case, with a space for what belongs to no word.
_ASCII = str.maketrans({i: chr(i).lower() if chr(i).isalnum() or chr(i) in "_'" else " " for i in range(128)})
_CONTRACTED = frozenset(["t", "d", "m", "re", "ve", "ll"])  # don't, I'd, I'm, we're, we've, we'll
_PIECE = 1 << 20  # letters that are split into words at once
_BLOCK = 1 << 18  # counts that are moved at once
_NONE = -1  # the number of a token that is no word


def tokenize(text: str, min_letters: int = 3) -> list[str]:
    """The words of `text` in lower case and in order, without digits and underscores.

    Possessives lose their 's, and other contractions of English are left out. Elided articles are words of their own: "l'air"
    is "l" and "air".
    """
    return [
        word
        for tokens in tokens_of(text)
        for token in tokens
        for word in words_of_token(token)
        if len(word) >= min_letters
    ]


def tokens_of(text: str) -> Iterator[list[str]]:
    """Runs of letters, digits, underscores and apostrophes in lower case, a piece of the text at a time."""
    start = 0
    while len(text) - start > _PIECE:
        white = _WHITE.search(text, start + _PIECE)
        if white is None:
            break
        yield _tokens(text[start : white.start()])
        start = white.end()
    yield _tokens(text[start:] if start else text)


def _tokens(text: str) -> list[str]:
    if not text.isascii():
        for mark, replacement in _PUNCTUATION.items():
            text = text.replace(mark, replacement)
    if text.isascii():
        return text.translate(_ASCII).split()
    text = text.lower()
    return _TOKEN.findall(text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text))


def words_of_token(token: str) -> list[str]:
    """The words in a token of :func:`tokens_of`: one mostly, or none."""
    words = []
    for match in _TOKEN.findall(token):
        pieces = match.split("'")
        if len(pieces) > 1 and pieces[-1] == "s":
            pieces.pop()
        if len(pieces) != 2 or pieces[1] not in _CONTRACTED:
            words += [piece for piece in pieces if _is_word(piece)]
    return words


def _is_word(piece: str) -> bool:
    return piece.isalpha() or all(letter.isalpha() or unicodedata.category(letter)[0] == "M" for letter in piece)


class WordCounts:
    """Counts of words, and of runs of words, of the documents that are added one after the other.

    Args:
        words_of: the words in a token, of which the same token always has the same.
        keeps: whether a word counts.
        ngrams: the shortest and the longest run of words that count. Words that do not count are left out beforehand.
    """

    def __init__(
        self, words_of: Callable[[str], Sequence[str]], keeps: Callable[[str], bool], ngrams: tuple[int, int] = (1, 1)
    ) -> None:
        self._shortest, self._longest = ngrams
        self._tokens = _TokenNumbers(words_of, keeps)
        self._runs = [_RunNumbers() for _ in range(2, self._longest + 1)]
        self._tables = [_Table() for _ in range(self._shortest, self._longest + 1)]

    def add(self, pieces: Iterable[Sequence[str]]) -> None:
        """Count one document, the tokens of which come in pieces."""
        if self._longest == 1:
            self._tables[0].add(self._bag(pieces))
            return
        bags: list[Counter[int]] = [Counter() for _ in self._tables]
        carried: list[int] = []  # the words before a piece that runs into it reach back to
        for tokens in pieces:
            words = [*carried, *self._tokens.words(tokens)]
            runs = words
            for length in range(1, self._longest + 1):
                if length > 1:
                    runs = self._runs[length - 2].of(runs, words[length - 1 :])
                if length >= self._shortest:
                    # Runs that lie within the words carried over have been counted with the piece before.
                    bags[length - self._shortest].update(runs[max(len(carried) - length + 1, 0) :])
            carried = words[max(len(words) - self._longest + 1, 0) :]
        for table, bag in zip(self._tables, bags, strict=True):
            table.add(bag)

    def finish(self, min_documents: int = 1, max_fraction: float = 1.0) -> tuple[Any, tuple[str, ...]]:
        """Counts ``(D, V)`` in CSR, and the vocabulary in alphabetical order; then there is nothing to add to.

        Args:
            min_documents, max_fraction: words in fewer documents, or in a larger fraction of them, are left out, unless no
                word would be left.
        """
        most = max_fraction * self._tables[0].num_documents
        frequencies = [occurrences(table.indices) for table in self._tables]
        kept = [np.flatnonzero((each >= min_documents) & (each <= most)) for each in frequencies]
        if not any(map(len, kept)):
            kept = [np.flatnonzero(each) for each in frequencies]
        names = []
        for length, numbers in enumerate(kept, self._shortest):
            names += [self._name(length, number) for number in numbers.tolist()]
        self._tokens.clear()
        vocabulary = sorted(set(names))
        column = {name: i for i, name in enumerate(vocabulary)}
        targets = np.array([column[name] for name in names], dtype=np.int32)
        shape = (self._tables[0].num_documents, len(vocabulary))
        ends = np.cumsum([len(numbers) for numbers in kept])[:-1]
        matrices = [
            table.matrix(numbers, target, shape)
            for table, numbers, target in zip(self._tables, kept, np.split(targets, ends), strict=True)
        ]
        return functools.reduce(lambda one, other: one + other, matrices), tuple(vocabulary)

    def _bag(self, pieces: Iterable[Sequence[str]]) -> Counter[int]:
        bag: Counter[int] = Counter()
        for tokens in pieces:
            bag.update(map(self._tokens.__getitem__, tokens))
        bag.pop(_NONE, None)
        for code in self._tokens.several.keys() & bag.keys() if self._tokens.several else ():
            times = bag.pop(code)
            for number in self._tokens.several[code]:
                bag[number] += times
        return bag

    def _name(self, length: int, number: int) -> str:
        words: list[str] = []
        while length > 1:
            number, last = self._runs[length - 2].run(number)
            words.append(self._tokens.names[last])
            length -= 1
        return " ".join([self._tokens.names[number], *reversed(words)])


def occurrences(indices: np.ndarray[Any, Any], size: int = 0) -> np.ndarray[Any, Any]:
    """How often each number occurs, as ``np.bincount`` says it, which would copy all of `indices`."""
    total = np.zeros(max(size, int(indices.max(initial=-1)) + 1), np.int64)
    for start in range(0, len(indices), _BLOCK):
        total += np.bincount(indices[start : start + _BLOCK], minlength=len(total))
    return total


class _TokenNumbers(dict[str, int]):
    """The number of each token's word: a token is looked at when it first comes.

    Attributes:
        names: the words, in the order of their numbers.
        several: numbers of the words of tokens that have several, by the negative number of the token.
    """

    def __init__(self, words_of: Callable[[str], Sequence[str]], keeps: Callable[[str], bool]) -> None:
        super().__init__()
        self._words_of, self._keeps = words_of, keeps
        self._numbers: dict[str, int] = {}
        self.names: list[str] = []
        self.several: dict[int, tuple[int, ...]] = {}

    def __missing__(self, token: str) -> int:
        numbers = tuple(self._number(word) for word in self._words_of(token) if self._keeps(word))
        code = numbers[0] if len(numbers) == 1 else _NONE
        if len(numbers) > 1:
            code = _NONE - 1 - len(self.several)
            self.several[code] = numbers
        self[token] = code
        return code

    def words(self, tokens: Iterable[str]) -> Iterator[int]:
        """Numbers of words in their order."""
        for code in map(self.__getitem__, tokens):
            if code >= 0:
                yield code
            elif code != _NONE:
                yield from self.several[code]

    def _number(self, word: str) -> int:
        number = self._numbers.setdefault(word, len(self.names))
        if number == len(self.names):
            self.names.append(word)
        return number


class _RunNumbers(dict[int, int]):
    """Numbers of runs of words of one length, each a shorter run and a word."""

    def __init__(self) -> None:
        super().__init__()
        self._pairs = array("q")

    def __missing__(self, pair: int) -> int:
        self[pair] = len(self._pairs)
        self._pairs.append(pair)
        return self[pair]

    def of(self, shorter: Sequence[int], words: Sequence[int]) -> list[int]:
        """Each of `shorter`, runs in their order, with the word that follows it."""
        return [self[run << 32 | word] for run, word in zip(shorter, words, strict=False)]

    def run(self, number: int) -> tuple[int, int]:
        """The shorter run and the word."""
        return self._pairs[number] >> 32, self._pairs[number] & 0xFFFFFFFF


class _Table:
    """Nonzero counts, eight bytes each."""

    def __init__(self) -> None:
        self._indices, self._values, self._ends = array("i"), array("f"), array("q", [0])

    @property
    def num_documents(self) -> int:
        return len(self._ends) - 1

    @property
    def indices(self) -> np.ndarray[Any, Any]:
        return np.frombuffer(self._indices, np.int32) if self._indices else np.zeros(0, np.int32)

    def add(self, bag: Counter[int]) -> None:
        self._indices.extend(bag)
        self._values.extend(bag.values())
        self._ends.append(len(self._indices))

    def matrix(self, kept: np.ndarray[Any, Any], targets: np.ndarray[Any, Any], shape: tuple[int, int]) -> Any:
        """The counts of the words `kept`, in the columns `targets`, in the table's own memory: it is used up."""
        columns, values = (
            self.indices,
            np.frombuffer(self._values, np.float32) if self._values else np.zeros(0, np.float32),
        )
        ends = np.frombuffer(self._ends, np.int64).copy()
        if len(columns):
            column = np.full(int(columns.max()) + 1, -1, np.int32)
            column[kept] = targets
            size = 0
            for start in range(0, len(columns), _BLOCK):
                block = column[columns[start : start + _BLOCK]]
                stays = block >= 0
                stop = size + int(stays.sum())
                inside = (ends > start) & (ends <= start + len(block))
                lengths = np.concatenate([np.zeros(1, np.int64), np.cumsum(stays)])
                table_ends = size + lengths[ends[inside] - start]
                columns[size:stop] = block[stays]
                values[size:stop] = values[start : start + _BLOCK][stays]
                ends[inside] = table_ends
                size = stop
            columns, values = columns[:size], values[:size]
        ends = ends.astype(np.int32 if len(values) < 2**31 else np.int64)
        matrix = scipy.sparse.csr_array((values, columns, ends), shape=shape)
        matrix.sum_duplicates()
        return matrix
