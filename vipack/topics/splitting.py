"""A topic in parts: latent Dirichlet allocation of the words that the topic is expected to have in each document."""

from __future__ import annotations

import torch
from torch import Tensor

from vipack.sparse.count_rows import CountRows
from vipack.sparse.passes import column_expectations, fused_pass, row_expectations
from vipack.topics.ascent_steps import Totals, sweep

__all__ = ["fractions_of_pieces"]

_STARTS, _SWEEPS = 5, 100
_CONCENTRATION = 0.5  # of the priors of parts: see DirichletAllocation
_LEAST = 1e-9  # expected words


def fractions_of_pieces(
    rows: CountRows, documents: Tensor, topics: Tensor, topic: int, into: int
) -> tuple[Tensor, Tensor]:
    """How much of the topic each part has, of every word ``(V, into)`` and in every document ``(D, into)``; sums are 1.

    Of several random starts that of the best bound.

    Args:
        documents: concentrations ``(D, K)`` of the documents' shares.
        topics: those of the topics ``(V, K)``.
    """
    ones = torch.ones(topics.shape[1], dtype=torch.float64)
    shares, words = row_expectations(documents, ones).weights, column_expectations(topics, ones).weights
    index = torch.repeat_interleave(torch.arange(rows.num_rows), rows.lengths.long())
    column = rows.words.long()
    probability = torch.cat(
        [(shares[d] * words[w]).sum(1) for d, w in zip(index.split(1 << 16), column.split(1 << 16), strict=True)]
    )
    expected = rows.counts * shares[index, topic] * words[column, topic] / probability
    own = CountRows(rows.starts, rows.words, expected, rows.num_words)
    runs = [_run(Totals.of(own), into) for _ in range(_STARTS)]
    return max(runs, key=lambda run: run[0])[1]


def _run(totals: Totals, into: int) -> tuple[float, tuple[Tensor, Tensor]]:
    """The bound, and fractions of words and documents."""
    rows, prior = totals.rows, torch.full((into,), _CONCENTRATION, dtype=torch.float64)
    dtype = rows.counts.dtype
    mixed = torch.distributions.Dirichlet(torch.ones(into)).sample((rows.num_rows,)).to(dtype)
    documents = _CONCENTRATION + totals.documents.to(dtype)[:, None] * mixed
    flat = torch.ones(rows.num_words, into, dtype=dtype)
    topics = _CONCENTRATION + fused_pass(rows, mixed, flat).word_sums
    bound = 0.0
    for _ in range(_SWEEPS):
        topics, documents, bound = sweep(totals, topics, documents, prior, prior, lambda _: 1.9)
    return bound, (_fractions(topics - _CONCENTRATION), _fractions(documents - _CONCENTRATION))


def _fractions(expected: Tensor) -> Tensor:
    """Rows that sum to 1; equal ones where nothing is expected."""
    positive = expected.double().clamp_min(0) + _LEAST
    return positive / positive.sum(1, keepdim=True)
