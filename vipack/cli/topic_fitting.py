"""``vipack topics``: from raw texts to topics, tables of them, and a page to look at."""

from __future__ import annotations

import argparse
import sys
import time
import webbrowser
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

import vipack
from vipack.cli.option_names import named_as_options
from vipack.cli.programs import output_folder
from vipack.cli.text_tables import text_table
from vipack.cli.topic_streaming import Streamed, stream_topics
from vipack.datasets import Corpus, TextRules, load_texts
from vipack.datasets.reading import read_names
from vipack.datasets.stopwords import stop_words_of
from vipack.errors import UsageError
from vipack.topics import LDA, STM, explore
from vipack.types import StopReason

__all__ = ["run"]

_SHOWN_WORDS, _TABLE_WORDS, _TEXT_LETTERS = 8, 20, 400


def run(chosen: argparse.Namespace) -> int:
    """0, or 130 after Ctrl-C during the fit, when what there is has been written as well."""
    begin = time.monotonic()
    folder = output_folder(chosen.out)
    _say(chosen, f"reading {chosen.texts} ...")
    if chosen.stream:
        with named_as_options():
            streamed = stream_topics(
                chosen, _rules(chosen), folder, lambda message: _say(chosen, message), _TEXT_LETTERS
            )
            covariates = _covariates(streamed.sample, chosen)
        _write_stream(streamed, covariates, folder, chosen)
        return _ended(chosen, streamed.model, np.flatnonzero(streamed.largest == 0), folder, begin)
    with named_as_options():
        corpus = _read(chosen)
        covariates = _covariates(corpus, chosen)
        _say(chosen, f"{corpus.num_documents:,} documents, {corpus.num_words:,} words, {corpus.num_tokens:,} tokens")
        _say(chosen, f"finding {chosen.num_topics} topics ...")
        model, effects = _fitted(corpus, folder, chosen)
    _say(chosen, "writing the page and tables ...")
    if effects is not None:
        effects.to_csv(folder / "effects.csv", index=False)
    _write_tables(model, corpus, folder, chosen)
    beginnings = corpus.metadata[_text_column(chosen)].tolist()
    explore(
        model.topics_,
        model.shares_,
        corpus,
        path=folder / "explorer.html",
        texts=beginnings,
        covariates=covariates,
        effects=effects,
        names=model.topic_names_,
    )
    unused = np.setdiff1d(np.arange(len(model.topics_)), model.shares_.argmax(axis=1))
    _ended(chosen, model, unused, folder, begin)
    return 130 if model.fit_.stopped.reason is StopReason.INTERRUPTED else 0


