"""Document completion: how well the topics of one half of a document's words predict the other half."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from vipack.datasets import Corpus
from vipack.diagnostics.sources import positive
from vipack.display import Readable, listed
from vipack.errors import DataError, TrustWarning, UsageError, warn
from vipack.hints import checked
from vipack.topics.judging.estimates import rate, with_error
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
from vipack.types import Estimate

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Completion", "CompletionDifference", "completion", "token_halves"]

_SPLITS = 3

Theta: TypeAlias = "Callable[[Corpus], Any] | Any"
LogProbability: TypeAlias = "Callable[[Corpus, Corpus], Any] | Any"


@dataclass(frozen=True, repr=False)
class CompletionDifference(Readable):
    """How much better one model predicts the same held-out words than another, in nats; positive where the first is better.

    Attributes:
        nats: a token, with the standard error of the paired differences over documents.
        per_document: the mean over documents of nats a token, which weighs short and long ones alike.
        log_probability: of each document that both score, first less second, ``(D,)``.
    """

    nats: Estimate
    per_document: Estimate
    log_probability: Array

    @property
    def perplexity_ratio(self) -> float:
        """Perplexity of the first over that of the second."""
        return math.exp(-self.nats.value)

    def __str__(self) -> str:
        size = abs(self.nats.value) / self.nats.se if self.nats.se > 0 else math.nan
        return (
            f"{with_error(self.nats.value, self.nats.se)} nats a token better ({size:.1f} standard errors; perplexity times "
            f"{self.perplexity_ratio:.4f}), paired over {len(self.log_probability):,} documents; "
            f"{with_error(self.per_document.value, self.per_document.se)} where documents count alike"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Completion(Readable):
    """How well topics inferred from one half of each document's tokens predict the other half.

    Attributes:
        log_probability: of each document's scored tokens, in nats, a mean over splits, ``(D,)``; NaN where there are none.
        num_tokens: scored tokens of each document, the same in every split, ``(D,)``.
        titles: of the documents.
        alpha: of the mixtures in each split, chosen or given; empty where mixtures or probabilities were handed in.
        halves: what the halves were, so that only what scores the same tokens is compared.
    """

    log_probability: Array
    num_tokens: Array
    titles: tuple[str, ...]
    alpha: tuple[float | tuple[float, ...], ...]
    num_splits: int
    halves: str

    @property
    def nats(self) -> Estimate:
        """Minus log probability of a token, with its jackknife standard error over documents."""
        scored = self.num_tokens > 0
        return rate(-self.log_probability[scored], self.num_tokens[scored])

    @property
    def perplexity(self) -> Estimate:
        """``exp(nats)``."""
        value = math.exp(self.nats.value)
        return Estimate(value, value * self.nats.se)

    @property
    def per_document(self) -> Estimate:
        """The mean over documents of nats a token: short ones count as much as long ones."""
        scored = self.num_tokens > 0
        return _mean(-self.log_probability[scored] / self.num_tokens[scored])

    @property
    def left_out(self) -> tuple[str, ...]:
        """Titles of documents of fewer than two tokens, of which no half can be scored."""
        return tuple(self.titles[i] for i in np.flatnonzero(self.num_tokens == 0))

    def difference(self, other: Completion) -> CompletionDifference:
        """How much better this model predicts than `other`, from paired differences of the same documents.

        Raises:
            UsageError: the other scored other tokens.
        """
        if not isinstance(other, Completion):
            raise UsageError(
                f"other: expected a Completion, found {type(other).__name__}; call completion for it first."
            )
        if self.halves != other.halves:
            raise UsageError(
                "other: it scored other tokens, so that the two cannot be compared; call completion with the same corpus, seed and "
                "num_splits."
            )
        scored = self.num_tokens > 0
        gap, sizes = (self.log_probability - other.log_probability)[scored], self.num_tokens[scored]
        return CompletionDifference(rate(gap, sizes), _mean(gap / sizes), gap)

    def to_frame(self) -> pd.DataFrame:
        """One row a document: scored ``tokens``, their ``log_probability``, and ``nats`` a token."""
        import pandas as pd

        with np.errstate(invalid="ignore"):
            nats = -self.log_probability / self.num_tokens
        table = {"tokens": self.num_tokens.astype(np.int64), "log_probability": self.log_probability, "nats": nats}
        return pd.DataFrame(table, index=pd.Index(self.titles, name="document"))

    def __str__(self) -> str:
        scored = int((self.num_tokens > 0).sum())
        lines = [
            f"perplexity {with_error(self.perplexity.value, self.perplexity.se)}   "
            f"{with_error(self.nats.value, self.nats.se)} nats a token, "
            f"{with_error(self.per_document.value, self.per_document.se)} where documents count alike",
            f"  {int(self.num_tokens.sum()):,} tokens of {scored:,} documents, given the other half of each; "
            f"{self.num_splits} random {'split' if self.num_splits == 1 else 'splits'}, standard errors over documents",
        ]
        if self.alpha:
            shown = sorted({f"{a:g}" if isinstance(a, float) else "as given" for a in self.alpha})
            lines.append(f"  mixtures by EM at fixed topics, alpha {', '.join(shown)}")
        if self.left_out:
            lines.append(f"  left out, with fewer than two tokens: {len(self.left_out):,} ({listed(self.left_out, 3)})")
        return "\n".join(lines)


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
    totals, alphas = [], []
    for split, (observed, held_out) in enumerate(halves):
        given = arrays[split] if arrays is not None else None
        if scored_by is None:
            assert log_probability is not None
            value = log_probability(observed, held_out) if given is None else given
            log_p = checked_log_probability(value, held_out)
        elif theta is not None:
            value = theta(observed) if given is None else given
            mixtures = checked_theta(value, len(scored_by), num_tokens > 0, documents.titles)
            log_p = word_log_probabilities(scored_by, mixtures, held_out.counts)
        else:
            used = choose_alpha(scored_by, observed, _seed(seed, split, 1)) if smoothing is None else smoothing
            alphas.append(used if isinstance(used, float) else tuple(map(float, used)))
            log_p = word_log_probabilities(scored_by, fold_in(scored_by, observed.counts, used), held_out.counts)
        totals.append(document_sums(log_p, held_out.counts))
    log_probabilities = np.where(num_tokens > 0, np.mean(totals, axis=0), np.nan)
    scored = fingerprint_of([(f"split {split}", held_out.counts) for split, (_, held_out) in enumerate(halves)])
    return Completion(log_probabilities, num_tokens, documents.titles, tuple(alphas), count, scored)


def token_halves(corpus: Corpus | Any, *, num_splits: int = _SPLITS, seed: int = 0) -> list[tuple[Corpus, Corpus]]:
    """The observed and the held-out half of each document's tokens, in each split that :func:`completion` makes of this seed.

    For tools that infer mixtures or log probabilities elsewhere. The observed half gets the odd token.
    """
    documents = as_corpus(corpus)
    return [documents.halve(seed=_seed(seed, split, 0)) for split in range(positive("num_splits", num_splits))]


def _seed(seed: int, split: int, use: int) -> int:
    positive("seed", seed, 0)
    return int(np.random.SeedSequence([seed, split, use]).generate_state(1)[0])


def _mean(values: Array) -> Estimate:
    return rate(values, np.ones(len(values)))


def _of_splits(handed: Any, num_splits: int | None) -> list[Any]:
    """One array a split."""
    arrays = list(handed) if isinstance(handed, list | tuple) else [handed]
    if num_splits not in (None, len(arrays)):
        raise UsageError(
            f"num_splits: found {num_splits} for {len(arrays)} arrays of theta or log_probability; give one array a split, as a list, or a "
            "function of the halves."
        )
    return arrays


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
