"""Affine maps ``u = loc + L eps`` with a fixed L, dense or a diagonal plus low rank."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Transform, constraints

__all__ = ["DenseAffine", "LowRankAffine", "low_rank_root"]


class DenseAffine(Transform):
    """``u = loc + scale_tril eps``.

    Args:
        loc: ``(D,)``.
        scale_tril: lower triangular ``(D, D)``.
        inverse: its inverse ``(D, D)``, so that no step solves a system that never changes.
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, loc: Tensor, scale_tril: Tensor, inverse: Tensor) -> None:
        super().__init__()
        self._loc, self._scale_tril, self._back = loc, scale_tril, inverse

    def _call(self, x: Tensor) -> Tensor:
        return self._loc + x @ self._scale_tril.mT

    def _inverse(self, y: Tensor) -> Tensor:
        return (y - self._loc) @ self._back.mT

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log |det L|, ``(...)``."""
        return self._scale_tril.diagonal().abs().log().sum().expand(x.shape[:-1])


class LowRankAffine(Transform):
    """``u = loc + scale * (I + basis diag(gain) basis^T) eps``, whose inverse costs as little as the map.

    Args:
        loc, scale: ``(D,)``.
        basis: orthonormal columns ``(D, R)``.
        gain: ``(R,)``, above -1.
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, loc: Tensor, scale: Tensor, basis: Tensor, gain: Tensor) -> None:
        super().__init__()
        self._loc, self._scale, self._basis, self._gain = loc, scale, basis, gain

    def _call(self, x: Tensor) -> Tensor:
        return self._loc + self._scale * self._stretched(x, self._gain)

    def _inverse(self, y: Tensor) -> Tensor:
        return self._stretched((y - self._loc) / self._scale, -self._gain / (1 + self._gain))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log |det L|, ``(...)``."""
        return (self._scale.log().sum() + self._gain.log1p().sum()).expand(x.shape[:-1])

    def _stretched(self, x: Tensor, gain: Tensor) -> Tensor:
        return x + ((x @ self._basis) * gain) @ self._basis.mT


def low_rank_root(scale: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """Basis ``(D, R)`` and gain ``(R,)`` of the L for which ``L L^T = diag(scale^2) + factor factor^T``.

    With ``factor = scale * U S V^T``, ``L = diag(scale) (I + U (sqrt(1 + S^2) - 1) U^T)``.
    """
    basis, singular, _ = torch.linalg.svd(factor / scale[:, None], full_matrices=False)
    return basis, (1 + singular.square()).sqrt() - 1