def _ended(chosen: argparse.Namespace, model: LDA | STM, unused: np.ndarray, folder: Path, begin: float) -> int:
    """Say what has come out; 0."""
    print(text_table(_overview(model)))
    if len(unused):
        numbers = ", ".join(map(str, unused))
        _say(
            chosen,
            f"no text is mostly about topic {numbers}; fewer topics (--num-topics) or another --seed may suit the texts",
        )
    print(f"written to {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    page = folder / "explorer.html"
    _say(chosen, f"done in {time.monotonic() - begin:.0f} s; open {page} in a browser")
    if chosen.open and not webbrowser.open(page.resolve().as_uri()):
        _say(chosen, "no browser could be started")
    return 0


def _write_stream(
    streamed: Streamed, covariates: pd.DataFrame | None, folder: Path, chosen: argparse.Namespace
) -> None:
    """All but documents.csv, which is written."""
    model, sample = streamed.model, streamed.sample
    _say(chosen, "writing the page and tables ...")
    model.save(folder / "model.pt")
    model.word_table(_TABLE_WORDS).to_csv(folder / "top_words.csv", index=False)
    _overview(model).to_csv(folder / "topics.csv")
    figures = {
        "documents": streamed.num_documents,
        "words in the vocabulary": sample.num_words,
        "tokens": streamed.num_tokens,
        "topics": len(model.topics_),
        "steps": model.n_iter_,
        "bound on the log evidence (nats), estimated from the last batch": round(model.bound_, 1),
    }
    _write_figures(figures, folder, chosen)
    explore(
        model.topics_,
        streamed.shares,
        sample,
        path=folder / "explorer.html",
        texts=sample.metadata[_text_column(chosen)].tolist(),
        covariates=covariates,
        names=model.topic_names_,
    )


def _write_figures(figures: Mapping[str, object], folder: Path, chosen: argparse.Namespace) -> None:
    more = {"seed": chosen.seed, "texts": chosen.texts, "vipack": vipack.__version__}
    pd.Series({**figures, **more}, name="value").to_csv(folder / "corpus.csv", index_label="figure")


def _say(chosen: argparse.Namespace, message: str) -> None:
    if not chosen.quiet:
        print(message, file=sys.stderr, flush=True)


def _read(chosen: argparse.Namespace) -> Corpus:
    return load_texts(
        chosen.texts,
        field=chosen.field,
        title=chosen.title,
        rules=_rules(chosen),
        encoding=chosen.encoding,
        keep_text=_TEXT_LETTERS,
    )


def _rules(chosen: argparse.Namespace) -> TextRules:
    return TextRules(
        stop_words=_stop_words(chosen.stop_words),
        min_letters=chosen.min_letters,
        min_documents=chosen.min_documents,
        max_fraction=chosen.max_fraction,
        max_words=chosen.max_words,
        ngrams=(1, chosen.ngrams),
    )


def _stop_words(listed: str) -> frozenset[str]:
    """Those of all languages and files in a list; "none" stands for none."""
    words: set[str] = set()
    for name in filter(None, map(str.strip, listed.split(","))):
        if Path(name).is_file():
            words.update(word.lower() for word in read_names("stop words", name))
        elif name.lower() != "none":
            words |= stop_words_of(name)
    return frozenset(words)


def _covariates(corpus: Corpus, chosen: argparse.Namespace) -> pd.DataFrame | None:
    """
    Raises:
        UsageError: a column that the file does not have.
    """
    if chosen.covariates is None:
        return None
    names = [name.strip() for name in chosen.covariates.split(",")]
    columns = _known(corpus, chosen)
    if chosen.title is not None:
        columns = columns.assign(**{chosen.title: corpus.titles})
    missing = [name for name in names if name not in columns]
    if missing:
        there = (
            f"there are {', '.join(map(str, columns))}"
            if len(columns.columns)
            else f"{chosen.texts} has no other columns"
        )
        raise UsageError(
            f"--covariates {chosen.covariates}: there is no column {missing[0]!r} beside the texts; {there}."
        )
    return columns[names]


def _known(corpus: Corpus, chosen: argparse.Namespace) -> pd.DataFrame:
    """The columns beside texts, whose beginnings are one, and titles."""
    columns: pd.DataFrame = corpus.metadata.drop(columns=_text_column(chosen))
    return columns


def _text_column(chosen: argparse.Namespace) -> str:
    """Where :func:`load_texts` keeps the beginnings of texts."""
    name: str = chosen.field or "text"
    return name


def _fitted(corpus: Corpus, folder: Path, chosen: argparse.Namespace) -> tuple[LDA | STM, pd.DataFrame | None]:
    """The model, saved first of all so that nothing later can lose it, and what covariates do where there is a formula."""
    options = {
        "steps": chosen.steps,
        "random_state": chosen.seed,
        "progress": False if chosen.quiet else None,
    }
    if chosen.prevalence is None:
        topics = LDA(chosen.num_topics, **options).fit(corpus)
        topics.save(folder / "model.pt")
        return topics, None
    structural = STM(chosen.num_topics, prevalence=chosen.prevalence, **options)
    structural.fit(corpus, covariates=_known(corpus, chosen))
    structural.fit_.save(folder / "fit.pt")
    _say(chosen, "working out what covariates do ...")
    return structural, structural.effects()


def _overview(model: LDA | STM) -> pd.DataFrame:
    """A row a topic: its share of all tokens, and its words."""
    return pd.DataFrame(
        {"share": model.topic_proportions(), "words": [", ".join(words) for words in model.top_words(_SHOWN_WORDS)]},
        index=pd.Index(model.topic_names_, name="topic"),
    )


def _write_tables(model: LDA | STM, corpus: Corpus, folder: Path, chosen: argparse.Namespace) -> None:
    model.word_table(_TABLE_WORDS).to_csv(folder / "top_words.csv", index=False)
    _overview(model).to_csv(folder / "topics.csv")
    shares = pd.DataFrame(model.shares_, columns=model.topic_names_)
    # The other columns come along, so that shares can be looked at beside them.
    known, titles = _known(corpus, chosen), pd.DataFrame({"title": corpus.titles})
    beside = known[[name for name in known.columns if name not in {"title", *model.topic_names_}]]
    pd.concat([titles, beside, shares.round(6)], axis=1).to_csv(folder / "documents.csv", index=False)
    figures = {
        "documents": corpus.num_documents,
        "words in the vocabulary": corpus.num_words,
        "tokens": corpus.num_tokens,
        "median tokens of a document": float(pd.Series(corpus.lengths).median()),
        "topics": len(model.topics_),
        "steps": model.n_iter_,
        "bound on the log evidence (nats)": round(model.bound_, 1),
    }
    _write_figures(figures, folder, chosen)
