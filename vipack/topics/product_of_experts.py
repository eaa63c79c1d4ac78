"""ProdLDA as a Pyro model with an amortised guide: each topic is an expert on words, and a document multiplies its experts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, softplus

from vipack.errors import UsageError
from vipack.hints import checked_class
from vipack.sparse import LogLinearBagOfWords
from vipack.topics.word_counts import read_counts

__all__ = ["ExpertDecoder", "ProductOfExperts", "WordEncoder"]

_LEAST_SCALE = 1e-3
_EPS = 1e-3  # added to the variance of a logit
_MOMENTUM = 0.1


@checked_class
class ProductOfExperts(nn.Module):
    """ProdLDA, a topic model whose words are no mixture: log probabilities of topics are averaged, not probabilities::

        document d:  logits_d ~ Normal(0, sd)                           (K)
                     counts_d ~ LogLinearBagOfWords(softmax(logits_d), normalised(weights), bias)

    ``model`` and ``guide`` are a plain Pyro program of the sites ``logits`` ``(D, K)`` and ``counts`` in the plate ``document``. The
    prior's sd is that of the Laplace approximation of a symmetric Dirichlet(alpha). Weights of the decoder are a batch
    normalisation's; see :class:`ExpertDecoder`. Rows of weights are no topics: :meth:`topics` is what the decoder makes of a
    document that is of one topic alone.

    Args:
        counts: ``(D, V)``, the data to train on: the decoder starts at the frequencies of their words.
        num_topics: K, at least 2.
        alpha: the concentration that the prior of shares stands for.
        hidden: widths of the encoder's layers.
        dropout: of the encoder's last features and of shares, in training.

    Source: Srivastava and Sutton (2017), arXiv:1703.01488, sections 3.2 and 4.

    Raises:
        UsageError: an option out of range.
        DataError: `counts` are none.
    """

    def __init__(
        self,
        counts: Any,
        num_topics: int,
        *,
        alpha: float = 1.0,
        hidden: Sequence[int] = (100,),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if num_topics < 2:
            raise UsageError(f"num_topics: expected a whole number of at least 2, found {num_topics!r}.")
        if not 0 < alpha < math.inf:
            raise UsageError(f"alpha: expected a positive number, found {alpha!r}.")
        if not 0 <= dropout < 1:
            raise UsageError(f"dropout: expected a number from 0 to below 1, found {dropout!r}.")
        if not hidden or min(hidden) < 1:
            raise UsageError(f"hidden: expected at least one width of at least 1, found {tuple(hidden)}.")
        matrix = read_counts(counts, name="counts").matrix
        self.num_topics, self.num_words, self.dropout = num_topics, int(matrix.shape[1]), float(dropout)
        self.prior_sd = math.sqrt((1 - 2 / num_topics) / alpha + 1 / (num_topics * alpha))
        self.encoder = WordEncoder(self.num_words, num_topics, tuple(hidden), self.dropout)
        self.decoder = ExpertDecoder(num_topics, self.num_words)
        frequencies = torch.from_numpy(np.asarray(matrix.sum(0, dtype=np.float64)).ravel() + 0.5)
        with torch.no_grad():
            self.decoder.bias.copy_(frequencies.log() - frequencies.log().mean())

    def model(self, counts: Tensor) -> None:
        """The Pyro model of some documents ``(B, V)``."""
        pyro.module("decoder", self.decoder)
        zeros = self.decoder.weights.new_zeros(self.num_topics)
        with pyro.plate("document", counts.shape[0]):
            logits = pyro.sample("logits", dist.Normal(zeros, self.prior_sd).to_event(1))
            shares = dropout(logits.softmax(-1), self.dropout, self.decoder.training)
            pyro.sample("counts", self.decoder(shares), obs=counts)

    def guide(self, counts: Tensor) -> None:
        """The Pyro guide q(logits | counts)."""
        pyro.module("encoder", self.encoder)
        with pyro.plate("document", counts.shape[0]):
            pyro.sample("logits", dist.Normal(*self.encoder(counts)).to_event(1))

    def topics(self) -> Tensor:
        """``(K, V)``: probabilities of words in a document of one topic alone, batch normalisation as after training."""
        with torch.no_grad():
            return self.log_probabilities(torch.eye(self.num_topics, dtype=self.decoder.weights.dtype)).exp()

    def log_probabilities(self, shares: Tensor) -> Tensor:
        """``(B, V)``, nats, of words in documents with some shares ``(B, K)``, batch normalisation as after training."""
        theta, weights = self.decoder.normalized(shares, training=False)
        return (theta @ weights + self.decoder.bias).log_softmax(-1)


class WordEncoder(nn.Module):
    """q(logits | counts): a sum of vectors of the words, then layers with softplus; location and scale of each logit ``(B, K)``.

    The first layer takes ``log(1 + count)`` of the words that a document has, and no others. Its sum is divided by the square
    root of these logs' own, since a document of thousands of words would otherwise be far from all others.
    """

    def __init__(self, num_words: int, num_topics: int, hidden: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.words = nn.Parameter(torch.empty(num_words, hidden[0]))
        nn.init.xavier_uniform_(self.words)
        self.bias = nn.Parameter(torch.zeros(hidden[0]))
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(hidden))
        self.head = nn.Linear(hidden[-1], 2 * num_topics)
        self.dropout = dropout

    def forward(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Of counts ``(B, V)``, dense or CSR."""
        logs = counts.to(self.words.dtype).log1p()
        total = (logs @ self.words.new_ones(len(self.words), 1)).clamp_min(1)
        features = softplus(logs @ self.words / total.sqrt() + self.bias)
        for layer in self.layers:
            features = softplus(layer(features))
        loc, raw = self.head(dropout(features, self.dropout, self.training)).chunk(2, -1)
        return loc, softplus(raw) + _LEAST_SCALE


