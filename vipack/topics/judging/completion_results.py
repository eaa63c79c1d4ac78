"""What document completion gives: the probability of each document's held-out words, and differences between models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vipack.display import Readable, listed
from vipack.errors import UsageError
from vipack.hints import checked
from vipack.topics.judging.estimates import rate, with_error
from vipack.topics.judging.topic_words import Array
from vipack.types import Estimate

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Completion", "CompletionDifference", "compare_completions"]


@dataclass(frozen=True, eq=False, repr=False)
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
        nats, each = self.nats, self.per_document
        size = f"{abs(nats.value) / nats.se:.1f} standard errors; " if nats.se > 0 else ""
        return (
            f"{with_error(abs(nats.value), nats.se)} nats a token {'worse' if nats.value < 0 else 'better'} ({size}perplexity times "
            f"{self.perplexity_ratio:.4f}), paired over {len(self.log_probability):,} documents; "
            f"{with_error(abs(each.value), each.se)} {'worse' if each.value < 0 else 'better'} where documents count alike"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Completion(Readable):
    """How well topics inferred from one half of each document's tokens predict the other half.

    Attributes:
        log_probability: of each document's scored tokens, in nats, a mean over splits, ``(D,)``; NaN where there are none.
        num_tokens: scored tokens of each document, the same in every split, ``(D,)``.
        new_log_probability, num_new_tokens: of those scored tokens whose word is not in the observed half, means over splits, ``(D,)``.
        titles: of the documents.
        alpha: of the mixtures in each split, chosen or given; empty where mixtures or probabilities were handed in.
        num_splits: random halvings of each document.
        halves: a fingerprint of the scored halves, so that only what scores the same tokens is compared.
    """

    log_probability: Array
    num_tokens: Array
    new_log_probability: Array
    num_new_tokens: Array
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
    def perplexity_of_new_words(self) -> Estimate:
        """Perplexity of the tokens whose word is not in the observed half: repeats of a word are predicted well by every model.

        NaN where there are none.
        """
        scored = self.num_new_tokens > 0
        if not scored.any():
            return Estimate(math.nan, math.nan)
        nats = rate(-self.new_log_probability[scored], self.num_new_tokens[scored])
        return Estimate(math.exp(nats.value), math.exp(nats.value) * nats.se)

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
        new = self.perplexity_of_new_words
        if math.isfinite(new.value):
            lines.append(f"  perplexity {with_error(new.value, new.se)} of words that the other half has not")
        if self.alpha:
            shown = sorted({f"{a:g}" if isinstance(a, float) else "as given" for a in self.alpha})
            lines.append(f"  mixtures by EM at fixed topics, alpha {', '.join(shown)}")
        if self.left_out:
            lines.append(f"  left out, with fewer than two tokens: {len(self.left_out):,} ({listed(self.left_out, 3)})")
        return "\n".join(lines)


@checked
def compare_completions(completions: Mapping[str, Completion]) -> pd.DataFrame:
    """One row a model, the lowest perplexity first.

    Columns: ``perplexity``, ``perplexity_se``; ``behind``, how many nats a token worse than the best it predicts, and ``behind_se``,
    paired over documents; ``document``, nats a token as a mean over documents, and ``document_se``.

    Args:
        completions: name -> what :func:`completion` gave, of the same corpus, seed and number of splits.

    Raises:
        UsageError: no dict of completions, or they scored different tokens.
    """
    import pandas as pd

    if not isinstance(completions, Mapping) or not completions:
        raise UsageError(
            "completions: expected a dict of at least one name and Completion, as in {'lda': completion(...)}."
        )
    for name, each in completions.items():
        if not isinstance(each, Completion):
            raise UsageError(
                f"completions: {name!r} is of type {type(each).__name__}, expected a Completion; call completion for it."
            )
    order = sorted(completions, key=lambda name: completions[name].nats.value)
    best, rows = completions[order[0]], []
    for name in order:
        each, behind = completions[name], best.difference(completions[name]).nats
        rows.append(
            {
                "perplexity": each.perplexity.value,
                "perplexity_se": each.perplexity.se,
                "behind": behind.value,
                "behind_se": behind.se,
                "document": each.per_document.value,
                "document_se": each.per_document.se,
            }
        )
    return pd.DataFrame(rows, index=pd.Index(order, name="model"))


def _mean(values: Array) -> Estimate:
    return rate(values, np.ones(len(values)))
