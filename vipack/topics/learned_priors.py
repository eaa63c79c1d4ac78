"""Concentrations of Dirichlet priors at the optimum of the bound."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["learned_alpha"]

_LEAST = 1e-3


def learned_alpha(documents: Tensor, alpha: Tensor, *, most_steps: int = 20) -> Tensor:
    """The prior concentrations ``(K,)`` float64 that maximise sum_d E_q[log Dirichlet(shares_d; alpha)].

    Newton steps, linear in K since the Hessian is a diagonal and a constant.

    Args:
        documents: concentrations ``(D, K)`` of q.
        alpha: where to start.

    Source: Blei, Ng and Jordan (2003), appendix A.4.2; Minka (2000), "Estimating a Dirichlet distribution".
    """
    values = documents.double()
    expected = (values.digamma() - values.sum(1, keepdim=True).digamma()).mean(0)
    alpha = alpha.double().clone()
    for _ in range(most_steps):
        total = alpha.sum()
        gradient = total.digamma() - alpha.digamma() + expected
        diagonal, constant = -torch.polygamma(1, alpha), torch.polygamma(1, total)
        shift = (gradient / diagonal).sum() / (1 / constant + (1 / diagonal).sum())
        move = (gradient - shift) / diagonal
        updated = torch.maximum(alpha - move, alpha / 4).clamp_min(_LEAST)
        done = bool(((updated - alpha).abs() < 1e-6 * alpha).all())
        alpha = updated
        if done:
            break
    return alpha
