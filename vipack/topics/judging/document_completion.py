"""Document completion: how well the topics of one half of a document's words predict the other half."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from vipack.datasets import Corpus
from vipack.diagnostics.sources import positive
from vipack.errors import DataError, TrustWarning, UsageError, warn
from vipack.hints import checked
from vipack.topics.judging.completion_results import Completion
from vipack.topics.judging.folding import (
    LEAST,
    choose_alpha,
    document_sums,
    floored,
    fold_in,
    smoothing_of,
    word_log_probabilities,
)
from vipack.topics.judging.handed_in import checked_log_probability, checked_theta
from vipack.topics.judging.topic_words import Array, as_corpus, word_probabilities
from vipack.training.arrays import fingerprint_of

__all__ = ["completion", "token_halves"]

_SPLITS = 3

Theta: TypeAlias = "Callable[[Corpus], Any] | Any"
LogProbability: TypeAlias = "Callable[[Corpus, Corpus], Any] | Any"


@checked
def completion(
    topics: Any,
    corpus: Corpus | Any,
    *,
    alpha: float | Sequence[float] | Array | None = None,
    theta: Theta | None = None,
    log_probability: LogProbability | None = None,
    num_splits: int | None = None,
    seed: int = 0,
) -> Completion:
    """Perplexity of the held-out half of each document's tokens, given mixtures of topics inferred from the other half.

    Mixtures come from 60 steps of EM at fixed topics, smoothed by `alpha`, so that topics of all tools are judged alike. Models that
    infer by themselves hand in `theta`; those whose words are no mixture of topics (ProdLDA, ETM, CTM) hand in `log_probability`.

    Args:
        topics: ``(K, V)`` weights of words, array or tensor; rows are normalised, probabilities below 1e-12 raised to that. None with
            `log_probability`.
        corpus: documents that were not trained on: a Corpus, or counts ``(D, V)``, dense or sparse.
        alpha: what EM adds to the tokens of each topic: one number or one for each topic. By default it is chosen in each split from
            the observed half alone, half of which predicts the rest, so that no model is judged by the alpha of another.
        theta: mixtures ``(D, K)``, from the observed half alone: a function of it, or one array a split, of :func:`token_halves`.
        log_probability: in nats, of the held-out half: a function of (observed, held_out), or one array a split; ``(D, V)``, or ``(nnz,)``
            for each entry of the held-out half's CSR counts.
        num_splits: random halvings to average over; 3 by default, or as many as arrays are given.

    Raises:
        ShapeError: topics over another vocabulary.
        DataError: topics, mixtures or log probabilities that are none, or no document of two tokens or more.

    Warns:
        TrustWarning: scored words have no probability in any topic, so that the number depends on the least one, 1e-12.

    Source: Wallach, Murray, Salakhutdinov, Mimno (2009), Evaluation methods for topic models, section 5.1.
    """
    documents = as_corpus(corpus)
    if (topics is None) != (log_probability is not None):
        raise UsageError("completion: give either topics, with mixtures or without, or None and log_probability=.")
    if sum(each is not None for each in (alpha, theta, log_probability)) > 1:
        raise UsageError(
            "completion: give one of alpha, theta and log_probability; the last two leave nothing to infer."
        )
    handed = theta if theta is not None else log_probability
    arrays = None if handed is None or callable(handed) else _of_splits(handed, num_splits)
    count = positive("num_splits", _SPLITS if num_splits is None else num_splits) if arrays is None else len(arrays)
    halves = token_halves(documents, num_splits=count, seed=seed)
    num_tokens = halves[0][1].lengths.astype(np.float64)
    if not num_tokens.any():
        raise DataError(f"{documents.name}: no document has two tokens or more, so that none can be halved and scored.")
    weights = None if topics is None else word_probabilities(topics, documents.num_words)
    smoothing = None if alpha is None or weights is None else smoothing_of(alpha, len(weights))
    scored_by = None if weights is None else _scored_by(weights, halves)
    sums, alphas = [], []
    for split, (observed, held_out) in enumerate(halves):
        counts = held_out.counts
        if scored_by is None:
            assert log_probability is not None
            log_p = checked_log_probability(arrays[split] if arrays else log_probability(observed, held_out), held_out)
        else:
            if theta is not None:
                inferred = arrays[split] if arrays else theta(observed)
                mixtures = checked_theta(inferred, len(scored_by), num_tokens > 0, documents.titles)
            else:
                used = choose_alpha(scored_by, observed, _seed(seed, split, 1)) if smoothing is None else smoothing
                alphas.append(used if isinstance(used, float) else tuple(map(float, used)))
                mixtures = fold_in(scored_by, observed.counts, used)
            log_p = word_log_probabilities(scored_by, mixtures, counts)
        new = _new_words(observed, held_out)
        sums.append([document_sums(values, counts) for values in (log_p, log_p * new, new)])
    log_probabilities, new_log_probabilities, num_new_tokens = np.mean(sums, axis=0)
    log_probabilities[num_tokens == 0] = np.nan
    scored = fingerprint_of([(f"split {split}", held_out.counts) for split, (_, held_out) in enumerate(halves)])
    return Completion(
        log_probabilities,
        num_tokens,
        new_log_probabilities,
        num_new_tokens,
        documents.titles,
        tuple(alphas),
        count,
        scored,
    )


def token_halves(corpus: Corpus | Any, *, num_splits: int = _SPLITS, seed: int = 0) -> list[tuple[Corpus, Corpus]]:
    """The observed and the held-out half of each document's tokens, in each split that :func:`completion` makes of this seed.

    For tools that infer mixtures or log probabilities elsewhere. The observed half gets the odd token.
    """
    documents = as_corpus(corpus)
    return [documents.halve(seed=_seed(seed, split, 0)) for split in range(positive("num_splits", num_splits))]


def _seed(seed: int, split: int, use: int) -> int:
    positive("seed", seed, 0)
    return int(np.random.SeedSequence([seed, split, use]).generate_state(1)[0])


def _of_splits(handed: Any, num_splits: int | None) -> list[Any]:
    """One array a split."""
    several = isinstance(handed, list | tuple) and len(handed) > 0 and hasattr(handed[0], "shape")
    arrays = list(handed) if several else [handed]
    if num_splits not in (None, len(arrays)):
        raise UsageError(
            f"num_splits: found {num_splits} for {len(arrays)} arrays of theta or log_probability; give one array a split, as a list, or a "
            "function of the halves."
        )
    return arrays


def _new_words(observed: Corpus, held_out: Corpus) -> Array:
    """1 for each entry of the held-out half whose word the observed half of the document has not, ``(nnz,)``."""
    seen, scored = (
        np.repeat(np.arange(half.num_documents), np.diff(half.counts.indptr)) * half.num_words + half.counts.indices
        for half in (observed, held_out)
    )
    return np.isin(scored, seen, assume_unique=True, invert=True).astype(np.float64)


def _scored_by(weights: Array, halves: list[tuple[Corpus, Corpus]]) -> Array:
    """The topics with their least probabilities.

    Warns:
        TrustWarning: a scored word has a lower probability than that in all topics.
    """
    absent = weights.max(0) < LEAST
    scored = sum(int(held_out.counts[:, absent].sum()) for _, held_out in halves) / len(halves)
    if scored:
        share = scored / halves[0][1].num_tokens
        warn(
            TrustWarning(
                f"completion: {scored:,.0f} held-out tokens ({share:.2%}) are of words to which no topic gives a probability; each counts "
                f"{-math.log(LEAST):.1f} nats, by a least probability of {LEAST:g}. Smooth the topics, or drop words that were not trained on."
            )
        )
    return floored(weights)
