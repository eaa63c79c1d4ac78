"""Densities of torch and Pyro that ``torch.vmap`` refuses, in a form that it takes; the numbers are the same."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import hmm
from torch import Tensor
from torch.distributions.utils import broadcast_all

from vipack.compat.autoguides import LOG_MATMUL
from vipack.compat.patching import patched
from vipack.compat.pytorch import validate_sample
from vipack.program.densities.enumeration import safe_log

__all__ = ["vmappable_densities"]


@contextlib.contextmanager
def vmappable_densities() -> Iterator[None]:
    """Let Multinomial, OrderedLogistic and DiscreteHMM be evaluated under vmap inside the block."""
    products = {LOG_MATMUL.name.rpartition(".")[2]: _log_product} if LOG_MATMUL.there else {}
    with (
        patched(torch.distributions.Multinomial, log_prob=_multinomial_log_prob),
        patched(dist.OrderedLogistic, __init__=_ordered_logistic_init),
        patched(hmm, **products),
    ):
        yield


def _multinomial_log_prob(self: Any, value: Tensor) -> Tensor:
    """torch's own, but for an assignment at a mask that depends on the values."""
    validate_sample(self, value)
    logits, value = broadcast_all(self.logits, value)
    logits = torch.where((value == 0) & (logits == -torch.inf), torch.zeros_like(logits), logits)
    log_factorials = torch.lgamma(value.sum(-1) + 1) - torch.lgamma(value + 1).sum(-1)
    log_prob: Tensor = log_factorials + (logits * value).sum(-1)
    return log_prob


def _ordered_logistic_init(self: Any, predictor: Tensor, cutpoints: Tensor, validate_args: bool | None = None) -> None:
    """Pyro's own, but for assignments to slices of a new tensor."""
    below = torch.sigmoid(cutpoints - predictor[..., None])
    self.predictor = predictor.expand(below.shape[:-1])
    self.cutpoints = cutpoints.expand(below.shape)
    probs = [below[..., :1], below[..., 1:] - below[..., :-1], 1 - below[..., -1:]]
    super(dist.OrderedLogistic, self).__init__(torch.cat(probs, dim=-1), validate_args=validate_args)


def _log_product(x: Tensor, y: Tensor) -> Tensor:
    """``(x.exp() @ y.exp()).log()`` as in DiscreteHMM, but for a clamp in place and a function without a rule for vmap."""
    lowest = torch.finfo(x.dtype).min
    x_shift = x.detach().amax(-1, keepdim=True).clamp(min=lowest)
    y_shift = y.detach().amax(-2, keepdim=True).clamp(min=lowest)
    return safe_log((x - x_shift).exp() @ (y - y_shift).exp()) + x_shift + y_shift
