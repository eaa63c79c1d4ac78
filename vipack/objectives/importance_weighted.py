"""The importance-weighted bound with the doubly reparametrized gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vipack.errors import GuideError
from vipack.hints import checked_class
from vipack.objectives.objective import Objective

__all__ = ["ImportanceWeighted"]


@checked_class
class ImportanceWeighted(Objective):
    """``log mean_k p(x, z_k) / q(z_k)`` in nats, a bound on the evidence that is tighter than the ELBO (K = 1).

    The guide's gradient is the doubly reparametrized one (DReG: Tucker et al. 2019, arXiv:1810.04152, equation 8), whose
    signal does not drown in noise as K grows; the model's parameters get the bound's own (Burda et al. 2016,
    arXiv:1509.00519). A guide trained so is good at proposing, and wider than the posterior: use its weights.

    The bound is on the evidence of all data together, so for a model with a latent for each row the K particles are of
    all rows at once.

    Args:
        num_particles: K.

    Raises:
        UsageError: `num_particles` is no positive integer.
        GuideError: when first used: the guide's draws are not reparametrized, or it is a Mixture.
    """

    def __init__(self, num_particles: int = 16) -> None:
        super().__init__(num_particles)

    def differentiable_loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Minus the bound ``()`` in nats, whose gradient is DReG's for the guide."""
        evaluated = self._evaluated(model, guide, (args, kwargs))
        if evaluated.weights is not None:
            raise GuideError(
                "ImportanceWeighted: the doubly reparametrized gradient is not that of a mixture's weights; use "
                "StickingTheLanding for a Mixture."
            )
        # Without their graphs, since draws and model parameters are weighted differently.
        latents = {
            n: v.detach().requires_grad_(bool(evaluated.scores) and v.is_floating_point())
            for n, v in evaluated.latents.items()
        }
        log_p = evaluated.particles.log_p(latents, (args, kwargs))
        log_weights = log_p.detach() - evaluated.log_q
        bound = log_weights.logsumexp(0) - math.log(len(log_weights))
        if not evaluated.scores:
            return -bound
        shares = log_weights.softmax(0)
        inputs = {name: value for name, value in latents.items() if value.requires_grad}
        slopes = torch.autograd.grad(log_p.sum(), list(inputs.values()), retain_graph=True, allow_unused=True)
        number = len(log_weights)
        along_p = torch.stack(
            [
                (slope * evaluated.latents[name]).reshape(number, -1).sum(-1)
                for name, slope in zip(inputs, slopes, strict=True)
                if slope is not None
            ]
        ).sum(0)
        surrogate = (shares.square() * (along_p - evaluated.along(evaluated.scores))).sum() + (shares * log_p).sum()
        return -(bound + (surrogate - surrogate.detach()))
