"""What covariates do to shares of topics, with covariances by linear response."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import norm, qmc
from torch import Tensor

from vipack.errors import TrustWarning, warn
from vipack.posterior.linear_response.conjugate_gradients import solve
from vipack.topics.structural_bound import StructuralBound

__all__ = ["Response", "StructuralResponse", "expected_shares"]

_MOST_NUMBERS = 4_000_000  # in memory at once
_PROBES = 8  # random vectors, for the norms of the Hessian's rows
_STEP = 1e-4  # of differences of gradients, in sds
_TOLERANCE, _ITERATIONS, _ROUNDING = 1e-3, 500, 1e-6


@dataclass(frozen=True, eq=False)
class Response:
    """Means of some numbers ``(G,)`` and their covariance ``(G, G)``, float64.

    Attributes:
        solved: whether all systems were solved, and no negative curvature was met.
        shift: how far a Newton step on the bound would move the means, in sds, at most.
    """

    mean: Tensor
    covariance: Tensor
    solved: bool
    shift: float


class StructuralResponse:
    """Linear response of a fitted guide's parameters: ``Cov(g) = J H^-1 J'``, H the Hessian of minus the bound in all of them.

    Mean-field guides leave out that topics, shares and coefficients go together, and their intervals are too narrow with it.
    Source: Giordano, Broderick and Jordan (2018), JMLR 19(51), corollary 1.
    """

    def __init__(self, bound: StructuralBound, parameters: Mapping[str, Tensor]) -> None:
        self._bound = bound
        self._names = list(parameters)
        self._shapes = {name: value.shape for name, value in parameters.items()}
        self._at = torch.cat([parameters[name].detach().double().reshape(-1) for name in self._names])
        self._norms: Tensor | None = None

    def __call__(self, function: object) -> Response:
        """Of a function of the parameters (unconstrained, by name) with values ``(G,)``."""
        own = self._split(self._at)
        values = function(own)  # type: ignore[operator]
        rows = [
            torch.autograd.grad(value, list(own.values()), retain_graph=True, allow_unused=True) for value in values
        ]
        filled = [
            torch.cat(
                [(torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in zip(row, own.values(), strict=True)]
            )
            for row in rows
        ]
        jacobian = torch.stack(filled)
        solution = solve(
            self._product,
            jacobian,
            self._row_norms(),
            tolerance=_TOLERANCE,
            max_iterations=_ITERATIONS,
            rounding=_ROUNDING,
        )
        covariance = jacobian @ solution.x.T
        covariance = (covariance + covariance.T) / 2
        straight = float(torch.as_tensor(solution.curvature).min()) <= _ROUNDING
        solved = not straight and bool((solution.residuals < 10 * _TOLERANCE).all())
        sds = covariance.diagonal().clamp_min(0).sqrt()
        moves = (solution.x @ self._gradient(self._at)).abs() / sds.clamp_min(1e-300)
        shift = float(torch.where(sds > 0, moves, 0).max())
        if not solved or shift > 0.25:
            why = (
                f"a Newton step would move a mean by {shift:.2g} sds"
                if solved
                else "the Hessian is not positive definite"
            )
            warn(
                TrustWarning(
                    f"effects: the fit is not at an optimum of its bound ({why}), so intervals may be wrong; train further, with a smaller tolerance."
                )
            )
        return Response(values.detach(), covariance, solved, shift)

    def _split(self, flat: Tensor) -> dict[str, Tensor]:
        sizes = [self._shapes[name].numel() for name in self._names]
        pieces = flat.split(sizes)
        return {
            name: piece.reshape(self._shapes[name]).clone().requires_grad_()
            for name, piece in zip(self._names, pieces, strict=True)
        }

    def _gradient(self, flat: Tensor) -> Tensor:
        own = self._split(flat)
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(-self._bound(own), list(own.values()))])

    def _product(self, vectors: Tensor) -> Tensor:
        """By central differences of gradients."""
        results = []
        for vector in vectors:
            size = (vector.square() if self._norms is None else vector.square() * self._norms).sum().sqrt()
            step = _STEP / float(size) if float(size) > 0 else 0.0
            ends = [self._gradient(self._at + sign * step * vector) for sign in (1, -1)]
            results.append((ends[0] - ends[1]) / (2 * step) if step else torch.zeros_like(vector))
        return torch.stack(results)

    def _row_norms(self) -> Tensor:
        if self._norms is None:
            generator = torch.Generator().manual_seed(0)
            signs = torch.randint(0, 2, (_PROBES, len(self._at)), generator=generator).double() * 2 - 1
            norms = self._product(signs).square().mean(0).sqrt()
            self._norms = torch.where(norms > 1e-8 * norms.median(), norms, norms.median())
        return self._norms


def expected_shares(parameters: Mapping[str, Tensor], design: Tensor, groups: Tensor | None, weights: Tensor) -> Tensor:
    """``(M, K)``: shares that documents are expected to have, as weighted means over some.

    The softmax is averaged over the logits' spread by fixed normals, and the parameters stand at their posterior means.

    Args:
        parameters: of the guide, unconstrained.
        design: ``(R, P)``.
        groups: ``(R,)``, or None for offsets of 0.
        weights: ``(M, R)``.
    """
    rows, index = torch.unique(
        design if groups is None else torch.cat([design, groups.double()[:, None]], 1), dim=0, return_inverse=True
    )
    totals = torch.zeros(len(weights), len(rows), dtype=torch.float64).index_add_(1, index, weights.double())
    mean = rows[:, : design.shape[1]] @ parameters["coefficients_loc"]
    if groups is not None:
        mean = mean + parameters["offsets_loc"][rows[:, -1].long()]
    spread = (parameters["spread_loc"] + 0.5 * parameters["spread_scale"].exp().square()).exp()
    num_topics = len(spread)
    number = 2 ** int(np.clip(math.log2(max(1, _MOST_NUMBERS // (len(rows) * num_topics))), 4, 8))
    normals = torch.from_numpy(norm.ppf(qmc.Sobol(num_topics, seed=0).random(number)))
    shares = (mean[:, None] + normals * spread).softmax(-1).mean(1)
    result: Tensor = totals @ shares
    return result
