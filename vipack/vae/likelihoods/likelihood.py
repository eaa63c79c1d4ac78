"""What every likelihood of a decoder has in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, final

from torch import Tensor, nn

from vipack.errors import DataError, ShapeError, SupportError, UsageError

__all__ = ["Likelihood", "shape_of"]


class Likelihood(nn.Module, ABC):
    """p(x | z) of one observation, given the numbers that a decoder puts out.

    Attributes:
        shape: of one observation x: (D,), or (C, H, W) for images. All of it is the distribution's event.
        parameter_shape: of the decoder's numbers for it, mostly ``(P, *shape)``: P numbers an element.
        feature_shape: of what the encoder reads of it.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        parameter_shape: tuple[int, ...],
        feature_shape: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        self.shape = shape
        self.parameter_shape = parameter_shape
        self.feature_shape = shape if feature_shape is None else feature_shape

    @abstractmethod
    def forward(self, parameters: Tensor, x: Tensor | None = None) -> Any:
        """The distribution of x, a Pyro distribution with event shape `shape`.

        Args:
            parameters: ``(..., *parameter_shape)``, unconstrained.
            x: ``(N, *shape)``, for what is not modelled, as the library size of counts.
        """

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """What the encoder reads: x ``(N, *shape)`` as ``(N, *feature_shape)``, of about unit size."""

    @abstractmethod
    def problem(self, x: Tensor) -> str:
        """What is wrong with the values of x, and the cure; empty where nothing is."""

    @abstractmethod
    def initialize(self, x: Tensor) -> Tensor:
        """Set own parameters by the data x ``(N, *shape)``, and give `parameters` that fit its mean ``(*parameter_shape,)``."""

    @final
    def check(self, x: Tensor, site: str = "x") -> None:
        """
        Args:
            x: ``(N, *shape)``.

        Raises:
            ShapeError: x has another shape.
            SupportError: a value is not one that this likelihood can give.
        """
        self.check_shape(x, site)
        problem = self.problem(x)
        if problem:
            raise SupportError(f"site {site!r}: {problem}")

    @final
    def check_shape(self, x: Tensor, site: str = "x") -> None:
        """
        Raises:
            DataError: x is no tensor.
            ShapeError: x has another shape than ``(N, *shape)``.
        """
        if not isinstance(x, Tensor):
            raise DataError(f"site {site!r}: expected a tensor (N, {listed(self.shape)}), found {type(x).__name__}.")
        if tuple(x.shape[1:]) != self.shape or not x.dim():
            raise ShapeError(
                f"site {site!r}: {type(self).__name__} of observations {self.shape} expects data of shape "
                f"(N, {listed(self.shape)}), found {tuple(x.shape)}; {_cure(tuple(x.shape), self.shape)}."
            )

    @final
    def extra_repr(self) -> str:
        """The shape of an observation."""
        return ", ".join(map(str, self.shape)) if len(self.shape) == 1 else str(self.shape)

    @final
    def split(self, parameters: Tensor) -> tuple[Tensor, ...]:
        """The P tensors ``(..., *shape)`` of ``(..., P, *shape)``."""
        dim = -1 - len(self.shape)
        # A gradient stacked of one tensor keeps strides that a compiled step cannot view.
        return (parameters.squeeze(dim),) if parameters.shape[dim] == 1 else parameters.unbind(dim)


def shape_of(name: str, shape: int | Sequence[int]) -> tuple[int, ...]:
    """A likelihood's `shape`, which may be given as one number.

    Raises:
        UsageError: it is empty or a size is not positive.
    """
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    if not sizes or any(not isinstance(size, int) or size < 1 for size in sizes):
        raise UsageError(f"{name}: shape must be the sizes of one observation, as 784 or (1, 28, 28); found {shape!r}.")
    return sizes


def listed(sizes: Sequence[int]) -> str:
    """``1, 28, 28``."""
    return ", ".join(map(str, sizes))


def _cure(given: tuple[int, ...], expected: tuple[int, ...]) -> str:
    if given == expected:
        return "this is one observation, so write x[None] to make it a batch of one"
    if len(expected) == 3 and given[1:] == (*expected[1:], expected[0]):
        return "the channels come last, so write x.movedim(-1, 1)"
    if len(expected) == 3 and expected[0] == 1 and given[1:] == expected[1:]:
        return "the channel is missing, so write x[:, None]"
    if len(given) > 1 and math.prod(given[1:]) == math.prod(expected):
        return f"write x.reshape(-1, {listed(expected)})"
    return f"make the likelihood for {given[1:] or 'such'} observations, or the data of its shape"
