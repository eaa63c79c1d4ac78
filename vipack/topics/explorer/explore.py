"""Topics, documents and covariates of a model on one page that stands alone."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from vipack.datasets import Corpus
from vipack.hints import checked
from vipack.plots.html_page import html_page, save_page
from vipack.plots.inputs import ArrayLike
from vipack.topics.covariate_levels import columns_of
from vipack.topics.effect_table import effects_of
from vipack.topics.explorer.page_data import page_data
from vipack.topics.model_arrays import strings, topic_model

__all__ = ["Explorer", "explore"]

_SCRIPTS = ("model", "map", "topic", "words", "documents", "covariates", "search", "start")


@dataclass(frozen=True, eq=False, repr=False)
class Explorer:
    """A page that shows a topic model; a notebook shows it as the value of a cell.

    Attributes:
        html: the page.
        left_out: a sentence on each kind of content that the page does not have.
    """

    html: str
    name: str
    left_out: tuple[str, ...]

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the page, and return where.

        Raises:
            UsageError: the folder does not exist.
        """
        return save_page(path, self.html)

    def _repr_html_(self) -> str:
        # Sandboxed, as the notebook's own page is no business of this one.
        return (
            f'<iframe title="{html.escape(self.name)}" sandbox="allow-scripts" style="width:100%;height:60rem;border:0" '
            f'srcdoc="{html.escape(self.html)}"></iframe>'
        )

    def __repr__(self) -> str:
        return f"Explorer({self.name!r}, {len(self.html.encode()) / 1e6:.1f} MB; write(path) keeps it)"


@checked
def explore(
    topics: ArrayLike,
    theta: ArrayLike,
    corpus: Corpus,
    *,
    path: str | os.PathLike[str] | None = None,
    titles: Sequence[str] | None = None,
    covariates: Any = None,
    effects: Any = None,
    names: Sequence[str] | None = None,
    texts: Sequence[str] | None = None,
) -> Explorer:
    """One HTML page that shows what a topic model says; it fetches nothing, and can be mailed.

    It has a map of topics, the words of each by relevance or FREX, a search for words and documents, the documents that
    show a topic best, and shares of topics by covariate. Its address keeps what is open: ``page.html#topic=3&lambda=0.4``.
    A page has at most 10,000 words and as many documents; its foot says what was left out.

    Args:
        topics: ``(K, V)``: the probability of each word in each topic.
        theta: ``(D, K)``: the share of each topic in each document.
        path: the page is written there.
        titles: D titles of documents; the corpus's by default.
        covariates: DataFrame or dict of columns of D values each: categories, numbers or dates. The page shows mean shares
            of each topic with standard errors over documents, which leave out that shares are estimates.
        effects: DataFrame with columns topic, term, mean, lower and upper, whose intervals the page draws.
        names: K names of topics; their most relevant words by default.
        texts: D texts, of which the page shows beginnings; the most frequent words by default.

    Raises:
        UsageError: values that are not probabilities, another number of titles, names or texts, or no such folder.
        ShapeError: shapes that do not agree.
    """
    model = topic_model(topics, theta, corpus)
    count = len(model.topics)
    names = strings(names, count, "names", "topic")
    titles = strings(titles, corpus.num_documents, "titles", "document")
    data = page_data(
        model,
        titles=corpus.titles if titles is None else titles,
        names=names,
        texts=strings(texts, corpus.num_documents, "texts", "document"),
        covariates=columns_of(covariates, corpus.num_documents),
        effects=[] if effects is None else effects_of(effects, count, names),
    )
    title = f"Topics of {data.content['corpus']['name']}"
    result = Explorer(_page(title, data.content, data.left_out), title, tuple(data.left_out))
    if path is not None:
        result.write(path)
    return result


def _page(title: str, content: dict[str, Any], left_out: Sequence[str]) -> str:
    # No "<" in the data: no title can end the script element that they stand in.
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in left_out)
    body = _file("page.html").replace("{{left_out}}", notes).replace("{{title}}", html.escape(title))
    data = f'<script type="application/json" id="data">{text}</script>'
    scripts = "".join(_file(f"{name}.js") for name in _SCRIPTS)
    return html_page(
        title, f"{body}{data}", style=_file("page.css"), script=f'"use strict";\n(() => {{\n{scripts}}})();\n'
    )


def _file(name: str) -> str:
    return resources.files("vipack.topics.explorer").joinpath("page", name).read_text(encoding="utf-8")
