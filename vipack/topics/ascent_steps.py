"""Steps of coordinate ascent of latent Dirichlet allocation, and the exact bound, without a program around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Dirichlet, kl_divergence

from vipack.errors import UsageError
from vipack.sparse.count_rows import CountRows
from vipack.sparse.passes import Expectations, column_expectations, fold_in, fused_pass, relaxed, row_expectations

__all__ = [
    "Ascended",
    "Totals",
    "ascend_topics",
    "bound_of_documents",
    "check_on_host",
    "columns_of",
    "divergence_of_documents",
    "divergence_of_topics",
    "step_size",
    "sweep",
]


class Ascended(NamedTuple):
    """What a step on some documents leads to.

    Attributes:
        topics: concentrations ``(V, K)``.
        documents: those of the documents of the step ``(B, K)``.
        bound: on all documents before the topics moved, or an estimate of it, nats.
    """

    topics: Tensor
    documents: Tensor
    bound: float


class Totals(NamedTuple):
    """All documents, with counts that are added up once.

    Attributes:
        documents: ``(D,)`` float64, tokens of each document.
        words: ``(V,)`` float64, of each word.
    """

    rows: CountRows
    documents: Tensor
    words: Tensor

    @classmethod
    def of(cls, rows: CountRows) -> Totals:
        """Added up."""
        return cls(rows, rows.totals, rows.word_totals)


def sweep(
    totals: Totals,
    topics: Tensor,
    documents: Tensor,
    alpha: Tensor,
    eta: Tensor,
    relaxation: Callable[[float], float],
    *,
    normalized: float = 0.0,
) -> Ascended:
    """One sweep of coordinate ascent over all documents; the bound is that before it.

    exp(E[log words]) sums to less than 1 over a topic's words, the less the fewer it has, so that small topics lose words to
    large ones for their size.

    Args:
        topics: ``(V, K)``.
        documents: ``(D, K)``.
        alpha: ``(K,)``, and
        eta: ``(K,)`` or ``(V, K)``, float64: concentrations of the priors.
        relaxation: how far to go, given the bound: 1 for a plain sweep.
        normalized: the power of that sum by which to divide. Above 0, q of each word's topic is not at its optimum, and the
            bound is that of this q.
    """
    shares, words = row_expectations(documents, alpha), column_expectations(topics, eta)
    weights, masses = words.weights, torch.ones(len(alpha), dtype=torch.float64)
    if normalized:
        masses = (words.shifts.exp() @ weights.double()) ** normalized
        weights = weights / masses.to(weights.dtype)
    outcome = fused_pass(totals.rows, shares.weights, weights)
    bound = float(outcome.log_likelihood.sum() + totals.documents @ shares.shifts + totals.words @ words.shifts)
    bound -= divergence_of_documents(shares, alpha) + divergence_of_topics(words, eta, len(topics))
    of_documents = outcome.theta_sums.mul_(shares.weights).add_(alpha.to(documents.dtype))
    of_words = outcome.word_sums.mul_(weights)
    bound += float(of_words.sum(0, dtype=torch.float64) @ masses.log())
    of_words.add_(eta.to(topics.dtype))
    by = relaxation(bound)
    return Ascended(_lengthened(topics, of_words, by, 0), _lengthened(documents, of_documents, by, 1), bound)


def _lengthened(old: Tensor, updated: Tensor, relaxation: float, dim: int) -> Tensor:
    """The update, gone further in its direction; the totals along `dim` are the update's."""
    if relaxation == 1:
        return updated
    totals = updated.sum(dim, keepdim=True)
    longer = relaxed(old, updated, relaxation - 1)
    return longer.mul_(totals / longer.sum(dim, keepdim=True))


