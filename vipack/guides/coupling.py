"""Invertible maps of R^D made of coupling layers: the masked elements of the vector decide how the rest is moved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.distributions import Transform, constraints

from vipack.errors import MissingExtraError

__all__ = ["KINDS", "Coupling", "Kind", "Layer", "alternating_masks", "numbers_per_element"]

Kind = Literal["affine", "spline"]
KINDS: tuple[Kind, ...] = get_args(Kind)

BINS = 8
BOUND = 5.0  # a spline is the identity outside (-BOUND, BOUND)


class Layer:
    """One coupling layer: elements where `mask` is 1 stay and, through a tanh network, decide how the others move.

    Args:
        mask: ``(D,)`` of zeros and ones.
        weights, biases: of the network, ``(out, in)`` and ``(out,)``; D in, D * numbers_per_element(kind) out.
    """

    def __init__(self, kind: Kind, mask: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> None:
        self._moves: Any = _affine if kind == "affine" else _spline
        self._mask, self._weights, self._biases = mask, weights, biases

    def __call__(self, x: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        """`x` ``(..., D)`` moved, or moved back, and log |dy/dx| ``(...)`` of just that."""
        hidden = x * self._mask
        last = len(self._weights) - 1
        for index, (weight, bias) in enumerate(zip(self._weights, self._biases, strict=True)):
            hidden = hidden @ weight.mT + bias
            if index < last:
                hidden = hidden.tanh()
        y, log_det = self._moves(x, hidden, inverse)
        free = 1 - self._mask
        return x + free * (y - x), (free * log_det).sum(-1)


class Coupling(Transform):
    """Coupling layers one after the other."""

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, layers: Sequence[Layer]) -> None:
        super().__init__()
        self._layers = layers
        self._last: tuple[Tensor | None, Tensor | None, Tensor | None] = (None, None, None)

    def _call(self, x: Tensor) -> Tensor:
        y, log_det = self._through(x, inverse=False)
        self._last = (x, y, log_det)
        return y

    def _inverse(self, y: Tensor) -> Tensor:
        x, log_det = self._through(y, inverse=True)
        self._last = (x, y, -log_det)
        return x

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log |dy/dx| ``(...)``."""
        last_x, last_y, log_det = self._last
        if log_det is None or x is not last_x or y is not last_y:
            log_det = self._through(x, inverse=False)[1]
        return log_det

    def _through(self, x: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(x.shape[:-1])
        for layer in reversed(self._layers) if inverse else self._layers:
            x, more = layer(x, inverse=inverse)
            log_det = log_det + more
        return x, log_det


def numbers_per_element(kind: Kind) -> int:
    """How many outputs of its network a layer needs to move one element."""
    return 2 if kind == "affine" else 3 * BINS - 1


def alternating_masks(dim: int, num_layers: int, like: Tensor) -> Tensor:
    """``(num_layers, D)``: a random half stays, then the other half; anew for every two layers.

    The halves depend on D alone. With D = 1 nothing stays, and every layer moves the one element.
    """
    generator = torch.Generator().manual_seed(dim)
    rows = []
    for _ in range((num_layers + 1) // 2):
        first = torch.zeros(dim, device="cpu")  # where the generator is, whatever the default device
        first[torch.randperm(dim, generator=generator, device="cpu")[: dim // 2]] = 1
        rows += [first, 1 - first if dim > 1 else first]
    return torch.stack(rows[:num_layers]).to(like)


def _affine(x: Tensor, numbers: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    raw, shift = numbers.chunk(2, dim=-1)
    log_scale = 2 * (raw / 2).tanh()
    if inverse:
        return (x - shift) * (-log_scale).exp(), -log_scale
    return x * log_scale.exp() + shift, log_scale


def _spline(x: Tensor, numbers: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    transform = _splines()(*numbers.unflatten(-1, (x.shape[-1], -1)).split([BINS, BINS, BINS - 1], dim=-1), bound=BOUND)
    if inverse:
        y = transform.inv(x)
        return y, -transform.log_abs_det_jacobian(y, x)
    y, log_det = transform.call_and_ladj(x)
    return y, log_det


def _splines() -> Callable[..., Any]:
    try:
        from zuko.transforms import MonotonicRQSTransform
    except ImportError as error:
        raise MissingExtraError(
            "guide Flow: kind='spline' needs zuko, which is not installed; pip install 'vipack[flows]'."
        ) from error
    splines: Callable[..., Any] = MonotonicRQSTransform
    return splines
