"""The bound of structural topics at fixed draws of documents' logits, everything else in closed form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Dirichlet, kl_divergence

from vipack.sparse.count_rows import CountRows
from vipack.sparse.passes import fused_pass

__all__ = ["StructuralBound", "bound_of_logits", "fixed_normals", "unconstrained"]


class StructuralBound:
    """The bound (nats) as a deterministic function of a guide's parameters, so that it has an optimum and a Hessian there.

    ``E[log p(counts | logits, words)]`` is a mean over S fixed antithetic normals for each logit, with ``E[log words]`` for
    ``log words``, which leaves the bound a bound. Source: Blei and Lafferty (2007), "A correlated topic model of science",
    section 3, for the bound; Giordano, Ingram and Broderick (2024), "Black box variational inference with a deterministic
    objective", for fixed draws.

    Args:
        covariates: ``(D, P)`` float64.
        groups: ``(D,)`` whole numbers, or None.
        outcome: ``(D,)`` float64, or None.
        eta, coefficient_sd, offset_sd, effect_sd: of the priors; of log offset_sd the mean and sd.
        num_draws: S, even.
    """

    def __init__(
        self,
        rows: CountRows,
        covariates: Tensor,
        groups: Tensor | None,
        *,
        eta: float,
        coefficient_sd: float,
        offset_sd: tuple[float, float],
        num_topics: int,
        effect_sd: float = 10.0,
        outcome: Tensor | None = None,
        num_draws: int = 12,
        seed: int = 0,
    ) -> None:
        self._rows, self._covariates = rows, covariates
        self._groups = None if groups is None else groups.long()
        self._eta, self._coefficient_sd, self._offset_sd, self._effect_sd = eta, coefficient_sd, offset_sd, effect_sd
        self._outcome = outcome
        self._normals = fixed_normals(num_draws, rows.num_rows, num_topics, seed)

    def __call__(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """
        Args:
            parameters: of the guide, unconstrained: logarithms of what is positive.
        """
        topics = parameters["topics"].exp()
        q, p = (
            Dirichlet(topics, validate_args=False),
            Dirichlet(torch.full_like(topics, self._eta), validate_args=False),
        )
        expected_logs = topics.digamma() - topics.sum(1, keepdim=True).digamma()
        loc, log_scale = parameters["logits_loc"], parameters["logits_scale"]
        shares = (loc + self._normals * log_scale.exp()).softmax(-1)
        likelihood = _Likelihood.apply(shares, expected_logs.exp().T, self._rows)  # type: ignore[no-untyped-call]
        bound: Tensor = likelihood / len(shares) - kl_divergence(q, p).sum()
        if self._outcome is not None:
            bound = bound + self._of_outcome(parameters, shares, self._outcome)
        return bound + self._prior_of_logits(parameters, loc, log_scale)

    def _of_outcome(self, parameters: Mapping[str, Tensor], shares: Tensor, outcome: Tensor) -> Tensor:
        """E[log p(outcome, effects, noise)] - E[log q(effects, noise)], at shares ``(S, D, K)``."""
        effects, log_scale = parameters["outcome_effects_loc"], parameters["outcome_effects_scale"]
        squares = (outcome - shares @ effects).square() + shares.square() @ log_scale.mul(2).exp()
        log_noise, precision = _log_sd(parameters, "noise")
        likelihood = -(0.5 * precision * squares.mean(0) + log_noise + 0.5 * math.log(2 * math.pi)).sum()
        of_effects = _negative_divergence(effects, log_scale, self._effect_sd)
        return likelihood + of_effects + _negative_divergence(log_noise, parameters["noise_scale"], 1.0)

    def _prior_of_logits(self, parameters: Mapping[str, Tensor], loc: Tensor, log_scale: Tensor) -> Tensor:
        """E[log p(logits, coefficients, spread, offsets)] - E[log q]."""
        coefficients, of_coefficients = parameters["coefficients_loc"], parameters["coefficients_scale"].exp()
        mean = self._covariates @ coefficients
        squares = log_scale.mul(2).exp() + self._covariates.square() @ of_coefficients.square()
        result = _negative_divergence(coefficients, parameters["coefficients_scale"], self._coefficient_sd)
        result = result + _negative_divergence(parameters["spread_loc"], parameters["spread_scale"], 1.0)
        if self._groups is not None:
            offsets, of_offsets = parameters["offsets_loc"], parameters["offsets_scale"]
            mean = mean + offsets[self._groups]
            squares = squares + of_offsets.mul(2).exp()[self._groups]
            result = result + _normals(
                offsets.square() + of_offsets.mul(2).exp(), of_offsets, *_log_sd(parameters, "offset_sd")
            )
            centre, width = self._offset_sd
            shifted = parameters["offset_sd_loc"] - centre
            result = result + _negative_divergence(shifted, parameters["offset_sd_scale"], width)
        squares = squares + (loc - mean).square()
        return result + _normals(squares, log_scale, *_log_sd(parameters, "spread"))


def fixed_normals(num_draws: int, num_rows: int, num_topics: int, seed: int) -> Tensor:
    """Antithetic normals ``(S, D, K)`` of unit variance over the draws of each logit."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.randn(num_draws // 2, num_rows, num_topics, generator=generator, dtype=torch.float64)
    half /= half.square().mean(0, keepdim=True).sqrt()
    return torch.cat([half, -half])


