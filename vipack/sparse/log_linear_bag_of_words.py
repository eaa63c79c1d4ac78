"""Counts of words whose log probabilities are linear in what is known of a document."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from vipack.compat.pytorch import copy_validation, csr_arrays, validate_sample
from vipack.errors import ShapeError, UsageError
from vipack.sparse.count_supports import Counts, check_counts, outside
from vipack.sparse.log_linear_operators import log_linear_likelihood
from vipack.sparse.operators import log_coefficient

__all__ = ["LogLinearBagOfWords"]


class LogLinearBagOfWords(TorchDistribution):  # type: ignore[misc]
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
    has_rsample = False

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
        shapes = f"theta has shape {tuple(theta.shape)} and weights {tuple(weights.shape)}"
        if theta.dim() < 2 or weights.dim() < 2 or theta.shape[-1] != weights.shape[-2]:
            raise ShapeError(
                f"LogLinearBagOfWords: {shapes}; theta is (..., D, K) and weights (..., K, V), with the same K."
            )
        if bias is not None and bias.shape != weights.shape[-1:]:
            raise ShapeError(
                f"LogLinearBagOfWords: bias has shape {tuple(bias.shape)}, expected {tuple(weights.shape[-1:])}, a number for each word."
            )
        try:
            batch_shape = torch.broadcast_shapes(theta.shape[:-1], (*weights.shape[:-2], 1))
        except RuntimeError as error:
            raise ShapeError(f"LogLinearBagOfWords: {shapes}; their leading dimensions do not broadcast.") from error
        if total_count is not None:
            total_count = torch.as_tensor(total_count, device=theta.device)
            batch_shape = torch.broadcast_shapes(batch_shape, total_count.shape)
            total_count = total_count.expand(batch_shape)
        self.theta = theta.expand(*batch_shape, theta.shape[-1])
        self.weights, self.bias, self.total_count, self.coefficient = weights, bias, total_count, coefficient
        super().__init__(batch_shape, weights.shape[-1:], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> Any:
        """Whole numbers from 0 on."""
        return Counts()

    def expand(self, batch_shape: Any, _instance: Any = None) -> LogLinearBagOfWords:
        """The same over more documents or particles."""
        new = type(self).__new__(type(self)) if _instance is None else _instance
        batch_shape = torch.Size(batch_shape)
        new.theta = self.theta.expand(*batch_shape, self.theta.shape[-1])
        new.total_count = None if self.total_count is None else self.total_count.expand(batch_shape)
        new.weights, new.bias, new.coefficient = self.weights, self.bias, self.coefficient
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
        check_counts("LogLinearBagOfWords", value, self.event_shape[0], self.theta)
        try:
            validate_sample(self, value)
        except ValueError as error:
            raise outside("LogLinearBagOfWords", value) from error
        return self._of_dense(value) if value.layout == torch.strided else self._of_sparse(value)

    def with_totals_of(self, value: Tensor) -> LogLinearBagOfWords:
        """The same, to draw as many words as each document of `value` has, where no `total_count` was given."""
        if self.total_count is not None:
            return self
        check_counts("LogLinearBagOfWords", value, self.event_shape[0], self.theta)
        totals = (value @ torch.ones(value.shape[-1], 1, dtype=value.dtype, device=value.device))[..., 0]
        return type(self)(
            self.theta, self.weights, self.bias, totals, coefficient=self.coefficient, validate_args=False
        )

    def _of_sparse(self, value: Tensor) -> Tensor:
        crow, col, counts = csr_arrays(value)
        theta, weights = self.theta, self.weights
        if self.bias is not None:  # as the weights of one number more, which is 1
            theta = torch.cat([theta, torch.ones_like(theta[..., :1])], -1)
            weights = torch.cat([weights, self.bias.expand(*weights.shape[:-2], 1, -1)], -2)
        matrix = (crow, col, counts.to(theta.dtype), None)
        theta = theta.expand(*self.batch_shape[:-1], value.shape[0], theta.shape[-1])
        result: Tensor = log_linear_likelihood(*matrix, theta, weights)
        return result + log_coefficient(*matrix) if self.coefficient else result

    def _of_dense(self, value: Tensor) -> Tensor:
        counts = value.to(self.theta.dtype)
        result = (counts * self._logits().log_softmax(-1)).sum(-1)
        if not self.coefficient:
            return result
        return result + torch.lgamma(counts.sum(-1) + 1) - torch.lgamma(counts + 1).sum(-1)

    def _logits(self) -> Tensor:
        logits = self.theta @ self.weights
        return logits if self.bias is None else logits + self.bias

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draws of the counts, dense ``(*sample_shape, ..., D, V)``.

        Raises:
            UsageError: no `total_count` was given.
        """
        if self.total_count is None:
            raise UsageError(
                "LogLinearBagOfWords: to draw counts it must know how many words a document has; pass total_count=."
            )
        shape, width = torch.Size(sample_shape) + self.batch_shape, self.event_shape[0]
        with torch.no_grad():
            probs = self._logits().softmax(-1).expand(*shape, width).reshape(-1, width)
            totals = self.total_count.expand(shape).reshape(-1).long()
            counts = torch.zeros_like(probs)
            for row, (own, total) in enumerate(zip(probs, totals.tolist(), strict=True)):
                if total:
                    drawn = torch.multinomial(own, total, replacement=True)
                    counts[row] = torch.bincount(drawn, minlength=width).to(probs.dtype)
        return counts.view(*shape, width)
