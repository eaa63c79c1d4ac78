"""A flow fitted to weighted draws: for models whose density is cheap but whose gradient is dear."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from vipack.importance import importance
from vipack.progress import interrupts
from vipack.training.ladder.surface import Surface
from vipack.training.trainer import Trainer
from vipack.types import Stopped, StopReason

__all__ = ["train_by_draws"]

_ROUNDS = 4
_DRAWS = 16_000  # a round
_BATCH = 512


def train_by_draws(trainer: Trainer, surface: Surface, num_steps: int, rate: float) -> int:
    """Maximise the weighted likelihood of the guide's own draws, drawn anew for each quarter of the steps.

    This is descent of KL(p || q), estimated with Pareto-smoothed weights. It asks for densities of the model alone, a few
    thousand at a time, where the ELBO asks for a gradient at every step. The mean of the second half of the iterates stays.

    Args:
        rate: Adam's learning rate at the start; it falls along a half cosine.

    Returns:
        Steps taken; fewer after Ctrl-C.

    Source: Müller et al. (2019), arXiv:1808.03856, neural importance sampling.
    """
    program = trainer.program
    tensors = program.parameters.tensors()
    optimizer = torch.optim.Adam(tensors, lr=rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps, 0.01 * rate)
    mean = [torch.zeros_like(value) for value in tensors]
    steps = 0
    with interrupts() as interrupted, trainer.state.random.active():
        for _ in range(_ROUNDS):
            u, weights = _weighted_draws(trainer, surface)
            for _ in range(num_steps // _ROUNDS):
                if interrupted:
                    trainer.state.stopped = Stopped(StopReason.INTERRUPTED, f"Ctrl-C after {steps} steps")
                    break
                rows = torch.multinomial(weights, _BATCH, replacement=True)
                optimizer.zero_grad()
                (-_log_q(trainer, u[rows]).mean()).backward()
                optimizer.step()
                schedule.step()
                steps += 1
                if steps > num_steps // 2:
                    share = 1 / (steps - num_steps // 2)
                    for average, value in zip(mean, tensors, strict=True):
                        average.lerp_(value.detach(), share)
    if steps > num_steps // 2:
        for average, value in zip(mean, tensors, strict=True):
            value.data.copy_(average)
    optimizer.zero_grad(set_to_none=True)
    return steps


def _weighted_draws(trainer: Trainer, surface: Surface) -> tuple[Tensor, Tensor]:
    guide: Any = trainer.program.guide
    with torch.no_grad(), trainer.program.bound(trainer.rows.full(), training=False):
        q = guide.get_posterior()
        u = q.rsample((_DRAWS,))
        log_q = q.log_prob(u)
    log_weights = surface.values(u.double()) - log_q.double()
    return u, torch.from_numpy(np.exp(importance(log_weights).log_weights)).to(u.device)


def _log_q(trainer: Trainer, u: Tensor) -> Tensor:
    guide: Any = trainer.program.guide
    with trainer.program.bound(trainer.rows.full(), training=False):
        log_q: Tensor = guide.get_posterior().log_prob(u)
    return log_q
