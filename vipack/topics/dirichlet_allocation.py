"""Latent Dirichlet allocation as a Pyro model with its mean-field guide."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from vipack.errors import DataError, UsageError
from vipack.sparse import BagOfWords
from vipack.sparse.count_rows import CountRows
from vipack.sparse.passes import fused_pass

__all__ = ["DirichletAllocation"]

_START = 0.5, 5.0  # of each topic's share, and of one topic more: half as many sweeps as from nearly equal shares


class DirichletAllocation:
    """Latent Dirichlet allocation of D documents over V words, with the topic of each single word summed out::

        topic k:     words_k  ~ Dirichlet(eta)
        document d:  shares_d ~ Dirichlet(alpha)
                     counts_d ~ BagOfWords(shares_d, words)

    ``model`` and ``guide`` are a plain Pyro program of sites ``words`` ``(K, V)``, ``shares`` ``(D, K)`` and ``counts``, in
    plates ``topic`` and ``document``. The guide is a Dirichlet for each topic and each document, with the concentrations
    ``topics`` ``(K, V)`` and ``documents`` ``(D, K)`` as parameters. They are written by ``vipack.fit``: with
    ``engine=CoordinateAscent(allocation)``, in whole sweeps or in minibatches, or by gradients of ``Trace_ELBO``.

    Args:
        counts: ``(D, V)``, the data to train on; the start is drawn for them.
        num_topics: K.
        alpha: prior concentration of shares, a number or one for each topic. Variational Bayes wants it about .5 higher
            than collapsed Gibbs sampling does, since exp(digamma(x)) is about x - .5 (Asuncion et al. 2009). Leading words of a lower
            alpha are rarer and meet in fewer documents; with many topics 1 may give more coherent ones than .5.
        eta: prior concentration of words, a number, or ``(K, V)`` to give words to topics; likewise.
        learn_alpha: whether the concentration for each topic is a parameter, ``alpha``, where `alpha` is its start.

    Source: Blei, Ng and Jordan (2003), Journal of Machine Learning Research 3, 993-1022; the bound without the words'
    topics is that of equation 15 at their optimum.

    Raises:
        UsageError: a number that is not positive, or concentrations of another shape.
        DataError: `counts` is no matrix, or has no words.
    """

    def __init__(
        self, counts: Any, num_topics: int, *, alpha: Any = 0.5, eta: Any = 0.5, learn_alpha: bool = False
    ) -> None:
        if isinstance(num_topics, bool) or not isinstance(num_topics, int) or num_topics < 1:
            raise UsageError(f"num_topics: expected a whole number of at least 1, found {num_topics!r}.")
        if len(getattr(counts, "shape", ())) != 2 or 0 in counts.shape:
            raise DataError(
                f"counts: expected a matrix of documents by words, found {type(counts).__name__} of shape "
                f"{tuple(getattr(counts, 'shape', ()))}."
            )
        self.num_documents, self.num_words = map(int, counts.shape)
        self.num_topics = num_topics
        self.alpha = _concentration("alpha", alpha, (num_topics,))
        self.eta = _concentration("eta", eta, (num_topics, self.num_words))
        self.learn_alpha = learn_alpha
        self._counts = counts

    def model(self, counts: Tensor) -> None:
        """The Pyro model; `counts` ``(B, V)`` of some documents or all."""
        dtype = counts.dtype if counts.is_floating_point() else torch.get_default_dtype()
        alpha = self.alpha.to(dtype)
        if self.learn_alpha:
            alpha = pyro.param("alpha", alpha, constraint=constraints.positive, event_dim=1)
        with pyro.plate("topic", self.num_topics):
            words = pyro.sample("words", dist.Dirichlet(self.eta.to(dtype).expand(self.num_topics, self.num_words)))
        with pyro.plate("document", counts.shape[0]):
            shares = pyro.sample("shares", dist.Dirichlet(alpha))
            pyro.sample("counts", BagOfWords(shares, words, coefficient=False), obs=counts)

    def guide(self, counts: Tensor) -> None:
        """The mean-field guide of all documents, of which a minibatch takes its own."""
        positive = {"constraint": constraints.positive, "event_dim": 1}
        documents = pyro.param("documents", self.random_documents, **positive)
        topics = pyro.param("topics", lambda: self.topics_of(documents), **positive)
        with pyro.plate("topic", self.num_topics):
            pyro.sample("words", dist.Dirichlet(topics))
        with pyro.plate("document", self.num_documents) as rows:
            pyro.sample("shares", dist.Dirichlet(documents[rows]))

    def same_prior(self, other: DirichletAllocation) -> bool:
        """Whether alpha and eta are those of `other`."""
        pairs = ((self.alpha, other.alpha), (self.eta, other.eta))
        return self.learn_alpha == other.learn_alpha and all(torch.equal(one, two) for one, two in pairs)

    def random_topics(self) -> Tensor:
        """Concentrations ``(K, V)`` to start from: those of documents that are mostly of one topic each, drawn at random."""
        return self.topics_of(self.random_documents())

    def random_documents(self) -> Tensor:
        """Concentrations ``(D, K)`` by which each document is mostly of one topic, drawn at random."""
        rows = CountRows.of(self._counts, torch.get_default_dtype())
        every, one = _START
        shares = torch.full((self.num_documents, self.num_topics), every)
        shares[torch.arange(len(shares)), torch.randint(self.num_topics, (len(shares),))] += one
        totals = rows.totals.to(shares.dtype)[:, None]
        return self.alpha.to(shares.dtype) + totals * shares / shares.sum(1, keepdim=True)

    def topics_of(self, documents: Tensor) -> Tensor:
        """The concentrations ``(K, V)`` of topics that fit these documents, if each of their words is spread as their shares."""
        rows = CountRows.of(self._counts, documents.dtype)
        shares = documents.detach() / documents.detach().sum(1, keepdim=True)
        sums = fused_pass(rows, shares, torch.ones(self.num_words, self.num_topics, dtype=shares.dtype)).word_sums
        return self.eta.to(shares.dtype) + sums.T


def _concentration(name: str, value: Any, shape: tuple[int, ...]) -> Tensor:
    """As float64 tensor: ``()`` for eta, ``(K,)`` for alpha, or as it was given.

    Raises:
        UsageError: it is not positive and finite, or of another shape.
    """
    given = torch.as_tensor(value, dtype=torch.float64)
    if given.dim() and given.shape != shape:
        raise UsageError(f"{name}: expected one number or shape {shape}, found shape {tuple(given.shape)}.")
    if not bool((given > 0).all() and given.isfinite().all()):
        raise UsageError(f"{name}: a Dirichlet's concentrations are positive and finite, found {given.min().item():g}.")
    return given.expand(shape).clone() if name == "alpha" else given
