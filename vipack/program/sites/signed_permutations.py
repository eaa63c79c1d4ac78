"""Exchanges, sign flips and reflections of the numbers in a vector of latents."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["SignedPermutation"]


@dataclass(frozen=True, eq=False)
class SignedPermutation:
    """``z -> offset + sign * z[index]``, of vectors ``(..., P)``; its Jacobian has determinant 1 or -1.

    Attributes:
        index: a permutation of P.
        sign: ``(P,)`` of 1 and -1.
        offset: ``(P,)``; not zero where an interval is reflected about its centre.
    """

    index: Tensor
    sign: Tensor
    offset: Tensor

    @classmethod
    def identity(cls, size: int) -> SignedPermutation:
        """What changes nothing."""
        one = torch.ones(size, dtype=torch.float64)
        return cls(torch.arange(size), one, torch.zeros_like(one))

    def __call__(self, z: Tensor) -> Tensor:
        """The images of ``(..., P)``."""
        return self.offset.to(z) + self.sign.to(z) * z[..., self.index.to(z.device)]

    def then(self, other: SignedPermutation) -> SignedPermutation:
        """First this, then `other`."""
        chosen = other.index
        offset = other.offset + other.sign * self.offset[chosen]
        return SignedPermutation(self.index[chosen], other.sign * self.sign[chosen], offset)

    def inverse(self) -> SignedPermutation:
        """What undoes it."""
        back = self.index.argsort()
        return SignedPermutation(back, self.sign[back], -(self.sign * self.offset)[back])

    @property
    def key(self) -> bytes:
        """Equal for equal maps."""
        return bytes(self.index.numpy().tobytes() + self.sign.numpy().tobytes())

    @property
    def moved(self) -> Tensor:
        """Which numbers it changes, ``(P,)``."""
        return (self.index != torch.arange(len(self.index))) | (self.sign < 0)
