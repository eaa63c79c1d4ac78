"""Counts of words in documents that mix topics, with the topic of each single word summed out."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from vipack.compat.pytorch import copy_validation, csr_arrays, validate_sample
from vipack.errors import ShapeError, UsageError
from vipack.sparse.count_supports import Counts, Probabilities, check_counts, outside
from vipack.sparse.drawing import draw_counts
from vipack.sparse.operators import log_coefficient, log_likelihood

__all__ = ["BagOfWords"]


class BagOfWords(TorchDistribution):  # type: ignore[misc]
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
    has_rsample = False

    def __init__(
        self,
        theta: Tensor,
        beta: Tensor,
        total_count: Tensor | int | None = None,
        *,
        coefficient: bool = True,
        validate_args: bool | None = None,
    ) -> None:
        if theta.dim() < 1 or beta.dim() < 2:
            raise ShapeError(
                f"BagOfWords: theta has shape {tuple(theta.shape)} and beta {tuple(beta.shape)}; expected (..., D, K) and "
                "(..., K, V)."
            )
        if theta.shape[-1] != beta.shape[-2]:
            raise ShapeError(
                f"BagOfWords: theta has shape {tuple(theta.shape)}, so {theta.shape[-1]} topics, and beta has shape "
                f"{tuple(beta.shape)}, so {beta.shape[-2]}; theta is (..., D, K) and beta (..., K, V), with the same K."
            )
        try:
            batch_shape = torch.broadcast_shapes(theta.shape[:-1], (*beta.shape[:-2], 1))
        except RuntimeError as error:
            raise ShapeError(
                f"BagOfWords: the leading dimensions of theta {tuple(theta.shape)} and beta {tuple(beta.shape)} do not "
                "broadcast; theta is (..., D, K) and beta (..., K, V)."
            ) from error
        if theta.dim() == 1 and beta.dim() == 2:
            batch_shape = torch.Size()
        if total_count is not None:
            total_count = torch.as_tensor(total_count, device=theta.device)
            batch_shape = torch.broadcast_shapes(batch_shape, total_count.shape)
            total_count = total_count.expand(batch_shape)
        self.theta = theta.expand(*batch_shape, theta.shape[-1])
        self.beta, self.total_count, self.coefficient = beta, total_count, coefficient
        super().__init__(batch_shape, beta.shape[-1:], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> Any:
        """Whole numbers from 0 on."""
        return Counts()

    def expand(self, batch_shape: Any, _instance: Any = None) -> BagOfWords:
        """The same over more documents or particles."""
        new = type(self).__new__(type(self)) if _instance is None else _instance
        batch_shape = torch.Size(batch_shape)
        new.theta = self.theta.expand(*batch_shape, self.theta.shape[-1])
        new.total_count = None if self.total_count is None else self.total_count.expand(batch_shape)
        new.beta, new.coefficient = self.beta, self.coefficient
        TorchDistribution.__init__(new, batch_shape, self.event_shape, validate_args=False)
        copy_validation(self, new)
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """log p of the counts ``(..., D, V)``, dense or CSR, in nats ``(..., D)``.

        Raises:
            ShapeError: they have another number of words or documents.
            SupportError: some are negative or no whole numbers, if arguments are validated.
        """
        if value.layout not in (torch.strided, torch.sparse_csr):
            value = value.to_sparse_csr()
        check_counts("BagOfWords", value, self.event_shape[0], self.theta)
        try:
            validate_sample(self, value)
        except ValueError as error:
            raise outside("BagOfWords", value) from error
        return self._of_dense(value) if value.layout == torch.strided else self._of_sparse(value)

    def with_totals_of(self, value: Tensor) -> BagOfWords:
        """The same, to draw as many words as each document of `value` has, where no `total_count` was given."""
        if self.total_count is not None:
            return self
        check_counts("BagOfWords", value, self.event_shape[0], self.theta)
        if value.layout == torch.strided:
            totals = value.sum(-1)
        else:
            totals = (value @ torch.ones(value.shape[1], 1, dtype=value.dtype, device=value.device))[:, 0]
        return type(self)(self.theta, self.beta, totals, coefficient=self.coefficient, validate_args=False)

    def _of_sparse(self, value: Tensor) -> Tensor:
        crow, col, counts = csr_arrays(value)
        matrix = (crow, col, counts.to(self.theta.dtype), None)
        lead = self.batch_shape[:-1]
        theta = self.theta.expand(*lead, value.shape[0], self.theta.shape[-1])
        result: Tensor = log_likelihood(*matrix, theta, self.beta)
        return result + log_coefficient(*matrix) if self.coefficient else result

    def _of_dense(self, value: Tensor) -> Tensor:
        counts = value.to(self.theta.dtype)
        probs = self.theta @ self.beta
        counted = counts != 0
        result = torch.where(counted, counts * torch.where(counted, probs, 1.0).log(), 0.0).sum(-1)
        if not self.coefficient:
            return result
        return result + torch.lgamma(counts.sum(-1) + 1) - torch.lgamma(counts + 1).sum(-1)

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
        if self.total_count is None:
            raise UsageError(
                "BagOfWords: to draw counts it must know how many words a document has; pass total_count=, as in "
                "BagOfWords(theta, beta, total_count=torch.full((D,), 100))."
            )
        with torch.no_grad():
            return draw_counts(self.theta, self.beta, self.total_count, sample_shape)
