"""Counts of words whose log probabilities are linear in what is known of a document."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints

from vipack.errors import ShapeError
from vipack.sparse.bag_distribution import BagDistribution
from vipack.sparse.log_linear_operators import log_linear_likelihood

__all__ = ["LogLinearBagOfWords"]


class LogLinearBagOfWords(BagDistribution):
    """Word counts of documents, each word from ``softmax(theta @ weights + bias)``, of which a few rows at a time are made.

    The log density is that of ``Multinomial(total, logits=theta @ weights + bias)`` whatever the total. Products of experts such
    as ProdLDA, and topics as deviations from common frequencies, are of this form; mixtures of topics are :class:`BagOfWords`.

    Observed values are a torch CSR tensor ``(D, V)``, which is what a model gets for SciPy's CSR matrices in ``data=``, or a
    dense tensor ``(..., D, V)``.

    Args:
        theta: ``(..., D, K)``, real numbers.
        weights: ``(..., K, V)``. Leading dimensions of the two, as of particles, are broadcast.
        bias: ``(V,)``; 0 by default.
        total_count: ``(..., D)``, the number of words in each document. Only needed to draw, and ``fit.predict`` draws as
            many as the observed documents have where it is not given.
        coefficient: whether log p includes the multinomial coefficient, which depends on no parameter.

    Raises:
        ShapeError: theta, weights and bias have other shapes, or another K or V.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "theta": constraints.real_vector,
        "weights": constraints.independent(constraints.real, 2),
    }
    _words = ("weights", "bias")
    weights: Tensor
    bias: Tensor | None

    def __init__(
        self,
        theta: Tensor,
        weights: Tensor,
        bias: Tensor | None = None,
        total_count: Tensor | int | None = None,
        *,
        coefficient: bool = True,
        validate_args: bool | None = None,
    ) -> None:
        if bias is not None and bias.shape != weights.shape[-1:]:
            raise ShapeError(
                f"LogLinearBagOfWords: bias has shape {tuple(bias.shape)}, expected {tuple(weights.shape[-1:])}, a number for each word."
            )
        self._set_up(theta, (weights, bias), total_count, coefficient, validate_args)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draws of the counts, dense ``(*sample_shape, ..., D, V)``.

        Raises:
            UsageError: no `total_count` was given.
        """
        totals, width = self._totals(torch.Size(sample_shape)), self.event_shape[0]
        with torch.no_grad():
            probs = self._logits().softmax(-1).expand(*totals.shape, width).reshape(-1, width)
            counts = torch.zeros_like(probs)
            for row, (own, total) in enumerate(zip(probs, totals.reshape(-1).long().tolist(), strict=True)):
                if total:
                    drawn = torch.multinomial(own, total, replacement=True)
                    counts[row] = torch.bincount(drawn, minlength=width).to(probs.dtype)
        return counts.view(*totals.shape, width)

    def _log_likelihood(self, crow: Tensor, col: Tensor, counts: Tensor, theta: Tensor) -> Tensor:
        weights = self.weights
        if self.bias is not None:  # as the weights of one number more, which is 1
            theta = torch.cat([theta, torch.ones_like(theta[..., :1])], -1)
            weights = torch.cat([weights, self.bias.expand(*weights.shape[:-2], 1, -1)], -2)
        return log_linear_likelihood(crow, col, counts, None, theta, weights)

    def _dense_log_likelihood(self, counts: Tensor) -> Tensor:
        return (counts * self._logits().log_softmax(-1)).sum(-1)

    def _logits(self) -> Tensor:
        logits = self.theta @ self.weights
        return logits if self.bias is None else logits + self.bias