def ascend_topics(
    rows: CountRows,
    topics: Tensor,
    alpha: Tensor,
    eta: Tensor,
    *,
    scale: float,
    rate: float,
    start: Tensor | None = None,
    document_steps: int = 20,
    add_up: Callable[[Tensor, float], float] | None = None,
) -> Ascended:
    """Infer some documents, then move the topics by a natural gradient, with each document standing for `scale`.

    Args:
        topics: ``(V, K)``.
        alpha: ``(K,)``, and
        eta: ``()`` or ``(K, V)``, float64: concentrations of the priors.
        rate: 1 goes all of the way to what these documents ask for.
        start: concentrations of the documents.
        add_up: adds to the words' sums ``(V, K)``, in place, and to these documents' bound those of the documents of other processes.

    Source: Hoffman, Blei and Bach (2010), algorithm 2.
    """
    if start is None:
        start = alpha.to(topics.dtype) + rows.totals.to(topics.dtype)[:, None] / len(alpha)
    prior = columns_of(eta, len(alpha))
    words = column_expectations(topics, prior)
    own = fold_in(rows, words.weights, alpha, start, most_steps=document_steps)
    shares = row_expectations(own, alpha)
    outcome = fused_pass(rows, shares.weights, words.weights)
    bound = float(outcome.log_likelihood.sum() + rows.totals @ shares.shifts + rows.word_totals @ words.shifts)
    bound -= divergence_of_documents(shares, alpha)
    bound = bound if add_up is None else add_up(outcome.word_sums, bound)
    bound = scale * bound - divergence_of_topics(words, prior, len(topics))
    target = outcome.word_sums.mul_(words.weights).mul_(scale).add_(prior.to(topics.dtype))  # no new pages for each
    return Ascended(torch.lerp(topics, target, rate, out=target), own, bound)


def bound_of_documents(rows: CountRows, documents: Tensor, topics: Tensor, alpha: Tensor) -> Tensor:
    """``(D,)`` float64, nats: each document's share of the bound, E_q[log p(x | words, shares)] - KL(q(shares) || p(shares)).

    Args:
        documents: concentrations ``(D, K)``.
        topics: ``(V, K)``.
    """
    words = column_expectations(topics, torch.ones(len(alpha), dtype=torch.float64))
    shares = row_expectations(documents, alpha)
    outcome = fused_pass(rows, shares.weights, words.weights)
    index = torch.repeat_interleave(torch.arange(rows.num_rows), rows.lengths.long())
    of_words = torch.zeros(rows.num_rows, dtype=torch.float64)
    of_words.index_add_(0, index, rows.counts.double() * words.shifts[rows.words.long()])
    divergence = kl_divergence(Dirichlet(documents.double()), Dirichlet(alpha.expand(documents.shape)))
    return outcome.log_likelihood + rows.totals * shares.shifts + of_words - divergence


def divergence_of_documents(shares: Expectations, alpha: Tensor) -> float:
    """KL(q(shares) || p(shares)) summed over documents, nats."""
    return shares.divergence - len(shares.shifts) * float(alpha.sum().lgamma() - alpha.lgamma().sum())


def divergence_of_topics(words: Expectations, eta: Tensor, num_words: int) -> float:
    """KL(q(words) || p(words)) summed over topics, nats, for priors ``(K,)`` or ``(V, K)``."""
    if eta.dim() == 2:
        return words.divergence - float((eta.sum(0).lgamma() - eta.lgamma().sum(0)).sum())
    return words.divergence - float(((num_words * eta).lgamma() - num_words * eta.lgamma()).sum())


def columns_of(eta: Tensor, num_topics: int) -> Tensor:
    """Concentrations ``()`` or ``(K, V)`` as ``(K,)`` or ``(V, K)``."""
    return eta.T.contiguous() if eta.dim() else eta.expand(num_topics)


def step_size(step: int, delay: float, forgetting: float) -> float:
    """Of the natural gradient: ``(delay + step)**-forgetting``, at most 1."""
    return min(1.0, (delay + step) ** -forgetting) if delay + step > 0 else 1.0


def check_on_host(device: torch.device, engine: str) -> None:
    """
    Raises:
        UsageError: the parameters are on another device.
    """
    if device.type != "cpu":
        raise UsageError(f"device: {engine} runs on the host, found {device}; leave device= out, or engine=.")
