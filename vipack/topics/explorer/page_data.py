"""What the explorer's page holds of a topic model: quantised, and no more than a page can carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from vipack.topics.covariate_levels import level_means, levels_of
from vipack.topics.effect_table import Effect
from vipack.topics.explorer.document_data import clean, document_data
from vipack.topics.explorer.topic_map import divergences, plane
from vipack.topics.model_arrays import TopicModel
from vipack.topics.word_scores import LAMBDAS, expected_tokens, frex, relevant_words

__all__ = ["PageData", "page_data"]

_SHOWN = 30  # words of a topic
_MOST_WORDS = 10_000
_MOST_TOPICS_OF_A_WORD = 8
_NEAREST = 4
_NAMED_AT = 12  # the stop 0.6 of the slider, which Sievert and Shirley (2014) found best to name topics by


@dataclass(frozen=True)
class PageData:
    """The content of a page, ready for JSON, and a sentence on each kind of content that it leaves out."""

    content: dict[str, Any]
    left_out: list[str] = field(default_factory=list)


def page_data(
    model: TopicModel,
    *,
    titles: Sequence[str],
    names: Sequence[str] | None,
    texts: Sequence[str] | None,
    covariates: Mapping[str, pd.Series],
    effects: Sequence[Effect],
) -> PageData:
    """The content of a page on `model`."""
    corpus, tokens = model.corpus, expected_tokens(model)
    counts = np.asarray(corpus.counts.sum(axis=0, dtype=np.float64))
    used = np.flatnonzero(counts)
    with np.errstate(divide="ignore"):
        logs = np.log(model.topics[:, used])
    lift = logs - np.log(counts[used] / counts.sum())
    size = min(_SHOWN, len(used))
    orders = [[used[order] for order in relevant_words(logs[k], lift[k], size)] for k in range(len(logs))]
    exclusive = [used[row[np.isfinite(logs[k][row])]] for k, row in enumerate(_best(frex(model.topics[:, used]), size))]
    candidates = [np.unique(np.concatenate([*orders[k], exclusive[k]])) for k in range(len(logs))]
    common = np.argsort(-counts, kind="stable")[: min(_MOST_WORDS, len(used))]
    kept = np.unique(np.concatenate([*candidates, common]))
    position = np.full(len(counts), -1)
    position[kept] = np.arange(len(kept))
    documents, left_out = document_data(model, titles, texts, position)
    points, fraction = plane(spread := divergences(model.topics))
    shares = tokens.sum(1) / counts.sum()
    if len(kept) < len(used):
        left_out.insert(
            0, f"{len(kept):,} of {len(used):,} words are on this page: the most frequent and the most telling ones."
        )
    if len(used) < len(counts):
        left_out.insert(0, f"{len(counts) - len(used):,} words of the vocabulary do not occur in the documents.")
    topics = [
        {
            "name": clean(names[k]) if names is not None else ", ".join(corpus.vocabulary[i] for i in orders[k][_NAMED_AT][:3]),
            "named": names is not None,
            "share": _rounded(shares[k], 6),
            "point": [_rounded(value, 5) for value in points[k]],
            "words": position[candidates[k]].tolist(),
            "logs": [_rounded(value, 5) for value in np.log(model.topics[k, candidates[k]])],
            "tokens": [_rounded(value, 2) for value in tokens[k, candidates[k]]],
            "frex": position[exclusive[k]].tolist(),
            "near": [int(j) for j in np.argsort(spread[k], kind="stable") if j != k][:_NEAREST],
            "documents": documents["best"][k],
        }
        for k in range(len(logs))
    ]  # fmt: skip
    content = {
        "corpus": {
            "name": clean(corpus.name), "source": clean(corpus.source), "licence": clean(corpus.licence),
            "documents": corpus.num_documents, "words": corpus.num_words, "tokens": corpus.num_tokens,
        },
        "lambdas": [_rounded(value, 2) for value in LAMBDAS],
        "shown": size,
        "fraction": _rounded(fraction, 3),
        "topics": topics,
        "words": {
            "text": [clean(corpus.vocabulary[i]) for i in kept],
            "counts": [int(counts[i]) for i in kept],
            "documents": [int(i) for i in corpus.document_frequency[kept]],
            "topics": _topics_of_words(tokens[:, kept], counts[kept]),
        },
        "documents": {name: values for name, values in documents.items() if name != "best"},
        "covariates": [_covariate(clean(name), column, model.theta) for name, column in covariates.items()],
        "effects": [[e.topic, clean(e.term), *(_rounded(v, 5) for v in (e.mean, e.lower, e.upper))] for e in effects],
    }  # fmt: skip
    return PageData(content, left_out)


def _best(scores: np.ndarray, count: int) -> np.ndarray:
    return np.argsort(-scores, axis=1, kind="stable")[:, :count]


def _topics_of_words(tokens: np.ndarray, counts: np.ndarray) -> list[list[int]]:
    """For each word topics and the share of the word's tokens, in percent, in turns: ``[3, 81, 0, 12]``."""
    percent = np.rint(100 * tokens / np.maximum(counts, 1)).astype(np.int64)
    best = _best(percent.T, _MOST_TOPICS_OF_A_WORD)
    return [
        [int(value) for k in row if percent[k, i] > 0 for value in (k, percent[k, i])] for i, row in enumerate(best)
    ]


def _covariate(name: str, column: pd.Series, theta: np.ndarray) -> dict[str, Any]:
    levels = levels_of(column)
    sizes, means, errors = level_means(levels.codes, len(levels.names), theta)
    return {
        "name": name,
        "ordered": levels.ordered,
        "missing": levels.missing,
        "leftOut": levels.left_out,
        "levels": [clean(level) for level in levels.names],
        "counts": sizes.tolist(),
        "means": [[_rounded(value, 4) for value in row] for row in means],
        "errors": [[_rounded(value, 4) for value in row] for row in errors],
    }


def _rounded(value: float, digits: int) -> float | None:
    """A number in JSON; None, where it is not finite."""
    return round(float(value), digits) if np.isfinite(value) else None
