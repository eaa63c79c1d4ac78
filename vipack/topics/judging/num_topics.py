"""How many topics: what held-out words, coherence, exclusivity and stability say of the numbers that were tried."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from vipack.datasets import Corpus
from vipack.diagnostics.sources import positive
from vipack.display import Readable
from vipack.errors import DataError, UsageError
from vipack.hints import checked
from vipack.progress import Progress, progress_of
from vipack.topics.judging.completion_results import Completion
from vipack.topics.judging.conclusions import CLEAR, conclusions
from vipack.topics.judging.document_completion import completion
from vipack.topics.judging.estimates import rate, with_error
from vipack.topics.judging.topic_stability import Stability, stability
from vipack.topics.judging.topic_words import Array, as_corpus, word_probabilities
from vipack.topics.judging.word_coherence import coherence
from vipack.topics.judging.word_exclusivity import exclusivity
from vipack.types import Estimate

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["NumTopicsChoice", "choose_num_topics"]

Fits: TypeAlias = "Mapping[int, Any] | Callable[[int, int], Any]"


@dataclass(frozen=True, eq=False, repr=False)
class NumTopicsChoice(Readable):
    """What several numbers of topics K give on the same documents, each over its runs.

    Attributes:
        topics: K -> the topics of each run, ``(K, V)``, rows that sum to 1.
        completions: K -> the document completion of each run.
        npmi: K -> the mean NPMI of each run's topics, ``(R,)``.
        exclusivity: K -> the mean exclusivity of each run's topics, ``(R,)``.
        stability: K -> how the topics of each run come again in the other runs of this K; empty for a single run.
        num_words: leading words of each topic that were looked at.
    """

    topics: Mapping[int, tuple[Array, ...]]
    completions: Mapping[int, tuple[Completion, ...]]
    npmi: Mapping[int, Array]
    exclusivity: Mapping[int, Array]
    stability: Mapping[int, tuple[Stability, ...]]
    num_words: int

    @property
    def num_topics(self) -> tuple[int, ...]:
        """The numbers K that were tried, ascending."""
        return tuple(self.completions)

    def nats(self, num_topics: int) -> Estimate:
        """Minus log probability of a held-out token, a mean over runs; the error is over documents and runs."""
        table, sizes = self._log_probability(num_topics)
        return self._with_runs(rate(-table, sizes), num_topics)

    def gain(self, num_topics: int, other: int) -> Estimate:
        """How much better K = `num_topics` predicts a held-out token than K = `other`, in nats.

        The error is of differences paired over documents, together with that over runs.
        """
        (one, sizes), (two, _) = self._log_probability(num_topics), self._log_probability(other)
        return self._with_runs(rate(one - two, sizes), num_topics, other)

    @property
    def sufficient(self) -> int | None:
        """The smallest K than which no larger one predicts better by more than two standard errors; None if that is the largest tried."""
        tried = self.num_topics
        for i, smaller in enumerate(tried[:-1]):
            gains = [self.gain(larger, smaller) for larger in tried[i + 1 :]]
            if not any(gain.value > CLEAR * gain.se for gain in gains):
                return smaller
        return None

    @property
    def reading(self) -> str:
        """What the figures say, and what they do not, in plain sentences."""
        return conclusions(self)

    def to_frame(self) -> pd.DataFrame:
        """One row a K: ``runs``; ``perplexity``, ``gain`` over the K before in nats a token, ``npmi`` and ``exclusivity``, each with ``_se``;
        ``jaccard``, the mean over topics and pairs of runs, and ``stable``, the share of stable topics.
        """
        import pandas as pd

        rows = []
        for before, count in zip((None, *self.num_topics), self.num_topics, strict=False):
            nats = self.nats(count)
            gain = Estimate(math.nan, math.nan) if before is None else self.gain(count, before)
            coherent, exclusive = self.over_runs(self.npmi, count), self.over_runs(self.exclusivity, count)
            again = self.stability[count]
            rows.append(
                {
                    "runs": len(self.completions[count]),
                    "perplexity": math.exp(nats.value),
                    "perplexity_se": math.exp(nats.value) * nats.se,
                    "gain": gain.value,
                    "gain_se": gain.se,
                    "npmi": coherent.value,
                    "npmi_se": coherent.se,
                    "exclusivity": exclusive.value,
                    "exclusivity_se": exclusive.se,
                    "jaccard": float(np.mean([each.mean for each in again])) if again else math.nan,
                    "stable": float(np.mean([len(each.stable) / count for each in again])) if again else math.nan,
                }
            )
        return pd.DataFrame(rows, index=pd.Index(self.num_topics, name="num_topics"))

    def over_runs(self, values: Mapping[int, Array], num_topics: int) -> Estimate:
        """The mean over runs, with the error that the scatter of runs gives, pooled over all K; NaN where each K has one run."""
        return Estimate(float(values[num_topics].mean()), _pooled_sd(values) / math.sqrt(len(values[num_topics])))

    def __str__(self) -> str:
        lines = [
            f"{'K':>5} {'perplexity':>15} {'gain, nats a token':>20} {'NPMI':>16} {'exclusivity':>15} {'Jaccard':>8} {'stable':>7}"
        ]
        for count, row in self.to_frame().iterrows():
            again = ["-", "-"] if math.isnan(row.jaccard) else [f"{row.jaccard:.2f}", f"{row.stable:.0%}"]
            gain = "" if math.isnan(row.gain) else with_error(row.gain, row.gain_se)
            lines.append(
                f"{count:>5} {with_error(row.perplexity, row.perplexity_se):>15} {gain:>20} {with_error(row.npmi, row.npmi_se):>16} "
                f"{with_error(row.exclusivity, row.exclusivity_se):>15} {again[0]:>8} {again[1]:>7}"
            )
        return "\n".join([*lines, self.reading])

    def _log_probability(self, num_topics: int) -> tuple[Array, Array]:
        """Of each scored document, a mean over runs, and its tokens."""
        if num_topics not in self.completions:
            raise UsageError(
                f"num_topics: {num_topics!r} was not tried; tried were {', '.join(map(str, self.num_topics))}."
            )
        runs = self.completions[num_topics]
        scored = runs[0].num_tokens > 0
        return np.mean([run.log_probability[scored] for run in runs], axis=0), runs[0].num_tokens[scored]

    def _with_runs(self, over_documents: Estimate, *num_topics: int) -> Estimate:
        sd = _pooled_sd({count: np.array([run.nats.value for run in runs]) for count, runs in self.completions.items()})
        variance = 0.0 if math.isnan(sd) else sd**2 * sum(1 / len(self.completions[count]) for count in num_topics)
        return Estimate(over_documents.value, math.sqrt(over_documents.se**2 + variance))


def _pooled_sd(values: Mapping[int, Array]) -> float:
    """Between runs of one K. Two or three runs tell little of their spread, those of all K together more."""
    freedom = sum(len(runs) - 1 for runs in values.values())
    squares = sum(float(np.square(runs - runs.mean()).sum()) for runs in values.values())
    return math.sqrt(squares / freedom) if freedom else math.nan


@checked
def choose_num_topics(
    fits: Fits,
    corpus: Corpus | Any,
    *,
    num_topics: Sequence[int] | None = None,
    seeds: int | Sequence[int] = 3,
    alpha: float | None = None,
    num_splits: int | None = None,
    num_words: int = 10,
    seed: int = 0,
    progress: bool | None = None,
) -> NumTopicsChoice:
    """What held-out documents, coherence, exclusivity and stability say of several numbers of topics.

    All K are scored by the same halves of the same documents, so that their differences are paired. Nothing is said of a K that was
    not tried, nor of a best one: perplexity, coherence and stability favour different K.

    Args:
        fits: a dict from K to its runs, a list of ``(K, V)`` weights of words from different seeds; or a function of K and a seed that
            fits a model to training documents and returns its topics.
        corpus: documents that were not trained on: a Corpus, or counts ``(D, V)``, dense or sparse.
        num_topics: the K to try, where `fits` is a function.
        seeds: for the function: how many, or which ones. One run of each K leaves stability and the error over runs unknown.
        alpha, num_splits, seed: as of :func:`completion`.
        num_words: leading words for NPMI, exclusivity and stability.
        progress: True or False; a bar in a terminal or a notebook by default.

    Raises:
        UsageError: fewer than two K, or topics that are not K.
        ShapeError: topics over another vocabulary.
        DataError: topics that are none, or fewer than two documents of two tokens or more.
    """
    documents = as_corpus(corpus)
    scored = int((documents.lengths > 1).sum())
    if scored < 2:
        raise DataError(
            f"{documents.name}: {scored} documents have two tokens or more; errors of the differences between K need two at least."
        )
    bar = Progress(progress_of(progress))
    try:
        runs = _runs(fits, num_topics, seeds, documents, bar)
        bar.begin("scoring topics", sum(map(len, runs.values())))
        completions: dict[int, tuple[Completion, ...]] = {}
        npmi, exclusive, again = {}, {}, {}
        for count, several in runs.items():
            halved = []
            for topics in several:
                halved.append(completion(topics, documents, alpha=alpha, num_splits=num_splits, seed=seed))
                bar()
            completions[count] = tuple(halved)
            npmi[count] = np.array([coherence(topics, documents, num_words=num_words).mean for topics in several])
            exclusive[count] = np.array([exclusivity(topics, num_words=num_words).mean() for topics in several])
            again[count] = tuple(
                stability(topics, several[:i] + several[i + 1 :], num_words=num_words, vocabulary=documents.vocabulary)
                for i, topics in enumerate(several)
                if len(several) > 1
            )
    finally:
        bar.close()
    return NumTopicsChoice({k: tuple(v) for k, v in runs.items()}, completions, npmi, exclusive, again, num_words)


def _runs(
    fits: Fits, num_topics: Sequence[int] | None, seeds: int | Sequence[int], documents: Corpus, bar: Progress
) -> dict[int, list[Array]]:
    """K -> topics ``(K, V)`` of its runs, K ascending."""
    if isinstance(fits, Mapping):
        if num_topics is not None:
            raise UsageError("num_topics: the dict of fits says which there are; leave it out.")
        given = {
            positive("fits: a number of topics", _whole(count)): _listed(runs, count) for count, runs in fits.items()
        }
    elif callable(fits):
        if not isinstance(num_topics, Iterable):
            raise UsageError(
                f"num_topics: expected the numbers to try, as in num_topics=[10, 20, 40], found {num_topics!r}."
            )
        counts = [positive("num_topics", _whole(count)) for count in num_topics]
        numbers = (
            list(range(positive("seeds", seeds)))
            if isinstance(seeds, int)
            else [positive("seeds", _whole(s), 0) for s in seeds]
        )
        _several(set(counts))
        if not numbers:
            raise UsageError("seeds: found none; give a number of seeds or a list of them.")
        bar.begin("fitting topics", len(set(counts)) * len(numbers))
        given = {}
        for count in sorted(set(counts)):
            given[count] = []
            for number in numbers:
                given[count].append(fits(count, number))
                bar()
    else:
        raise UsageError(
            f"fits: expected a dict from numbers of topics to lists of topics, or a function of a number and a seed, found "
            f"{type(fits).__name__}."
        )
    _several(set(given))
    checked_runs = {}
    for count in sorted(given):
        names = [f"K = {count}, run {i}" for i in range(len(given[count]))]
        checked_runs[count] = [
            word_probabilities(topics, documents.num_words, name=name)
            for topics, name in zip(given[count], names, strict=True)
        ]
        for topics, name in zip(checked_runs[count], names, strict=True):
            if len(topics) != count:
                raise UsageError(f"fits: {name} has {len(topics)} topics, expected {count}.")
    return checked_runs


def _several(counts: set[int]) -> None:
    if len(counts) < 2:
        raise UsageError(f"num_topics: expected at least two numbers to choose from, found {sorted(counts)}.")


def _whole(value: object) -> object:
    return int(value) if isinstance(value, np.integer) else value


def _listed(runs: Any, count: object) -> list[Any]:
    several = [runs] if getattr(runs, "ndim", 3) == 2 else list(runs) if isinstance(runs, Iterable) else []
    if not several:
        raise UsageError(f"fits: K = {count} has no run; expected a list of at least one array ({count}, V).")
    return several
