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

    Where every latent is local to the rows of one plate, as in a variational autoencoder, each row has K weights of its
    own: the bound is the sum over rows of ``log mean_k p(x_i, z_ik) / q(z_ik)``, times N/B in a minibatch, as in the papers. Where
    latents are global, or the guide draws all rows jointly, as an AutoContinuous does, the K weights are of all rows together.
    There N/B multiplies log p and log q inside the exponent, so that minibatches give no bound.

    Args:
        num_particles: K.

    Raises:
        UsageError: `num_particles` is no positive integer.
        GuideError: when first used: the guide's draws are not reparametrized, or it is a Mixture.
    """

    by_rows = True

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
        particles = evaluated.particles
        log_p = particles.log_p(latents, (args, kwargs))
        scale = particles.row_scale
        log_p = log_p / scale
        log_weights = log_p.detach() - evaluated.log_q / scale
        bound = scale * (log_weights.logsumexp(0) - math.log(len(log_weights))).sum()
        if not evaluated.scores:
            return -bound
        shares = log_weights.softmax(0)
        inputs = {name: value for name, value in latents.items() if value.requires_grad}
        slopes = torch.autograd.grad(log_p.sum(), list(inputs.values()), retain_graph=True, allow_unused=True)
        along_p = torch.stack(
            [
                particles.sum_to_rows(name, slope * evaluated.latents[name])
                for name, slope in zip(inputs, slopes, strict=True)
                if slope is not None
            ]
        ).sum(0)
        along_q = evaluated.along(evaluated.scores) / scale
        surrogate = scale * ((shares.square() * (along_p - along_q)).sum() + (shares * log_p).sum())
        return -(bound + (surrogate - surrogate.detach()))
