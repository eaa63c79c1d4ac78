"""Latent Dirichlet allocation as an estimator: fit, transform and read topics as scikit-learn's users do."""

from __future__ import annotations

import functools
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
import torch

from vipack.distributed import DataParallel, alone_or_together, check_alike, data_parallel_of, started_processes
from vipack.errors import UsageError
from vipack.sparse.count_rows import CountRows
from vipack.sparse.passes import column_expectations, fold_in
from vipack.topics.ascent_steps import ascend_topics, bound_of_documents, step_size
from vipack.topics.batches_together import Together, batches_together
from vipack.topics.coordinate_ascent import CoordinateAscent
from vipack.topics.dirichlet_allocation import DirichletAllocation
from vipack.topics.estimator_files import read_estimator, write_estimator
from vipack.topics.fitted_topics import FittedTopics, seed_of, warn_of_empty
from vipack.topics.seeded_topics import concentrations_of_seeds
from vipack.topics.splitting import fractions_of_pieces
from vipack.topics.word_counts import Counts, read_counts
from vipack.training import Fit, TimeLimit, fit
from vipack.training.checkpoint import unharmed
from vipack.training.stopping import SmallGain

__all__ = ["LDA"]

Array = np.ndarray[Any, Any]


class LDA(FittedTopics):
    """Topics of a corpus by latent Dirichlet allocation, fitted by coordinate ascent of variational Bayes.

    ``fit_`` is the :class:`vipack.Fit` behind it, of the Pyro program ``allocation_.model`` and ``allocation_.guide``.

    Args:
        num_topics: K.
        alpha, eta: prior concentrations of shares and words; see :class:`DirichletAllocation`.
        learn_alpha: whether each topic's alpha is learned; uneven ones make rare topics rare.
        seeds: words that a topic is to be about, ``{0: ["god", "church"], 3: [...]}``; a word may be in several topics.
        seed_weight: how many times its count in the corpus each seed word is given to its topic beforehand. These stay in
            the posterior, so that seeds hold at convergence.
        method: "coordinate_ascent", or "svi" for gradients of Trace_ELBO.
        batch_size: documents a step; all by default.
        steps: sweeps, or minibatches; None goes on until the bound gains less than `tolerance` of itself in 10.
        tolerance: see `steps`.
        normalized_sweeps: see :class:`CoordinateAscent`; at most half of `steps`. 0 for plain sweeps alone.
        time_limit: seconds of training after which to stop in any case.
        random_state: seed of everything random.
        progress: True or False; a bar in a terminal or a notebook by default.

    Attributes:
        components_: ``(K, V)`` concentrations of the topics' Dirichlet posteriors: pseudo-counts of words.
        topics_: ``(K, V)`` probabilities of words, the normalised geometric means exp(E[log words]). They predict words
            held out better than the means do, which spread eta over all of the vocabulary.
        shares_: ``(D, K)`` mean shares of the documents fitted to.
        vocabulary_, titles_: words and titles, where they were known; numbers as text otherwise.
        topic_names_: "topic 0" and so on until :meth:`rename`.
        n_iter_, bound_: steps taken, and the last bound (nats).
    """

    n_iter_: int
    bound_: float
    allocation_: DirichletAllocation
    fit_: Fit
    _eta: Array  # of the prior, () or (K, V)

    def __init__(
        self,
        num_topics: int = 20,
        *,
        alpha: Any = 0.5,
        eta: Any = 0.5,
        learn_alpha: bool = False,
        seeds: Mapping[int, Sequence[str]] | None = None,
        seed_weight: float = 1.0,
        method: Literal["coordinate_ascent", "svi"] = "coordinate_ascent",
        batch_size: int | None = None,
        steps: int | None = None,
        tolerance: float = 1e-4,
        normalized_sweeps: int = 150,
        time_limit: float | None = None,
        total_documents: int = 1_000_000,
        random_state: Any = 0,
        progress: bool | None = None,
    ) -> None:
        self.num_topics = num_topics
        self.alpha = alpha
        self.eta = eta
        self.learn_alpha = learn_alpha
        self.seeds = seeds
        self.seed_weight = seed_weight
        self.method = method
        self.batch_size = batch_size
        self.steps = steps
        self.tolerance = tolerance
        self.normalized_sweeps = normalized_sweeps
        self.time_limit = time_limit
        self.total_documents = total_documents
        self.random_state = random_state
        self.progress = progress

    def fit(self, X: Any, y: Any = None, *, vocabulary: Sequence[str] | None = None) -> Self:
        """Fit topics to counts ``(D, V)``: a SciPy matrix, an array, a DataFrame with a column a word, or a Corpus.

        Raises:
            DataError: counts that are no whole numbers of at least 0, or none at all.
            UsageError: an option that cannot be.

        Warns:
            DataWarning: documents without a word; their shares are those of the prior.
            TrustWarning: topics that are of no document; see :meth:`unused_topics`.
        """
        counts = read_counts(X)
        self._name_columns(counts, vocabulary)
        warn_of_empty(counts)
        if self.method not in ("coordinate_ascent", "svi"):
            raise UsageError(f"method: expected 'coordinate_ascent' or 'svi', found {self.method!r}.")
        self.allocation_ = DirichletAllocation(
            counts.matrix,
            self.num_topics,
            alpha=self.alpha,
            eta=self._concentrations_of_words(counts),
            learn_alpha=self.learn_alpha,
        )
        engine: Any = "auto"
        rules: tuple[Any, ...] = ()
        if self.method == "coordinate_ascent":
            normalized = self.normalized_sweeps
            if self.steps is not None:
                normalized = min(normalized, self.steps // 2)
            engine = CoordinateAscent(self.allocation_, normalized_sweeps=normalized)
            if self.steps is None and self.batch_size is None:
                rules = (SmallGain(self.tolerance, after=normalized),)
        if self.time_limit is not None:
            rules = (*rules, TimeLimit(self.time_limit))
        self._eta = self.allocation_.eta.numpy()
        self.fit_ = fit(
            self.allocation_.model,
            self.allocation_.guide,
            data=counts.matrix,
            engine=engine,
            batch_size=None if self.batch_size is None else min(self.batch_size, counts.matrix.shape[0]),
            steps=self.steps,
            stop=rules,
            seed=seed_of(self.random_state),
            progress=self.progress,
        )
        self.n_iter_, self.bound_ = (
            len(self.fit_.losses),
            -float(self.fit_.losses[-1]) if len(self.fit_.losses) else np.nan,
        )
        params = self.fit_.params
        documents = params["documents"].double().numpy()
        self.documents_ = documents
        self._take_topics(params["topics"].double().numpy(), params.get("alpha", self.allocation_.alpha))
        self._word_totals = np.asarray(counts.matrix.sum(0, dtype=np.float64)).ravel()
        self.topic_names_ = [f"topic {k}" for k in range(self.num_topics)]
        self._warn_of_unused()
        return self

    def fit_transform(self, X: Any, y: Any = None, **options: Any) -> Array:
        """``fit(X).transform(X)``."""
        return self.fit(X, y, **options).transform(X)

    def partial_fit(self, X: Any, y: Any = None, *, vocabulary: Sequence[str] | None = None) -> Self:
        """Take one step on some documents of a stream of about `total_documents`; begin with the first that come.

        Memory does not grow with the number of documents seen; there are no `shares_`: see :meth:`transform`.

        Source: Hoffman, Blei and Bach (2010), "Online learning for latent Dirichlet allocation", algorithm 2.
        """
        return self._learn(self._counts_of(X), vocabulary)

    def fit_batches(
        self,
        batches: Iterable[Any],
        *,
        vocabulary: Sequence[str] | None = None,
        distributed: bool | DataParallel | None = None,
    ) -> Self:
        """:meth:`partial_fit` on one batch after another, as a generator reads them from the disk.

        Args:
            distributed: True, or a ``DataParallel``, takes each step on a batch of every process that ``torchrun`` has started, as
                on one batch of all their documents. Each passes batches of documents of its own, all of them as many; the topics
                are the same in all.

        Raises:
            DataError: one process has fewer batches than another, or other words.
            ProcessError: a process ended or hangs.
            UsageError: words are seeds of topics, and there are several processes.
        """
        processes = started_processes(data_parallel_of(distributed))
        with alone_or_together(processes):
            if processes is None:
                for batch in batches:
                    self.partial_fit(batch, vocabulary=vocabulary)
                return self
            if self.seeds:
                raise UsageError(
                    "seeds: count words of all documents, of which each process has some; leave distributed out."
                )
            topics = zlib.crc32(self.components_.tobytes()) if hasattr(self, "components_") else None
            own = {"options": str(self.get_params()), "words": vocabulary, "topics": topics}
            check_alike(processes, own, {}, about="topics", cure="Every process must run the same script.")
            for counts, together in batches_together(processes, batches, self._counts_of):
                self._learn(counts, vocabulary, together)
        return self

    def _counts_of(self, X: Any) -> Counts:
        return self._read(X) if hasattr(self, "components_") else read_counts(X)

    def _learn(self, counts: Counts, vocabulary: Sequence[str] | None, together: Together | None = None) -> Self:
        """One step, of this process's documents and those of others."""
        started = hasattr(self, "components_")
        rows = CountRows.of(counts.matrix, torch.float32)
        scale = self.total_documents / (rows.num_rows if together is None else together.num_documents)
        for name in ("documents_", "shares_", "fit_", "allocation_"):  # of the topics as they were
            self.__dict__.pop(name, None)
        if not started:
            self._name_columns(counts, vocabulary)
            self._word_totals = np.zeros(counts.matrix.shape[1])
            self.n_iter_ = 0
            eta = self._concentrations_of_words(counts, scale)
            allocation = DirichletAllocation(counts.matrix, self.num_topics, alpha=self.alpha, eta=eta)
            self._eta, self._alpha = allocation.eta.numpy(), allocation.alpha.numpy()
            with torch.random.fork_rng([]):
                torch.manual_seed(seed_of(self.random_state))
                topics = allocation.random_topics().double()
            topics = topics if together is None else together.start(topics, allocation.eta)
            self.topic_names_ = [f"topic {k}" for k in range(self.num_topics)]
        else:
            topics = torch.from_numpy(self.components_)
        rate = step_size(self.n_iter_, 10.0 if self.n_iter_ else 0.0, 0.7)
        alpha, eta = torch.from_numpy(self._alpha), torch.from_numpy(self._eta)
        add_up = None if together is None else together.add_up
        moved = ascend_topics(rows, topics.T.float(), alpha, eta, scale=scale, rate=rate, add_up=add_up)
        totals = np.asarray(counts.matrix.sum(0, dtype=np.float64)).ravel()
        self._word_totals += totals if together is None else together.sum(totals)
        self.n_iter_ += 1
        self._take_topics(moved.topics.T.double().numpy(), alpha)
        self.bound_ = moved.bound
        return self

    def transform(self, X: Any) -> Array:
        """Mean shares ``(D, K)`` of new documents, the topics as they are; an empty one gets those of the prior."""
        concentrations = self.infer(X)
        shares: Array = concentrations / concentrations.sum(1, keepdims=True)
        return shares

    def infer(self, X: Any) -> Array:
        """Concentrations ``(D, K)`` of the Dirichlet posteriors of new documents' shares, the topics as they are."""
        self._check_fitted()
        counts = self._read(X)
        rows = CountRows.of(counts.matrix, torch.float32)
        alpha = torch.from_numpy(self._alpha)
        start = alpha.float() + rows.totals.float()[:, None] / len(alpha)
        return np.asarray(fold_in(rows, self._weights(), alpha, start, most_steps=200, tolerance=1e-3).double())

    def score(self, X: Any, y: Any = None) -> float:
        """The bound on log p(X | topics), nats: what documents, new ones or those fitted to, contribute to the ELBO."""
        self._check_fitted()
        rows = CountRows.of(self._read(X).matrix, torch.float32)
        concentrations = torch.from_numpy(self.infer(X)).float()
        topics = torch.from_numpy(self.components_.T.copy()).float()
        return float(bound_of_documents(rows, concentrations, topics, torch.from_numpy(self._alpha)).sum())

    def perplexity(self, X: Any) -> float:
        """exp(-:meth:`score` / tokens): an upper bound on it; to compare with other models use document completion."""
        tokens = float(self._read(X).matrix.sum(dtype=np.float64))
        return float(np.exp(-self.score(X) / tokens))

    def merge(self, groups: Sequence[Sequence[int]]) -> Self:
        """Topics of each group become one, in the first one's stead; words, shares and names follow.

        Raises:
            UsageError: a topic that is not there, or in two groups.
        """
        self._check_fitted()
        listed = [k for group in groups for k in group]
        count = len(self.components_)
        if len(set(listed)) < len(listed) or not all(
            isinstance(k, int | np.integer) and 0 <= k < count for k in listed
        ):
            raise UsageError(f"groups: expected topics from 0 to {count - 1}, each once, found {groups!r}.")
        target = np.arange(count)
        for group in groups:
            target[list(group)] = min(group, default=0)
        kept = np.unique(target)
        onto = (target[:, None] == kept).astype(float)
        self._alpha = onto.T @ self._alpha
        self._eta = onto.T @ self._eta if self._eta.ndim else self._eta
        self.components_ = onto.T @ self.components_
        self.topic_names_ = [self.topic_names_[k] for k in kept]
        if hasattr(self, "documents_"):
            self.documents_ = self.documents_ @ onto
        self._take_topics(self.components_, torch.from_numpy(self._alpha))
        return self

    def split(self, topic: int, X: Any, *, into: int = 2) -> Self:
        """A topic becomes several: the first part in its stead, the others as the last topics; all other topics stay as they are.

        The words that the topic is expected to have in each document get topics of their own, by latent Dirichlet allocation. Words
        and shares of the parts add up to the topic's: :meth:`merge` undoes it.

        Args:
            topic: its number.
            X: the documents fitted to, or after ``partial_fit`` some that have the topic.
            into: how many it becomes.

        Raises:
            UsageError: a topic that is not there, an `into` below 2, or other documents than those fitted to.
        """
        self._check_fitted()
        count = len(self.components_)
        if isinstance(topic, bool) or not isinstance(topic, int | np.integer) or not 0 <= topic < count:
            raise UsageError(f"topic: expected a number from 0 to {count - 1}, found {topic!r}.")
        if isinstance(into, bool) or not isinstance(into, int) or into < 2:
            raise UsageError(f"into: expected a whole number of at least 2, found {into!r}.")
        rows = CountRows.of(self._read(X).matrix, torch.float32)
        kept = getattr(self, "documents_", None)
        if kept is not None and len(kept) != rows.num_rows:
            raise UsageError(
                f"X: {rows.num_rows:,} documents, and the model was fitted to {len(kept):,}; pass those, whose shares are split too."
            )
        documents = self.infer(X) if kept is None else kept
        with torch.random.fork_rng([]):
            torch.manual_seed(seed_of(self.random_state))
            of_words, of_documents = fractions_of_pieces(
                rows,
                torch.from_numpy(documents).float(),
                torch.from_numpy(self.components_.T.copy()).float(),
                int(topic),
                into,
            )
        eta = np.broadcast_to(self._eta, self.components_.shape)
        own_eta, own_alpha = eta[topic] / into if self._eta.ndim else eta[topic], self._alpha[topic] / into
        words = own_eta + of_words.numpy().T * (self.components_[topic] - eta[topic])
        if self._eta.ndim:
            self._eta = np.concatenate([self._eta, np.repeat(own_eta[None], into - 1, 0)])
            self._eta[topic] = own_eta
        self._alpha = np.concatenate([self._alpha, np.full(into - 1, own_alpha)])
        if kept is not None:
            shares = own_alpha + of_documents.numpy() * (kept[:, [topic]] - into * own_alpha)
            self.documents_ = np.concatenate([kept, shares[:, 1:]], 1)
            self.documents_[:, topic] = shares[:, 0]
        self.components_ = np.concatenate([self.components_, words[1:]])
        self.components_[topic] = words[0]
        name = self.topic_names_[topic]
        self.topic_names_ = [*self.topic_names_, *(f"{name}, part {i}" for i in range(2, into + 1))]
        self.topic_names_[topic] = f"{name}, part 1"
        self._take_topics(self.components_, torch.from_numpy(self._alpha))
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write topics, documents and options to one file; :meth:`load` reads it, and runs nothing that is in it."""
        self._check_fitted()
        write_estimator(path, self, ("components_", "documents_", "_alpha", "_eta", "_word_totals"))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LDA:
        """What :meth:`save` wrote; without ``fit_`` and ``allocation_``.

        Raises:
            CheckpointError: missing, damaged, or of another kind.
        """
        model, _ = read_estimator(path, cls)
        with unharmed(path):
            model._take_topics(model.components_, torch.from_numpy(model._alpha))
        return model

    def _take_topics(self, concentrations: Array, alpha: torch.Tensor) -> None:
        self.components_ = concentrations
        self._alpha = alpha.detach().double().numpy().copy()
        self.__dict__.pop("topics_", None)
        self.n_features_in_ = concentrations.shape[1]
        if hasattr(self, "documents_"):
            self.shares_ = self.documents_ / self.documents_.sum(1, keepdims=True)

    @functools.cached_property
    def topics_(self) -> Array:  # type: ignore[override]
        """Computed when it is first asked for: batches of a stream take less time than this."""
        weights = torch.from_numpy(self.components_).digamma().exp()
        return (weights / weights.sum(1, keepdim=True)).numpy()

    def _weights(self) -> torch.Tensor:
        """exp(E log words) ``(V, K)``, up to factors of words."""
        topics = torch.from_numpy(self.components_.T.copy()).float()
        return column_expectations(topics, torch.ones(topics.shape[1], dtype=torch.float64)).weights

    def _concentrations_of_words(self, counts: Counts, scale: float = 1.0) -> Any:
        if not self.seeds:
            return self.eta
        totals = np.asarray(counts.matrix.sum(0, dtype=np.float64)).ravel()
        return concentrations_of_seeds(
            self.seeds, self.eta, self.seed_weight, self.num_topics, self.vocabulary_, scale * totals
        )
