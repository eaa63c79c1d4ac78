"""Texts as users have them, and tokenizers of their own: functions, and vectorizers such as scikit-learn's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vipack.errors import DataError, UsageError

__all__ = ["Texts", "is_vectorizer", "said_of", "texts_of", "vectorized", "words_by"]


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts, a title for each, and what else is known of them, a DataFrame or None."""

    texts: list[str]
    titles: list[str]
    metadata: Any = None


def texts_of(texts: Any, field: str | None, title: str | None) -> Texts:
    """Texts as users have them; the other columns of a DataFrame are metadata.

    Raises:
        DataError: something is not a string.
        UsageError: `field` or `title` is no column, `texts` is a DataFrame and `field` is missing, or is none.
    """
    titles = metadata = None
    if hasattr(texts, "to_pandas") and not hasattr(texts, "iloc"):  # a table or column of polars or Arrow
        texts = texts.to_pandas()
    if hasattr(texts, "columns"):  # a DataFrame
        table, field = texts, _column(texts, field)
        texts, titles = table[field], None if title is None else table[_column(table, title, "title")]
        others = [column not in (field, title) for column in table.columns]
        metadata = table.loc[:, others] if any(others) else None
    elif field is not None or title is not None:
        raise UsageError(f"field, title: name columns of a DataFrame, found {type(texts).__name__}; leave them out.")
    names = None if titles is None else [str(each) for each in titles]
    if names is None and hasattr(texts, "iloc"):
        names = [str(label) for label in texts.index]  # which counts by itself where there is none
    strings = []
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            where = f"texts[{i}]" if names is None else f"texts[{i}] ({names[i]})"
            raise DataError(f"{where}: found {type(text).__name__}, expected a string; leave out what is missing.")
        strings.append(text)
    return Texts(strings, [str(i) for i in range(len(strings))] if names is None else names, metadata)


def _column(table: Any, name: str | None, what: str = "field") -> Any:
    """The name of the column, if there is one of that name."""
    columns = list(table.columns)
    if name is None:
        text = [column for column in columns if table[column].map(lambda value: isinstance(value, str)).any()]
        if len(text) != 1:
            listed = ", ".join(map(repr, text or columns)) or "none"
            raise UsageError(
                f"field: say which column holds the texts; {'there are' if not text else 'it may be'} {listed}."
            )
        name = text[0]
    if columns.count(name) != 1:
        raise UsageError(f"{what}: expected one column {name!r}, found {', '.join(map(repr, columns)) or 'none'}.")
    return name


def is_vectorizer(tokenizer: object) -> bool:
    """Whether it counts words as scikit-learn's ``CountVectorizer`` does."""
    methods = ("fit_transform", "get_feature_names_out")
    return not isinstance(tokenizer, type) and all(callable(getattr(tokenizer, name, None)) for name in methods)


def vectorized(texts: Sequence[str], vectorizer: Any) -> tuple[Any, tuple[str, ...]]:
    """Counts ``(D, V)`` and the vocabulary of a vectorizer, which is fitted to the texts.

    Raises:
        DataError: it fails, as where it keeps no word.
    """
    with said_of("texts"):
        counts = vectorizer.fit_transform(texts)
        return counts, tuple(str(word) for word in vectorizer.get_feature_names_out())


def words_by(tokenizer: Any) -> Callable[[str], list[str]]:
    """The words of a text by a function, or by the analyzer of an object that builds one.

    Raises:
        UsageError: it is no function.
    """
    if callable(getattr(tokenizer, "build_analyzer", None)) and not isinstance(tokenizer, type):
        tokenizer = tokenizer.build_analyzer()
    if not callable(tokenizer) or isinstance(tokenizer, type):
        cure = f"an instance, {tokenizer.__name__}()" if isinstance(tokenizer, type) else "one"
        raise UsageError(
            f"tokenizer: expected a function from a text to its words, or a vectorizer like CountVectorizer(), found "
            f"{tokenizer!r}; pass {cure}."
        )

    def words(text: str) -> list[str]:
        result = tokenizer(text)
        listed = None if isinstance(result, str | bytes) or not hasattr(result, "__iter__") else list(result)
        if listed is None or not all(isinstance(word, str) for word in listed):
            raise DataError(f"the tokenizer gave {result!r:.80}, expected a list of strings")
        return listed

    return words


@contextlib.contextmanager
def said_of(what: str) -> Iterator[None]:
    """
    Raises:
        DataError: whatever is raised inside, about `what`.
    """
    try:
        yield
    except DataError as error:
        raise DataError(f"{what}: {error}.") from None
    except Exception as error:
        raise DataError(
            f"{what}: the tokenizer raised {type(error).__name__}: {error}; correct it, or the text."
        ) from error
