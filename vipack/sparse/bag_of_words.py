"""Counts of words in documents that mix topics, with the topic of each single word summed out."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from vipack.errors import UsageError
from vipack.sparse.bag_distribution import BagDistribution
from vipack.sparse.count_supports import Probabilities
from vipack.sparse.drawing import draw_counts
from vipack.sparse.operators import log_likelihood

__all__ = ["BagOfWords"]


class BagOfWords(BagDistribution):
    """Word counts of documents, each word from the topic mixture ``theta @ beta``, of which no ``(D, V)`` array is made.

    The log density is that of ``Multinomial(total, probs=theta @ beta)`` whatever the total: ``sum_w x_w log(theta . beta_w)``
    and the multinomial coefficient ``log(n! / prod_w x_w!)``. Unlike ``Multinomial``, which replaces probabilities below the
    rounding error of 1 by that, it takes them as they are, and it does not normalise: gradients are those of the
    formula. An empty document has log p = 0, a word of probability 0 that was counted -inf.

    Observed values are a torch CSR tensor ``(D, V)``, which is what a model gets for SciPy's CSR matrices in ``data=``, or a
    dense tensor ``(..., D, V)``. Time and memory grow with the number of words that documents have, not with D times V.

    Args:
        theta: ``(..., D, K)``, the shares of topics in each document, nonnegative with sum 1.
        beta: ``(..., K, V)``, the words of each topic, likewise. Leading dimensions of the two, as of particles, are
            broadcast.
        total_count: ``(..., D)``, the number of words in each document. Only needed to draw, and ``fit.predict`` draws as
            many as the observed documents have where it is not given.
        coefficient: whether log p includes the multinomial coefficient, which depends on no parameter.

    Raises:
        ShapeError: theta and beta have other shapes, or another K.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"theta": Probabilities(1), "beta": Probabilities(2)}
    _words = ("beta",)
    beta: Tensor

    def __init__(
        self,
        theta: Tensor,
        beta: Tensor,
        total_count: Tensor | int | None = None,
        *,
        coefficient: bool = True,
        validate_args: bool | None = None,
    ) -> None:
        self._set_up(theta, (beta,), total_count, coefficient, validate_args)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draws of the counts, dense ``(*sample_shape, ..., D, V)``; see :meth:`sample_csr` for large vocabularies.

        Raises:
            UsageError: no `total_count` was given.
        """
        shape = torch.Size(sample_shape) + self.batch_shape
        document, word = self._drawn(torch.Size(sample_shape))
        width = self.event_shape[0]
        counts = torch.bincount(document * width + word, minlength=shape.numel() * width)
        return counts.to(self.theta.dtype).view(*shape, width)

    def sample_csr(self) -> Tensor:
        """One draw for each of the documents, as a CSR tensor ``(D, V)``.

        Raises:
            UsageError: no `total_count` was given, or there is more than one dimension of documents.
        """
        if len(self.batch_shape) != 1:
            raise UsageError(
                f"BagOfWords: a CSR tensor has documents in one dimension, and the batch shape is {tuple(self.batch_shape)}; "
                "use sample()."
            )
        document, word = self._drawn(torch.Size())
        number, width = self.batch_shape[0], self.event_shape[0]
        keys, counts = torch.unique(document * width + word, return_counts=True)
        lengths = torch.bincount(keys // width, minlength=number)
        crow = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        return torch.sparse_csr_tensor(crow, keys % width, counts.to(self.theta.dtype), (number, width))

    def _drawn(self, sample_shape: torch.Size) -> tuple[Tensor, Tensor]:
        """The document and the word of each token."""
        with torch.no_grad():
            return draw_counts(self.theta, self.beta, self._totals(torch.Size()), sample_shape)

    def _log_likelihood(self, crow: Tensor, col: Tensor, counts: Tensor, theta: Tensor) -> Tensor:
        return log_likelihood(crow, col, counts, None, theta, self.beta)

    def _dense_log_likelihood(self, counts: Tensor) -> Tensor:
        counted = counts != 0
        probs = torch.where(counted, self.theta @ self.beta, 1.0)
        return torch.where(counted, counts * probs.log(), 0.0).sum(-1)
