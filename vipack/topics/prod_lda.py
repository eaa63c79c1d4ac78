"""ProdLDA as an estimator: topics by a variational autoencoder, read through its decoder."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import scipy.sparse
import torch

from vipack.datasets import Corpus
from vipack.display import listed
from vipack.errors import TrustWarning, warn
from vipack.topics.estimator_files import read_estimator, write_estimator
from vipack.topics.fitted_topics import FittedTopics, seed_of, warn_of_empty
from vipack.topics.logistic_normals import mean_shares
from vipack.topics.product_of_experts import ProductOfExperts
from vipack.topics.word_counts import read_counts
from vipack.training import Fit, TimeLimit, fit
from vipack.training.arrays import csr_tensor
from vipack.training.checkpoint import unharmed

__all__ = ["ProdLDA"]

Array = np.ndarray[Any, Any]

_PASSES, _LEAST_STEPS = 30, 1_000
_ROWS = 256  # documents at a time
_TWINS, _LOOKED_AT = 7, 10  # words in common, of so many, of topics that say the same


class ProdLDA(FittedTopics):
    """Topics of a corpus by ProdLDA, a variational autoencoder whose decoder multiplies topics rather than mixing them.

    Its topics are of fewer and more telling words than those of :class:`LDA`, and it predicts held-out words less well.
    ``module_.model`` and ``module_.guide`` are the Pyro program, and ``fit_`` the :class:`vipack.Fit` of it.

    Args:
        num_topics: K, at least 2.
        alpha, hidden, dropout: see :class:`ProductOfExperts`.
        batch_size: documents a step.
        steps: 30 passes over the documents by default, and at least 1,000 steps.
        learning_rate: of Adam, to start with; it falls along half a cosine.
        time_limit: seconds of training after which to stop in any case.
        random_state: seed of everything random.
        progress: True or False; a bar in a terminal or a notebook by default.

    Attributes:
        topics_: ``(K, V)`` probabilities of words in a document of one topic alone, through the decoder. Rows of its weights are none.
        shares_: ``(D, K)`` mean shares of the documents fitted to. A document's words are no mixture of topics by these shares.
        vocabulary_, titles_, topic_names_: as of :class:`LDA`.
        n_iter_, bound_: steps taken, and the last estimate of the bound (nats).

    Source: Srivastava and Sutton (2017), arXiv:1703.01488.
    """

    module_: ProductOfExperts
    fit_: Fit
    n_iter_: int
    bound_: float

    def __init__(
        self,
        num_topics: int = 20,
        *,
        alpha: float = 1.0,
        hidden: Sequence[int] = (100,),
        dropout: float = 0.0,
        batch_size: int = 256,
        steps: int | None = None,
        learning_rate: float = 5e-3,
        time_limit: float | None = None,
        random_state: Any = 0,
        progress: bool | None = None,
    ) -> None:
        self.num_topics = num_topics
        self.alpha = alpha
        self.hidden = hidden
        self.dropout = dropout
        self.batch_size = batch_size
        self.steps = steps
        self.learning_rate = learning_rate
        self.time_limit = time_limit
        self.random_state = random_state
        self.progress = progress

    def fit(self, X: Any, y: Any = None, *, vocabulary: Sequence[str] | None = None) -> Self:
        """Fit topics to counts ``(D, V)``: a SciPy matrix, an array, a DataFrame with a column a word, or a Corpus.

        Raises:
            DataError: counts that are no whole numbers of at least 0, or none at all.
            UsageError: an option that cannot be.

        Warns:
            DataWarning: documents without a word.
            TrustWarning: latents have collapsed, or several topics have nearly the same words.
        """
        counts = read_counts(X)
        self._name_columns(counts, vocabulary)
        warn_of_empty(counts)
        num_documents = counts.matrix.shape[0]
        batch_size = min(self.batch_size, num_documents)
        steps = max(_PASSES * -(-num_documents // batch_size), _LEAST_STEPS) if self.steps is None else self.steps
        seed = seed_of(self.random_state)
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            self.module_ = ProductOfExperts(
                counts.matrix, self.num_topics, alpha=self.alpha, hidden=self.hidden, dropout=self.dropout
            )
        self.fit_ = fit(
            self.module_.model,
            self.module_.guide,
            data=counts.matrix,
            batch_size=batch_size,
            steps=steps,
            optim=functools.partial(_adam, rate=self.learning_rate, steps=steps),
            stop=() if self.time_limit is None else (TimeLimit(self.time_limit),),
            seed=seed,
            progress=self.progress,
        )
        self.fit_.to_pyro()  # trained weights into the module
        self.module_.eval()
        losses = self.fit_.losses
        self.n_iter_, self.bound_ = (
            len(losses),
            -float(np.mean(losses[-_LEAST_STEPS // 10 :])) if len(losses) else np.nan,
        )
        self._word_totals = np.asarray(counts.matrix.sum(0, dtype=np.float64)).ravel()
        self._lengths = np.asarray(counts.matrix.sum(1, dtype=np.float64)).ravel()
        self.n_features_in_ = int(counts.matrix.shape[1])
        self.topics_ = self.module_.topics().double().numpy()
        self.topics_ /= self.topics_.sum(1, keepdims=True)
        self.shares_ = self._shares(counts.matrix)
        self.topic_names_ = [f"topic {k}" for k in range(self.num_topics)]
        self._warn_of_unused()
        self._warn_of_twins()
        return self

    def fit_transform(self, X: Any, y: Any = None, **options: Any) -> Array:
        """``fit(X).transform(X)``."""
        return self.fit(X, y, **options).transform(X)

    def transform(self, X: Any) -> Array:
        """Mean shares ``(D, K)`` of new documents by the encoder."""
        self._check_fitted()
        return self._shares(self._read(X).matrix)

    def log_probability(self, observed: Any, held_out: Any) -> Array:
        """log p, in nats, of each entry of `held_out` at the shares that `observed` has; for :func:`vipack.topics.completion`.

        Args:
            observed, held_out: halves of documents, as a Corpus or matrices ``(D, V)``.

        Returns:
            ``(nonzeros of held_out,)`` in the order of its CSR matrix.
        """
        shares = torch.from_numpy(self.transform(observed))
        matrix = held_out.counts if isinstance(held_out, Corpus) else scipy.sparse.csr_array(held_out)
        rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
        logs = np.empty(len(rows))
        for first in range(0, len(shares), _ROWS):
            with torch.no_grad():
                block = self.module_.log_probabilities(
                    shares[first : first + _ROWS].to(self.module_.decoder.bias.dtype)
                )
            entries = slice(matrix.indptr[first], matrix.indptr[min(first + _ROWS, len(shares))])
            logs[entries] = block.numpy()[rows[entries] - first, matrix.indices[entries]]
        return logs

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write topics, documents, networks and options to one file; :meth:`load` reads it, and runs nothing that is in it."""
        self._check_fitted()
        arrays = ("topics_", "shares_", "_word_totals", "_lengths")
        write_estimator(path, self, arrays, {"networks": dict(self.module_.state_dict())})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ProdLDA:
        """What :meth:`save` wrote; without ``fit_``.

        Raises:
            CheckpointError: missing, damaged, or of another kind.
        """
        model, more = read_estimator(path, cls)
        with unharmed(path):
            model.n_features_in_ = model.topics_.shape[1]
            with torch.random.fork_rng([]):
                model.module_ = ProductOfExperts(
                    np.ones((1, model.n_features_in_)),
                    model.num_topics,
                    alpha=model.alpha,
                    hidden=model.hidden,
                    dropout=model.dropout,
                )
            model.module_.load_state_dict(more["networks"])
            model.module_.eval()
        return model

    def _shares(self, matrix: Any) -> Array:
        blocks = []
        for first in range(0, matrix.shape[0], _ROWS):
            rows = matrix[first : first + _ROWS]
            with torch.no_grad():
                loc, scale = self.module_.encoder(csr_tensor(rows))
            blocks.append(mean_shares(loc.double(), scale.double()))
        return np.concatenate(blocks)

    def _warn_of_twins(self) -> None:
        """
        Warns:
            TrustWarning: topics have most of their leading words in common, as where components have collapsed.
        """
        words = [set(row) for row in np.argsort(-self.topics_, axis=1, kind="stable")[:, :_LOOKED_AT].tolist()]
        count = min(_LOOKED_AT, self.n_features_in_)
        twins = [
            f"{j} and {k}"
            for k in range(len(words))
            for j in range(k)
            if 10 * len(words[j] & words[k]) >= _TWINS * count
        ]
        if twins and count == _LOOKED_AT:
            warn(
                TrustWarning(
                    f"topics {listed(twins[:5])} have at least {_TWINS} of their {_LOOKED_AT} leading words in common"
                    f"{f' ({len(twins)} such pairs)' if len(twins) > 5 else ''}: components have collapsed; take fewer topics, more steps, "
                    "a lower learning_rate or another random_state."
                )
            )


def _adam(parameters: Any, *, rate: float, steps: int) -> Any:
    optimizer = torch.optim.Adam(parameters, lr=rate, betas=(0.9, 0.999))
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps), eta_min=rate / 100)
