"""``vipack topics --stream``: texts that are too many for memory, counted once and learned from the disk."""

from __future__ import annotations

import argparse
import csv
import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from vipack.datasets import Corpus, TextRules
from vipack.datasets.counts_on_disk import CountsOnDisk, count_on_disk
from vipack.datasets.metadata import MetadataColumns
from vipack.datasets.text_files import documents_of
from vipack.errors import DataError, DataWarning, UsageError, warn
from vipack.topics import LDA

__all__ = ["Streamed", "stream_topics"]

_BATCH, _LEAST_STEPS = 2048, 200  # documents a step; steps where --steps does not say
_SHOWN = 5_000  # documents on the page


class Streamed:
    """Topics of a stream, and some of its documents for the page.

    Attributes:
        sample: documents at equal distances, with what is known of them, and
        shares: theirs.
        largest: the topic that is most of a document, for each topic how often.
        tokens: of all documents.
    """

    def __init__(self, model: LDA, sample: Corpus, shares: Any, largest: Any, counts: CountsOnDisk) -> None:
        self.model, self.sample, self.shares, self.largest = model, sample, shares, largest
        self.num_documents, self.num_tokens = counts.num_documents, counts.num_tokens


def stream_topics(
    chosen: argparse.Namespace, rules: TextRules, folder: Path, say: Callable[[str], None], letters: int
) -> Streamed:
    """Topics by minibatches from the disk; writes documents.csv on the way.

    Raises:
        UsageError: an option that needs all texts at once.

    Warns:
        DataWarning: texts without a word that counts.
    """
    if chosen.prevalence is not None:
        raise UsageError("--stream: --prevalence needs all texts in memory; leave one of the two out.")
    with tempfile.TemporaryDirectory(prefix=".vipack-counts-", dir=folder) as scratch:
        fields: dict[str, None] = {}  # of all rows, in order
        counts = count_on_disk(_texts(chosen, fields), Path(scratch), rules, str(chosen.texts))
        count = len(counts.ends) - 1
        left_out = count - counts.num_documents
        if left_out:
            warn(DataWarning(f"{chosen.texts}: {left_out:,} of {count:,} texts have no word left and are left out."))
        say(f"{counts.num_documents:,} documents, {len(counts.vocabulary):,} words, {counts.num_tokens:,} tokens")
        model = _learned(counts, chosen, say)
        say("writing shares of documents ...")
        return _with_documents(model, counts, list(fields), chosen, folder, letters)


def _texts(chosen: argparse.Namespace, fields: dict[str, None]) -> Iterator[str]:
    for _, text, known in documents_of(Path(chosen.texts), chosen.field, chosen.title, chosen.encoding)[0]:
        fields.update(dict.fromkeys(known))
        yield text


def _learned(counts: CountsOnDisk, chosen: argparse.Namespace, say: Callable[[str], None]) -> LDA:
    steps_a_pass = max(1, round(counts.num_documents / _BATCH))
    passes = chosen.steps or max(2, -(-_LEAST_STEPS // steps_a_pass))
    model = LDA(chosen.num_topics, total_documents=counts.num_documents, random_state=chosen.seed)
    generator = np.random.default_rng(chosen.seed)
    for number in range(passes):
        for batch in counts.batches(_BATCH, generator):
            model.partial_fit(batch, vocabulary=counts.vocabulary)
        if passes <= 10 or not (number + 1) % (passes // 10):
            say(f"pass {number + 1} of {passes}, bound {model.bound_:,.0f} nats")
    return model


def _with_documents(
    model: LDA, counts: CountsOnDisk, fields: list[str], chosen: argparse.Namespace, folder: Path, letters: int
) -> Streamed:
    """
    Raises:
        DataError: the file has fewer texts than when they were counted.
    """
    every = -(-counts.num_documents // _SHOWN)
    documents, typed = documents_of(Path(chosen.texts), chosen.field, chosen.title, chosen.encoding)
    metadata, read = MetadataColumns(typed), 0
    rows, titles, shares = [], [], []
    largest = np.zeros(len(model.topics_), np.int64)
    beside = [name for name in fields if name not in {"title", *model.topic_names_}]
    with (folder / "documents.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["title", *beside, *model.topic_names_])
        for numbers, block in counts.blocks(_BATCH):
            of_block = model.transform(block)
            largest += np.bincount(of_block.argmax(axis=1), minlength=len(largest))
            for i, number in enumerate(numbers.tolist()):
                after = int(counts.kept[number]) + 1
                document = next(itertools.islice(documents, after - read - 1, None), None)
                if document is None:
                    raise DataError(f"{chosen.texts}: has fewer texts than when they were counted; start anew.")
                title, text, known = document
                read = after
                writer.writerow([title, *(known.get(name, "") for name in beside), *of_block[i].round(6)])
                if number % every == 0:
                    rows.append(block[[i]])
                    titles.append(title)
                    shares.append(of_block[i])
                    metadata.add({**known, chosen.field or "text": text[:letters]})
    matrix = scipy.sparse.vstack(rows, format="csr")
    name = Path(chosen.texts).name
    sample = Corpus(name, matrix, counts.vocabulary, tuple(titles), str(chosen.texts), "not stated", metadata)
    return Streamed(model, sample, np.array(shares), largest, counts)
