"""Where the ELBO falls short of log p(x): in the family of the guide, or in the encoder that serves all observations at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vipack.display import Readable
from vipack.importance import mean_and_se
from vipack.posterior.posterior import Posterior
from vipack.posterior.row_densities import RowDensities
from vipack.program import seeded
from vipack.program.running.replay import captured
from vipack.progress import Progress
from vipack.types import Estimate

__all__ = ["Gaps", "refined_bounds"]

Array = npt.NDArray[np.float64]

_STEPS, _DRAWS, _RATE = 300, 8, 0.03  # of Adam on each observation's own Gaussian
_LAST_DRAWS = 500  # for the bounds


@dataclass(frozen=True, repr=False)
class Gaps(Readable):
    """log p(x), the ELBO of the best Gaussian with independent dimensions for each x, and the guide's, ``(N,)`` in nats.

    Source: Cremer, Li, Duvenaud (2018), Inference suboptimality in variational autoencoders, arXiv:1801.03558.
    """

    evidence: Array
    best: Array
    elbo: Array

    @property
    def approximation(self) -> Estimate:
        """What a Gaussian with independent dimensions lacks at its best, a mean over observations."""
        return mean_and_se(self.evidence - self.best)

    @property
    def amortisation(self) -> Estimate:
        """What the guide lacks of that, since one network serves all observations; negative where its family is richer."""
        return mean_and_se(self.best - self.elbo)

    def __str__(self) -> str:
        return (
            f"approximation gap {self.approximation}, amortisation gap {self.amortisation} nats an observation "
            f"({len(self.elbo)} observations)"
        )


def refined_bounds(posterior: Posterior, *, seed: int, progress: Progress) -> tuple[Array, Array]:
    """The ELBO of each observation by a Gaussian of its own, fitted from where the guide stands, and by the guide: ``(N,)``.

    Raises:
        UsageError: a latent is not on all of R^d.
    """
    densities = RowDensities(posterior)
    with seeded(seed):
        drawn = densities.flat(posterior.guide_draws(_LAST_DRAWS, seed=seed))
        loc, log_scale = drawn.mean(0), drawn.std(0).clamp(min=1e-6).log()
        progress.begin("a guide for each observation", _STEPS)
        with posterior.running():
            loc, log_scale = _climbed(densities, loc, log_scale, progress)
            scale = log_scale.exp()
            eps = torch.randn(_LAST_DRAWS, *loc.shape)
            log_p = _of_draws(densities.log_p, loc + scale * eps)
            best = log_p + 0.5 * (1 + math.log(2 * math.pi)) * loc.shape[-1] + log_scale.sum(-1)
            elbo = _of_draws(lambda z: densities.log_p(z) - densities.log_q(z), drawn)
        progress.close()
    return best.double().numpy(), elbo.double().numpy()


def _climbed(densities: RowDensities, loc: Tensor, log_scale: Tensor, progress: Progress) -> tuple[Tensor, Tensor]:
    """Locations and log scales ``(N, D)`` after Adam on the ELBO of each observation."""

    def bound(loc: Tensor, log_scale: Tensor, eps: Tensor) -> Tensor:
        rows = torch.vmap(densities.log_p, randomness="different")(loc + log_scale.exp() * eps)
        return rows.mean(0).sum() + log_scale.sum()

    gradient: Callable[..., Any] = torch.func.grad(bound, argnums=(0, 1))
    example = loc, log_scale, torch.randn(_DRAWS, *loc.shape)
    try:
        gradient = captured(gradient, *example, vectorized=True)
    except Exception:  # a program that no graph can be made of is run as it is
        gradient(*example)
    optimizer = torch.optim.Adam([loc, log_scale], lr=_RATE, maximize=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    for _ in range(_STEPS):
        loc.grad, log_scale.grad = gradient(loc, log_scale, torch.randn(_DRAWS, *loc.shape))
        optimizer.step()
        schedule.step()
        progress()
    return loc, log_scale


def _of_draws(function: Callable[[Tensor], Tensor], draws: Tensor) -> Tensor:
    """The mean over draws ``(S, N, D)``, a few at a time."""
    blocks = [torch.vmap(function, randomness="different")(block).double().sum(0) for block in draws.split(20)]
    return torch.stack(blocks).sum(0) / len(draws)