class ExpertDecoder(nn.Module):
    """The distribution of counts given shares ``(..., K)``: a linear layer to logits of words, batch-normalised without a scale.

    Over documents of a batch a logit ``shares . weights_w`` has the mean and variance that those of shares give it, so that
    batch normalisation of V logits costs K numbers a word and no pass over documents and words; it keeps the mean and covariance
    of shares for use after training. A bias is learned, since it holds the words that are frequent everywhere; a scale is not.

    Source: Srivastava and Sutton (2017), section 3.2; Ioffe and Szegedy (2015), arXiv:1502.03167.
    """

    mean: Tensor
    covariance: Tensor

    def __init__(self, num_topics: int, num_words: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.empty(num_topics, num_words))
        nn.init.xavier_uniform_(self.weights)
        self.bias = nn.Parameter(torch.zeros(num_words))
        self.register_buffer("mean", torch.full((num_topics,), 1 / num_topics))
        uniform = (torch.eye(num_topics) - 1 / num_topics) / (num_topics * (num_topics + 1))  # of a flat Dirichlet
        self.register_buffer("covariance", uniform)

    def forward(self, shares: Tensor) -> LogLinearBagOfWords:
        """p(counts | shares)."""
        theta, weights = self.normalized(shares, training=self.training)
        return LogLinearBagOfWords(theta, weights, self.bias, coefficient=False)

    def normalized(self, shares: Tensor, *, training: bool) -> tuple[Tensor, Tensor]:
        """Shares less their mean, and weights over sds of logits: their product is the batch-normalised logits without the bias."""
        if training:
            rows = shares.reshape(-1, shares.shape[-1])
            mean = rows.mean(0)
            centred = rows - mean
            covariance = centred.T @ centred / len(rows)
            with torch.no_grad():
                self.mean.lerp_(mean.detach(), _MOMENTUM)
                self.covariance.lerp_(covariance.detach(), _MOMENTUM)
        else:
            mean, covariance = self.mean, self.covariance
        variance = (self.weights * (covariance @ self.weights)).sum(0)
        return shares - mean, self.weights / (variance + _EPS).sqrt()
