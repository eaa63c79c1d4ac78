"""Products of a loss's Hessian with vectors: by second derivatives, or by differences of gradients where these do not exist."""

from __future__ import annotations

import torch
from torch import Tensor

from vipack.posterior.linear_response.fixed_draws import FixedDraws

__all__ = ["Hessian"]

_PROBES = 8  # random vectors for the norms of rows


class Hessian:
    """That of a loss at fixed draws, ``(P, P)``, as a map of vectors ``(G, P)`` to products ``(G, P)``.

    Args:
        differences: whether differences of gradients may be taken; else whatever has no second derivative is an error.
    """

    def __init__(self, draws: FixedDraws, *, differences: bool = True) -> None:
        self._draws = draws
        self._allowed = differences
        self._size = len(draws.parameters)
        self._single = any(value.dtype != torch.float64 for value in draws.parameters.tensors)
        self._differences = False
        self._norms: Tensor | None = None

    @property
    def name(self) -> str:
        """How products are made."""
        return "differences of gradients" if self._differences else "second derivatives"

    @property
    def rounding(self) -> float:
        """Of a product, as a share of what is usual."""
        if self._single:
            return 1e-3 if self._differences else 1e-5
        return 1e-6 if self._differences else 1e-9

    def __call__(self, vectors: Tensor) -> Tensor:
        """
        Raises:
            RuntimeError: an operation has no second derivative, and differences are not allowed.
        """
        if not self._differences:
            try:
                return self._draws.product(vectors)
            except RuntimeError:  # whatever else may be wrong, a first derivative shows too
                if not self._allowed:
                    raise
                self._differences = True
        return self._by_differences(vectors)

    def row_norms(self, generator: torch.Generator) -> Tensor:
        """Estimates ``(P,)`` of the norms of its rows, a preconditioner, none of them zero; settles how products are made."""
        norms = self._estimated_norms(generator)
        if self._allowed and not self._differences and not self._agrees(norms, generator):
            self._differences = True
            norms = self._estimated_norms(generator)
        if self._differences:  # once more, by steps that fit each parameter
            self._norms = norms
            self._norms = norms = self._estimated_norms(generator)
        return norms

    def _estimated_norms(self, generator: torch.Generator) -> Tensor:
        signs = torch.randint(0, 2, (_PROBES, self._size), generator=generator, device="cpu").double() * 2 - 1
        norms = self(signs).square().mean(0).sqrt()
        usual = norms[norms > 0].median() if bool((norms > 0).any()) else torch.ones((), dtype=torch.float64)
        return torch.where(norms > 1e-8 * usual, norms, usual)

    def _agrees(self, norms: Tensor, generator: torch.Generator) -> bool:
        """Whether second derivatives are differences of gradients along a random vector.

        Operations that compute their gradient without a graph have zeros for second derivatives, and raise nothing.
        """
        vector = torch.randn(1, self._size, generator=generator, dtype=torch.float64, device="cpu") / norms.sqrt()
        exact = self(vector)
        self._norms = norms
        differences = self._by_differences(vector)
        self._norms = None
        error, usual = ((each / norms.sqrt())[0] for each in (exact - differences, differences))
        return bool(error.abs().max() <= (0.3 if self._single else 1e-3) * usual.square().mean().sqrt())

    def _by_differences(self, vectors: Tensor) -> Tensor:
        """By steps of a ten-thousandth of an sd where norms are known, a hundredth in single precision."""
        squares = vectors.square() if self._norms is None else vectors.square() * self._norms
        lengths = (1e-2 if self._single else 1e-4) / squares.sum(1).sqrt()
        return self._draws.differences(vectors, torch.where(lengths.isfinite(), lengths, 0.0))
