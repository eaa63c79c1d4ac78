"""Corpora that are already counted: LDA-C and Matrix Market files, each with a file of words."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence

import numpy as np
import scipy.io
import scipy.sparse

from vipack.datasets.corpus import Corpus
from vipack.datasets.reading import PathLike, existing_file, read_names, read_text, unzipped
from vipack.errors import DataError
from vipack.hints import checked

__all__ = ["load_lda_c", "load_matrix_market"]


@checked
def load_lda_c(
    path: PathLike,
    vocabulary: PathLike | Sequence[str],
    *,
    titles: PathLike | Sequence[str] | None = None,
    licence: str = "not stated",
) -> Corpus:
    """A corpus in Blei's LDA-C format (``.ldac``, ``.dat``): a line ``N id:count id:count ...`` for each document.

    N is the number of different words; word ids count from 0 and are lines of the vocabulary. May be gzipped.

    Args:
        vocabulary: the words, or a file with one a line.
        titles: names of the documents, or a file with one a line; "0", "1", ... if left out.

    Raises:
        DataError: a file is missing, empty or malformed; the message names its line.
    """
    source = existing_file(path)
    words = read_names("words of the vocabulary", vocabulary)
    lines = read_text(source).rstrip().splitlines()
    if not lines:
        raise DataError(f"{source}: is empty; expected a line 'N id:count id:count ...' for each document.")
    rows, columns, values = [], [], []
    for row, line in enumerate(lines):
        where = f"{source}: line {row + 1}"
        size, *pairs = line.split() or [""]
        if not _is_count(size):
            raise DataError(
                f"{where}: starts with {size!r}, expected the number of different words; an empty document is '0'."
            )
        if int(size) != len(pairs):
            raise DataError(
                f"{where}: announces {size} words but has {len(pairs)} pairs id:count; the line may be cut off or its "
                "first number missing."
            )
        for pair in pairs:
            word, colon, count = pair.partition(":")
            if not (colon and _is_count(word) and _is_count(count)):
                raise DataError(f"{where}: found {pair!r}, expected id:count, two whole numbers, such as 17:2.")
            if int(word) >= len(words):
                raise DataError(
                    f"{where}: word id {word} is beyond the vocabulary of {len(words)} words (ids 0 to {len(words) - 1})"
                    "; give the vocabulary of this corpus, and mind that ids count from 0."
                )
            rows.append(row)
            columns.append(int(word))
            values.append(int(count))
    counts = scipy.sparse.coo_array((np.array(values, np.float32), (rows, columns)), shape=(len(lines), len(words)))
    return _corpus(source.name, counts, words, titles, str(source), licence)


@checked
def load_matrix_market(
    path: PathLike,
    vocabulary: PathLike | Sequence[str],
    *,
    transpose: bool = False,
    titles: PathLike | Sequence[str] | None = None,
    licence: str = "not stated",
) -> Corpus:
    """A corpus as a Matrix Market file (``.mtx``, gzipped or not) of documents by words.

    Args:
        vocabulary: the words, or a file with one a line.
        transpose: whether the file holds words by documents.
        titles: names of the documents, or a file with one a line; "0", "1", ... if left out.

    Raises:
        DataError: a file is missing, empty or malformed, or its columns are not the words of the vocabulary.
    """
    source = existing_file(path)
    words = read_names("words of the vocabulary", vocabulary)
    content = unzipped(source)
    if not content.startswith(b"%%MatrixMarket"):
        raise DataError(
            f"{source}: line 1 is {content[:40].decode('utf-8', 'replace').partition(chr(10))[0]!r}, expected a header "
            "such as '%%MatrixMarket matrix coordinate integer general'; write the file with scipy.io.mmwrite."
        )
    if re.search(rb"(?m)^\s*[^%\s]", content) is None:
        raise DataError(
            f"{source}: ends after its header; expected a line 'rows columns entries' and the entries, so fetch it again."
        )
    # scipy reads 1.5 in a file of integers as 1; read as real numbers, the corpus refuses it.
    header, newline, entries = content.partition(b"\n")
    content = re.sub(rb"\binteger\b", b"real", header, flags=re.IGNORECASE) + newline + entries
    try:
        with warnings.catch_warnings():
            # Whether a matrix or an array comes back changes with scipy 1.20; both do here, and old ones take no option.
            warnings.simplefilter("ignore", DeprecationWarning)
            matrix = scipy.io.mmread(io.BytesIO(content))
    except (ValueError, OverflowError) as error:
        raise DataError(
            f"{source}: is not a readable Matrix Market file ({str(error).rstrip('.')}); fetch it again, or write it with "
            "scipy.io.mmwrite."
        ) from error
    if np.iscomplexobj(matrix):
        raise DataError(f"{source}: holds complex numbers; expected counts of words, whole numbers.")
    counts = scipy.sparse.coo_array(matrix.T if transpose else matrix)
    if counts.shape[1] != len(words):
        turned = counts.shape[0] == len(words)
        cure = f"pass transpose={not transpose}" if turned else "give the vocabulary that belongs to this file"
        raise DataError(
            f"{source}: {counts.shape[0]} documents by {counts.shape[1]} words, but the vocabulary has {len(words)} words; "
            f"{cure}."
        )
    return _corpus(source.name, counts, words, titles, str(source), licence)


def _corpus(
    name: str,
    counts: scipy.sparse.coo_array,
    words: tuple[str, ...],
    titles: PathLike | Sequence[str] | None,
    source: str,
    licence: str,
) -> Corpus:
    numbers = tuple(str(row) for row in range(counts.shape[0]))
    names = numbers if titles is None else read_names("titles of the documents", titles)
    return Corpus(name, counts, words, names, source, licence)


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit()
