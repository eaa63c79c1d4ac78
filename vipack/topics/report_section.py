"""Topics as a section of a fit's page: their words, shares and documents."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pandas as pd

from vipack.display import listed
from vipack.errors import VipackError
from vipack.plots.topic_bars import topics as bars
from vipack.report.content import Link, Picture, Section, Table
from vipack.report.figures import figure_of

__all__ = ["topics_section"]

_WORDS, _DOCUMENTS, _DRAWN = 10, 3, 12


class TopicModel(Protocol):
    """What the section reads of an estimator."""

    topics_: np.ndarray[Any, Any]
    vocabulary_: tuple[str, ...]
    topic_names_: list[str]

    def topic_proportions(self) -> pd.Series[float]:
        """How much of the corpus' tokens each topic makes up."""

    def top_words(self, num_words: int = 10) -> list[tuple[str, ...]]:
        """The words that say most of each topic."""

    def top_documents(self, num_documents: int = 3) -> list[tuple[str, ...]]:
        """The titles of the documents that have most of each topic."""

    def unused_topics(self) -> list[int]:
        """The topics that are of no document."""


def topics_section(model: TopicModel, explorer: str | None = None) -> Section:
    """Top words, shares of tokens and top documents of each topic, the largest first.

    Args:
        explorer: the address of the explorer's page, for a link.
    """
    shares = model.topic_proportions().to_numpy()
    order = np.argsort(-shares, kind="stable")
    words = model.top_words(_WORDS)
    columns = {"share of tokens": shares[order], "words": [" ".join(words[k]) for k in order]}
    notes = [
        "The most probable words of each topic, its share of all tokens, and the documents that have most of it. Topics are "
        "good if their words belong together and their documents are what one would expect."
    ]
    if hasattr(model, "shares_"):
        unused = [model.topic_names_[k] for k in model.unused_topics()]
        if unused:
            notes.append(
                f"No document has a word of {listed(unused)}, whose words mean nothing: fewer topics are enough for these documents."
            )
        documents = model.top_documents(_DOCUMENTS)
        columns["documents"] = [", ".join(documents[k]) for k in order]
    names = [model.topic_names_[k] for k in order]
    frame = pd.DataFrame(columns, index=pd.Index(names, name="topic"))
    return Section(
        "Topics",
        notes,
        links=[Link(explorer, "Explore topics, words and documents")] if explorer else [],
        tables=[Table(frame, "Topics, the largest first")],
        pictures=_pictures(model, order, shares),
    )


def _pictures(model: TopicModel, order: np.ndarray, shares: np.ndarray) -> list[Picture]:
    drawn = order[:_DRAWN]
    try:
        axes = bars(
            model.topics_[drawn], model.vocabulary_, shares=shares[drawn], titles=[model.topic_names_[k] for k in drawn]
        )
    except VipackError:  # a single word, say
        return []
    caption = f"The most probable words of {'the largest' if len(drawn) < len(order) else 'all'} {len(drawn)} topics."
    return [Picture(figure_of(axes[0]), caption)]