def bound_of_logits(
    rows: CountRows, words: Tensor, mean: Tensor, precision: Tensor, loc: Tensor, log_scale: Tensor, normals: Tensor
) -> Tensor:
    """What documents add to the bound by their logits, all else as it is; without terms that these do not change.

    Args:
        words: exp(E[log words]) ``(V, K)``.
        mean: expected logits ``(D, K)``.
        precision: E[spread^-2] ``(K,)``.
        loc, log_scale: of q(logits) ``(D, K)``.
        normals: see :func:`fixed_normals`.
    """
    shares = (loc + normals * log_scale.exp()).softmax(-1)
    likelihood: Tensor = _Likelihood.apply(shares, words, rows)  # type: ignore[no-untyped-call]
    squares = (loc - mean).square() + log_scale.mul(2).exp()
    return likelihood / len(shares) + (log_scale - 0.5 * precision * squares).sum()


class _Likelihood(torch.autograd.Function):
    """sum over draws of sum_d log p(counts_d | shares_d, words)."""

    @staticmethod
    def forward(ctx: Any, shares: Tensor, words: Tensor, rows: CountRows) -> Tensor:
        total, of_shares, of_words = 0.0, [], torch.zeros_like(words)
        for draw in shares:
            outcome = fused_pass(rows, draw, words)
            total += float(outcome.log_likelihood.sum())
            of_shares.append(outcome.theta_sums)
            of_words += outcome.word_sums
        ctx.save_for_backward(torch.stack(of_shares), of_words)
        return shares.new_tensor(total)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        of_shares, of_words = ctx.saved_tensors
        return gradient * of_shares, gradient * of_words, None


def _log_sd(parameters: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    """E[log sd] and E[sd^-2] of a LogNormal sd."""
    loc, scale = parameters[f"{name}_loc"], parameters[f"{name}_scale"].exp()
    return loc, (-2 * loc + 2 * scale.square()).exp()


def _normals(squares: Tensor, log_scale: Tensor, log_sd: Tensor, precision: Tensor) -> Tensor:
    """E[log Normal(z; mean, sd)] - E[log q(z)] of normals with ``E[(z - mean)^2]`` in `squares` and log sds of q in `log_scale`."""
    return (log_scale - log_sd - 0.5 * precision * squares + 0.5).sum()


def _negative_divergence(loc: Tensor, log_scale: Tensor, sd: float) -> Tensor:
    """-KL(Normal(loc, scale) || Normal(0, sd))."""
    return (log_scale - math.log(sd) - 0.5 * (loc.square() + log_scale.mul(2).exp()) / sd**2 + 0.5).sum()


def unconstrained(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the guide, with logarithms of what is positive."""
    return {
        name: value.log() if name == "topics" or name.endswith("_scale") else value
        for name, value in parameters.items()
    }
