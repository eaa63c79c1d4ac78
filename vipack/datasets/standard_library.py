"""A real text corpus that every machine has offline: the docstrings of the Python standard library."""

from __future__ import annotations

import hashlib
import io
import logging
import platform
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from vipack.cache import cache_folder, write_whole
from vipack.datasets.corpus import Corpus
from vipack.datasets.library_docstrings import library_files, library_texts
from vipack.datasets.reading import warn_uncached
from vipack.datasets.stopwords import DOCSTRING_BOILERPLATE, ENGLISH
from vipack.datasets.words import TextRules, corpus_from_texts
from vipack.hints import checked

__all__ = ["docstrings"]

_VERSION = 2  # of the building: raise it when the same sources and rules would give another corpus
_LICENCE = "PSF License Version 2"
_LOG = logging.getLogger(__name__)
# Eight words are left of about twenty once stop words and boilerplate are gone; shorter documents say too little.
_RULES = TextRules(stop_words=ENGLISH | DOCSTRING_BOILERPLATE, min_documents=3, max_fraction=0.3, min_tokens=8)


@checked
def docstrings(*, tokenizer: Any = None) -> Corpus:
    """Docstrings of this Python's standard library: about 900 documents, 2,500 words, 57,000 tokens.

    One document is a module (its docstring and its functions') or a class (its own docstring and its methods'), read
    from the source files without importing them. English function words and the boilerplate of docstrings
    (:data:`vipack.datasets.stopwords.DOCSTRING_BOILERPLATE`) are left out. Other versions of Python give other corpora.
    Built in a few seconds at first use, then read from :func:`cache_folder`.

    Args:
        tokenizer: a function or vectorizer, as of :func:`corpus_from_texts`; the corpus is then built anew, and not kept.

    Raises:
        DataError: this Python comes without source files.

    Warns:
        DataWarning: the cache cannot be written; the corpus is built in memory each time.
    """
    root = Path(sysconfig.get_path("stdlib"))
    files = library_files(root)
    if tokenizer is not None:
        texts, titles = library_texts(root, files)
        return corpus_from_texts(
            texts, titles, tokenizer=tokenizer, name="docstrings", source=_source(), licence=_LICENCE
        )
    path = cache_folder() / f"docstrings-{platform.python_version()}-v{_VERSION}-{_digest(root, files)}.corpus"
    cached = _read(path)
    if cached is not None:
        return cached
    texts, titles = library_texts(root, files)
    corpus = corpus_from_texts(texts, titles, rules=_RULES, name="docstrings", source=_source(), licence=_LICENCE)
    try:
        _write(path, corpus)
    except OSError as error:
        warn_uncached(path.parent, error, "the docstrings corpus is built again")
    return corpus


def _source() -> str:
    return f"docstrings of the standard library of {platform.python_implementation()} {platform.python_version()}"


def _digest(root: Path, files: Sequence[Path]) -> str:
    """Of the rules, and of the sources' names and sizes: distributions change and leave out modules of one version."""
    rules = f"{sys.implementation.name} {sorted(_RULES.stop_words)} {replace(_RULES, stop_words=frozenset())}"
    listing = "\n".join(f"{path.relative_to(root).as_posix()} {path.stat().st_size}" for path in files)
    return hashlib.sha256(f"{rules}\n{listing}".encode()).hexdigest()[:12]


def _write(path: Path, corpus: Corpus) -> None:
    body = io.BytesIO()
    np.savez_compressed(
        body,
        data=corpus.counts.data,
        indices=corpus.counts.indices,
        indptr=corpus.counts.indptr,
        vocabulary=np.array(corpus.vocabulary),
        titles=np.array(corpus.titles),
    )
    content = body.getvalue()
    write_whole(path, hashlib.sha256(content).digest() + content)


def _read(path: Path) -> Corpus | None:
    """The corpus that :func:`_write` wrote, or None where there is none or the file is damaged."""
    try:
        content = path.read_bytes()
    except OSError as error:
        _LOG.info("%s is not read (%s); building the corpus", path, error)
        return None
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        _LOG.info("%s is damaged; building the corpus again", path)
        return None
    with np.load(io.BytesIO(content[32:]), allow_pickle=False) as file:
        words, titles = file["vocabulary"].tolist(), file["titles"].tolist()
        arrays = (file["data"], file["indices"], file["indptr"])
    counts = scipy.sparse.csr_array(arrays, shape=(len(titles), len(words)))
    return Corpus("docstrings", counts, tuple(words), tuple(titles), _source(), _LICENCE)
