"""Topics of the docstrings of the standard library, by LDA."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import torch
from pyro.optim import ClippedAdam
from scipy.special import gammaln

import vipack
from vipack.cli.demo.models import NUM_TOPICS, TOPIC_CONCENTRATION, lda, mean_field_lda
from vipack.cli.demo.section import Section, Settings, say
from vipack.datasets import Corpus
from vipack.report.content import Picture
from vipack.report.figures import figure_of

__all__ = ["one_topic_evidence", "run_topics"]


def one_topic_evidence(corpus: Corpus, concentration: float) -> float:
    """log p of all words, in order, if all documents had one distribution over words, drawn from a Dirichlet; nats."""
    totals = np.asarray(corpus.counts.sum(axis=0, dtype=np.float64))
    prior = concentration * len(totals)
    ordered = gammaln(concentration + totals).sum() - len(totals) * gammaln(concentration)
    return float(gammaln(prior) - gammaln(prior + totals.sum()) + ordered)


def orderings(corpus: Corpus) -> float:
    """log of the number of orders in which the words of the documents could stand, which Multinomial counts; nats."""
    lengths = corpus.lengths.astype(np.float64)
    return float(gammaln(lengths + 1).sum() - gammaln(corpus.counts.data.astype(np.float64) + 1).sum())


def run_topics(settings: Settings) -> Section:
    """Fit LDA in minibatches of documents and read its topics."""
    started = time.perf_counter()
    corpus = vipack.datasets.docstrings().prune(min_documents=5, max_fraction=0.15, min_tokens=15)
    say(f"  {corpus.num_documents} documents, {corpus.num_words} words, {corpus.num_tokens} tokens: {corpus.source}")
    fit = vipack.fit(
        lda,
        mean_field_lda(*corpus.counts.shape),
        data=corpus.counts.toarray(),
        batch_size=128,
        steps=settings.topic_steps,
        seed=settings.seed,
        optim=ClippedAdam({"lr": 0.2, "lrd": 0.05 ** (1 / settings.topic_steps)}),
        dtype=torch.float64,  # shares near 0 and 1 are lost in float32
    )
    say(f"  LDA, mean-field: {fit.steps} steps in {fit.seconds:.1f} s\n")
    return _report(fit, corpus, settings, started)


def _report(fit: vipack.Fit, corpus: Corpus, settings: Settings, started: float) -> Section:
    params = fit.params
    topics = (params["topics"] / params["topics"].sum(1, keepdim=True)).numpy()
    shares = (params["documents"] / params["documents"].sum(1, keepdim=True)).numpy()
    weights = corpus.lengths @ shares / corpus.num_tokens
    order = np.argsort(-weights)
    table = _table(corpus, topics[order], shares[:, order], weights[order])
    for k, row in table.iterrows():
        say(f"  {k:2} {row['share']:5.1%}  {row['words']}")
    say()
    diagnosis = fit.diagnose(max(50, settings.num_draws // 40), seed=settings.seed)
    # As log probabilities of words in their order, which both models then have in common.
    bound = diagnosis.elbo.value - orderings(corpus)
    gain = bound - one_topic_evidence(corpus, TOPIC_CONCENTRATION)
    num_latents = NUM_TOPICS * corpus.num_words + NUM_TOPICS * corpus.num_documents
    headline, known = _conclusion(gain, diagnosis.elbo.se)
    return Section(
        title="Topics: what does the standard library talk about?",
        headline=headline,
        question=(
            f"{corpus.num_documents} documents, each the docstrings of one module or class ({corpus.source}), over a vocabulary "
            f"of {corpus.num_words:,} words. Latent Dirichlet allocation with {NUM_TOPICS} topics (Blei, Ng and Jordan, 2003) as "
            "a plain Pyro model, and a guide with one Dirichlet for each topic and each document, trained on 128 documents a "
            "step."
        ),
        verdict=diagnosis.verdict.value,
        judged=f"on how sure the guide is of the topics, of which it certifies {diagnosis.certifies}. Read them as a summary.",
        see=(
            "Each row of the table is a topic: its share of all words, its most probable words, and the documents that are "
            "most about it. Topics are good if their words belong together and their documents are what you would expect."
        ),
        trust=(
            f"{known} How sure it is of each is another matter: {diagnosis.reasons[0]}. That is the rule for a mean-field guide of "
            f"{num_latents:,} latents, whose importance weights all fall on one draw."
        ),
        tables={"topics": table},
        pictures={
            "topics": Picture(
                figure_of(
                    vipack.plots.topics(
                        topics[order],
                        corpus.vocabulary,
                        shares=weights[order],
                        titles=[f"topic {number}" for number in table.index],
                    )[0]
                ),
                "The most probable words of each topic, and the topic's share of all words.",
            ),
            "topics_losses": Picture(
                figure_of(vipack.plots.losses(fit)), "Training: the loss of minibatches, in nats."
            ),
        },
        seconds=time.perf_counter() - started,
    )


def _conclusion(gain: float, se: float) -> tuple[str, str]:
    """What the ELBO's `gain` over a single topic, in nats, says: in a headline, and in a sentence."""
    if gain > 10 * se:
        return f"{NUM_TOPICS} topics describe the words {gain:,.0f} nats better than one does.", (
            f"What is sure is that topics are there: the ELBO is a lower bound, and it is {gain:,.0f} nats above the exact log "
            "evidence of the same model with a single topic."
        )
    return f"Trained too little to find topics: {NUM_TOPICS} of them describe the words worse than one does.", (
        f"Its ELBO is {-gain:,.0f} nats below the exact log evidence of the same model with a single topic: train longer "
        "before reading anything into these topics."
    )


def _table(corpus: Corpus, topics: np.ndarray, shares: np.ndarray, weights: np.ndarray) -> pd.DataFrame:
    typical = np.argsort(-(shares * np.sqrt(corpus.lengths)[:, None]), axis=0)[:3]  # long ones before short ones
    return pd.DataFrame(
        {
            "share": weights,
            "words": [" ".join(words) for words in corpus.top_words(topics, 10)],
            "documents": [", ".join(corpus.titles[d] for d in typical[:, k]) for k in range(len(topics))],
        },
        index=pd.Index(range(1, len(topics) + 1), name="topic"),
    )
