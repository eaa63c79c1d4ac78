"""Errors and warnings of the library about its arguments, in the words of the command line."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator

from vipack.errors import VipackError, VipackWarning, warn

__all__ = ["named_as_options"]

_PHRASES = {
    "encoding='latin-1' or 'cp1252' of load_texts": "--encoding latin-1 or --encoding cp1252",
    "change rules=TextRules(...)": "see --min-letters and --stop-words",
    "; min_tokens=0 keeps them": "",
    ", min_tokens=1": "",
    "field, title: ": "--field, --title: ",
    "pass it to vipack.datasets.corpus_from_texts": "save it as a .csv file",
    "give a set of words": "name a file with a word a line",
    "a set of words": "a file with a word a line",
}
_OPTIONS = (
    "field", "title", "encoding", "stop_words", "min_letters", "min_documents", "max_fraction", "max_words", "num_topics", "steps",
    "ngrams",
)  # fmt: skip
_GIVEN = re.compile(rf"\b({'|'.join(_OPTIONS)})=(?:'([^']*)'|([\w.]+))")
_FIRST = re.compile(rf"^({'|'.join(_OPTIONS)})\b(?=[:,])")


@contextlib.contextmanager
def named_as_options() -> Iterator[None]:
    """
    Raises:
        VipackError: what is raised inside, with options in place of arguments.

    Warns:
        VipackWarning: likewise.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        except VipackError as error:
            raise type(error)(_translated(str(error))) from error
    for warning in caught:
        if isinstance(warning.message, VipackWarning):
            warn(type(warning.message)(_translated(str(warning.message))))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _translated(message: str) -> str:
    for phrase, replacement in _PHRASES.items():
        message = message.replace(phrase, replacement)
    message = _GIVEN.sub(lambda match: f"--{match[1].replace('_', '-')} {match[2] or match[3] or ''}", message)
    return _FIRST.sub(lambda match: f"--{match[1].replace('_', '-')}", message)
