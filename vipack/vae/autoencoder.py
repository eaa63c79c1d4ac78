"""What builders of variational autoencoders share: data and conditions read, checked, and the decoder started at them."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from typing import Any, Self, final

import numpy as np
import pyro
import scipy.sparse
import torch
from torch import Tensor, nn

from vipack.errors import UsageError
from vipack.program.densities.values import EXPLAIN
from vipack.vae.coders import Decoder, joined
from vipack.vae.conditions import Condition
from vipack.vae.likelihoods import Likelihood
from vipack.vae.priors import Prior

__all__ = ["Autoencoder", "expect", "tensor_of"]


class Autoencoder(nn.Module, ABC):
    """A pair of a Pyro model and a guide with one plate, ``data``, and the observed site ``x``.

    Attributes:
        likelihood: p(x | z).
        condition: what is given beside x, or None.
        prior: of the topmost latents.
        decoder: from the lowest latents to p(x | z).
    """

    likelihood: Likelihood
    condition: Condition | None
    prior: Prior
    decoder: Decoder

    @abstractmethod
    def model(self, x: Tensor, y: Tensor | None = None) -> None:
        """The Pyro model p(z) p(x | z) of data ``(N, *likelihood.shape)``.

        Args:
            y: the condition, labels ``(N,)`` or covariates ``(N, K)``.
        """

    @abstractmethod
    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        """The Pyro guide q(z | x), with the arguments of `model`."""

    @final
    def initialize(self, x: Any, y: Any = None) -> Self:
        """Check all of the data, and start the decoder at their mean and spread; gives the model itself.

        Args:
            x: ``(N, *likelihood.shape)``, the data to train on; NumPy arrays and sparse matrices will do.

        Raises:
            VipackError: the data cannot be used; see :meth:`check_data`.
        """
        dtype = next(self.decoder.parameters()).dtype
        x, y = tensor_of(x, dtype), None if y is None else tensor_of(y, dtype)
        self.check_data(x, y)
        with torch.no_grad():
            x, condition = self.read(x, y)
            parameters = self.likelihood.initialize(x)
            if self.decoder.head is not None:
                self.decoder.bias.copy_(parameters)
            self._initialize(joined(self.likelihood.features(x), condition))
        return self

    @final
    def check_data(self, x: Tensor, y: Tensor | None = None) -> None:
        """
        Raises:
            ShapeError: `x` or `y` is of another shape.
            SupportError: a value of `x` is not one that the likelihood can give.
            DataError: `y` is missing, or a label is out of range.
        """
        x, _ = self.read(x, y)
        self.likelihood.check(x)
        if self.condition is not None and y is not None:
            self.condition.check(y)

    @final
    def read(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The data as floating-point numbers, and the condition ``(N, K)``.

        Raises:
            VipackError: as for :meth:`check_data`, though the values of `x` are not looked at.
        """
        self.likelihood.check_shape(x)
        if x.layout != torch.strided:  # counts may come as a sparse matrix, of which a batch is small
            x = x.to_dense()
        if not x.is_floating_point():
            x = x.to(next(self.decoder.parameters()).dtype)
        if self.condition is None:
            if y is not None:
                raise UsageError(
                    "y: this VAE has no condition; build it with condition=Labels(...) or Covariates(...)."
                )
            return x, None
        return x, self.condition.encode(y, x)

    @final
    def observe(self, inputs: Tensor, x: Tensor, y: Tensor | None) -> None:
        """The observed site, given the decoder's inputs ``(..., N, D)``."""
        infer = {EXPLAIN: functools.partial(self._explain, y=y)}
        pyro.sample("x", self.decoder(inputs, x), obs=x, infer=infer)

    @final
    def _explain(self, x: Tensor, y: Tensor | None) -> str:
        """What is wrong with the data; empty where nothing is."""
        problem = self.likelihood.problem(x)
        if problem or y is None or self.condition is None:
            return problem
        problem = self.condition.problem(y)
        return f"its condition y: {problem}" if problem else ""

    @abstractmethod
    def _initialize(self, inputs: Tensor) -> None:
        """Start what else depends on the data, given the encoder's inputs."""

    @property
    @final
    def input_shape(self) -> tuple[int, ...]:
        """Of what the encoder reads of one observation."""
        width = 0 if self.condition is None else self.condition.num_features
        first, *others = self.likelihood.feature_shape
        if width and len(others) not in (0, 2):
            raise UsageError(
                f"condition: can stand beside observations (D,) or (C, H, W), found {self.likelihood.feature_shape}."
            )
        return (first + width, *others)


def expect(builder: str, option: str, value: object, kind: Any, example: str) -> None:
    """
    Raises:
        UsageError: the `option` of a builder is no instance of `kind`.
    """
    if not isinstance(value, kind):
        given = value.__name__ if isinstance(value, type) else type(value).__name__
        what = f"the class {given}" if isinstance(value, type) else given
        raise UsageError(
            f"{builder}: {option} must be an instance of those in vi.vae, as {option}={example}; found {what}."
        )


def tensor_of(value: Any, dtype: torch.dtype) -> Any:
    """NumPy arrays and sparse matrices as tensors, floating-point numbers in `dtype`."""
    if scipy.sparse.issparse(value):
        value = value.toarray()
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value)
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(dtype)
    return value
