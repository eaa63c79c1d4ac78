"""Logits of new documents under a fitted structural topic model, all else as it is."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vipack.sparse.count_rows import CountRows
from vipack.topics.structural_bound import bound_of_logits, fixed_normals

__all__ = ["infer_logits"]

_ITERATIONS, _DRAWS, _ROWS = 200, 12, 2_000
_TOLERANCE = 1e-7  # of the bound's change, as a share of it, at which to end


def infer_logits(
    rows: CountRows, design: Tensor, groups: Tensor | None, parameters: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Locations and scales ``(D, K)`` of q(logits), by L-BFGS on the bound at fixed draws.

    Args:
        design: ``(D, P)``.
        groups: ``(D,)``, -1 for one without offsets, or None.
        parameters: of the guide, as a fit has them.
    """
    topics = parameters["topics"].double()
    words = (topics.digamma() - topics.sum(1, keepdim=True).digamma()).exp().T.contiguous()
    mean = design @ parameters["coefficients_loc"].double()
    if groups is not None:
        offsets = parameters["offsets_loc"].double()
        mean = mean + torch.where((groups >= 0)[:, None], offsets[groups.clamp_min(0)], 0.0)
    precision = (-2 * parameters["spread_loc"] + 2 * parameters["spread_scale"].square()).exp().double()
    blocks = [
        _inferred(rows.take(some), words, mean[some], precision) for some in torch.arange(rows.num_rows).split(_ROWS)
    ]
    return torch.cat([loc for loc, _ in blocks]), torch.cat([scale for _, scale in blocks])


def _inferred(rows: CountRows, words: Tensor, mean: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
    loc = mean.clone().requires_grad_()
    log_scale = (-0.5 * precision.log()).expand_as(mean).clone().requires_grad_()
    normals = fixed_normals(_DRAWS, len(mean), mean.shape[1], 0)
    optimizer = torch.optim.LBFGS(
        [loc, log_scale], max_iter=20, history_size=20, line_search_fn="strong_wolfe", tolerance_change=0
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = -bound_of_logits(rows, words, mean, precision, loc, log_scale, normals)
        loss.backward()
        return loss

    last = float("inf")
    for _ in range(_ITERATIONS // 20):
        loss = float(optimizer.step(closure).detach())  # before these iterations
        if last - loss < _TOLERANCE * abs(loss):
            break
        last = loss
    return loc.detach(), log_scale.detach().exp()
