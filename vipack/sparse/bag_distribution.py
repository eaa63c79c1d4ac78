"""What distributions of bags of words have in common, whatever makes a document's words probable."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from vipack.compat.pytorch import copy_validation, csr_arrays, validate_sample
from vipack.errors import ShapeError, UsageError
from vipack.sparse.count_supports import Counts, check_counts, outside
from vipack.sparse.operators import log_coefficient

__all__ = ["BagDistribution"]


class BagDistribution(TorchDistribution):  # type: ignore[misc]
    """Word counts of documents, whose totals are given: a multinomial for each, of probabilities by K numbers of the document.

    Abstract. `_words` names the arguments that all documents share, the first of them ``(..., K, V)``.

    Attributes:
        theta: ``(..., D, K)``.
        total_count: ``(..., D)``, or None.
        coefficient: whether log p includes the multinomial coefficient.
    """

    _words: ClassVar[tuple[str, ...]]
    has_rsample = False
    theta: Tensor
    total_count: Tensor | None
    coefficient: bool

    @abstractmethod
    def _log_likelihood(self, crow: Tensor, col: Tensor, counts: Tensor, theta: Tensor) -> Tensor:
        """log p without the coefficient, of counts in CSR form, ``(..., D)``."""

    @abstractmethod
    def _dense_log_likelihood(self, counts: Tensor) -> Tensor:
        """That of dense counts ``(..., D, V)``."""

    def _set_up(
        self,
        theta: Tensor,
        words: tuple[Tensor | None, ...],
        total_count: Tensor | int | None,
        coefficient: bool,
        validate_args: bool | None,
    ) -> None:
        """
        Raises:
            ShapeError: theta and the first of `words` have other shapes, or another K.
        """
        first, name, own = words[0], self._words[0], type(self).__name__
        assert first is not None
        if theta.dim() < 1 or first.dim() < 2:
            raise ShapeError(
                f"{own}: theta has shape {tuple(theta.shape)} and {name} {tuple(first.shape)}; expected (..., D, K) and "
                "(..., K, V)."
            )
        if theta.shape[-1] != first.shape[-2]:
            raise ShapeError(
                f"{own}: theta has shape {tuple(theta.shape)}, so {theta.shape[-1]} topics, and {name} has shape "
                f"{tuple(first.shape)}, so {first.shape[-2]}; theta is (..., D, K) and {name} (..., K, V), with the same K."
            )
        try:
            batch_shape = torch.broadcast_shapes(theta.shape[:-1], (*first.shape[:-2], 1))
        except RuntimeError as error:
            raise ShapeError(
                f"{own}: the leading dimensions of theta {tuple(theta.shape)} and {name} {tuple(first.shape)} do not "
                f"broadcast; theta is (..., D, K) and {name} (..., K, V)."
            ) from error
        if theta.dim() == 1 and first.dim() == 2:
            batch_shape = torch.Size()
        if total_count is not None:
            total_count = torch.as_tensor(total_count, device=theta.device)
            batch_shape = torch.broadcast_shapes(batch_shape, total_count.shape)
            total_count = total_count.expand(batch_shape)
        self.theta = theta.expand(*batch_shape, theta.shape[-1])
        self.total_count, self.coefficient = total_count, coefficient
        for each, value in zip(self._words, words, strict=True):
            setattr(self, each, value)
        TorchDistribution.__init__(self, batch_shape, first.shape[-1:], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> Any:
        """Whole numbers from 0 on."""
        return Counts()

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        """The same over more documents or particles."""
        new: Self = type(self).__new__(type(self)) if _instance is None else _instance
        batch_shape = torch.Size(batch_shape)
        new.theta = self.theta.expand(*batch_shape, self.theta.shape[-1])
        new.total_count = None if self.total_count is None else self.total_count.expand(batch_shape)
        new.coefficient = self.coefficient
        for each in self._words:
            setattr(new, each, getattr(self, each))
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
        own = type(self).__name__
        check_counts(own, value, self.event_shape[0], self.theta)
        try:
            validate_sample(self, value)
        except ValueError as error:
            raise outside(own, value) from error
        if value.layout == torch.strided:
            counts = value.to(self.theta.dtype)
            result = self._dense_log_likelihood(counts)
            if not self.coefficient:
                return result
            return result + torch.lgamma(counts.sum(-1) + 1) - torch.lgamma(counts + 1).sum(-1)
        crow, col, counts = csr_arrays(value)
        counts = counts.to(self.theta.dtype)
        theta = self.theta.expand(*self.batch_shape[:-1], value.shape[0], self.theta.shape[-1])
        result = self._log_likelihood(crow, col, counts, theta)
        return result + log_coefficient(crow, col, counts, None) if self.coefficient else result

    def with_totals_of(self, value: Tensor) -> Self:
        """The same, to draw as many words as each document of `value` has, where no `total_count` was given."""
        if self.total_count is not None:
            return self
        check_counts(type(self).__name__, value, self.event_shape[0], self.theta)
        totals = (value @ torch.ones(value.shape[-1], 1, dtype=value.dtype, device=value.device))[..., 0]
        words = {name: getattr(self, name) for name in self._words}
        return type(self)(self.theta, **words, total_count=totals, coefficient=self.coefficient, validate_args=False)

    def _totals(self, sample_shape: torch.Size) -> Tensor:
        """Words to draw for each document, ``(*sample_shape, ..., D)``.

        Raises:
            UsageError: no `total_count` was given.
        """
        if self.total_count is None:
            own = type(self).__name__
            raise UsageError(
                f"{own}: to draw counts it must know how many words a document has; pass total_count=, as in "
                f"{own}(theta, {self._words[0]}, total_count=torch.full((D,), 100))."
            )
        return self.total_count.expand(sample_shape + self.batch_shape)
